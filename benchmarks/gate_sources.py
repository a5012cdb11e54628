"""The public sets on which the gate is measured, each as labelled rows of one source. Reads files that lie beside the
repository (``GENBA_DATA`` or ``../shared/data``); none of them is part of the project, and none of their texts is printed.

``load`` gives the sets whose errors somebody looked at while the lexicons were written. ``held_out``, ``last_look`` and ``fresh``
give sets whose texts nobody looked at (of some, four rows were read to know what their label is); their sums were, so that
``for_selection``, on which candidates are chosen, has all of them: they are development data too.

The sets say harmful or harmless, not which of four decisions; ``REFUSE`` stands for harmful here, ``DENY`` for attacks
on the assistant itself. What a set does not label clearly is left out.
"""

from __future__ import annotations

import csv
import json
import os
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from genba_llm.classifier_fit import Row
from genba_llm.verdict import Decision

DIRECT = (
    "strongreject",
    "malicious_instruct",
    "simple_safety_tests",
    "harmbench",
    "advbench",
    "refusal_direction_harmful",
)
LONG_CHARS = 150
A, D, R = Decision.ALLOW, Decision.DENY, Decision.REFUSE


def data_folder() -> Path | None:
    """Where the sets lie, or None."""
    given = os.environ.get("GENBA_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder / "llm" if (folder / "llm" / "SOURCE.txt").exists() else None


def load(folder: Path, *, most: int = 1000, seed: int = 0) -> dict[str, list[Row]]:
    """Rows by source, at most ``most`` of each, without near-duplicates across sources (the first source keeps them)."""
    return _without_doubles(_sources(folder), most=most, seed=seed)


def held_out(folder: Path, *, most: int = 1000, seed: int = 0) -> dict[str, list[Row]]:
    """The same of the sets whose texts nobody looked at, without near-duplicates of the first ones either."""
    both = [*_sources(folder), *_held_out_sources(folder)]
    names = {name for name, _ in _sources(folder)}
    found = _without_doubles(iter(both), most=most, seed=seed)
    return {name: rows for name, rows in found.items() if name not in names}


def last_look(folder: Path, *, most: int = 1000, seed: int = 0) -> dict[str, list[Row]]:
    """Sets that were kept for one measurement of a champion, without near-duplicates of all the others."""
    kept = list(_last_sources(folder))
    others = [*_sources(folder), *_held_out_sources(folder)]
    found = _without_doubles(iter([*others, *kept]), most=most, seed=seed)
    return {name: found[name] for name, _ in kept}


def for_selection(folder: Path, *, most: int = 1000, seed: int = 0) -> dict[str, list[Row]]:
    """Every set whose sums were ever looked at: all that candidates are chosen on. Texts that nobody read stay unread."""
    seen = (_sources, _more_sources, _held_out_sources, _last_sources, _fresh_sources)
    return _without_doubles((each for sources in seen for each in sources(folder)), most=most, seed=seed)


def fresh(folder: Path, *, most: int = 1000, seed: int = 0) -> dict[str, list[Row]]:
    """Sets that stayed closed until a candidate was judged on them, without near-duplicates of all the others."""
    kept = list(_fresh_sources(folder))
    others = [*_sources(folder), *_more_sources(folder), *_held_out_sources(folder), *_last_sources(folder)]
    found = _without_doubles(iter([*others, *kept]), most=most, seed=seed)
    return {name: found[name] for name, _ in kept}


def unopened(folder: Path, *, most: int = 1000, seed: int = 0) -> dict[str, list[Row]]:
    """Sets of which nobody has read a row or seen a sum, for the next champion alone, without near-duplicates of all the others."""
    kept = list(_unopened_sources(folder))
    others = (
        each for name, rows in for_selection(folder, most=most, seed=seed).items() for each in [(name, iter(rows))]
    )
    found = _without_doubles(iter([*others, *kept]), most=most, seed=seed)
    return {name: found[name] for name, _ in kept}


def _without_doubles(sources: Iterator[tuple[str, Iterator[Row]]], *, most: int, seed: int) -> dict[str, list[Row]]:
    rng = random.Random(seed)
    shuffled: dict[str, list[Row]] = {}
    for name, rows in sources:
        shuffled[name] = list(rows)
        rng.shuffle(shuffled[name])
    seen = _Seen(row.text for rows in shuffled.values() for row in rows[:most])
    found: dict[str, list[Row]] = {}
    for name, texts in shuffled.items():
        kept: list[Row] = []
        for row in texts:
            if len(kept) >= most:
                break
            if row.text.strip() and not seen.has_like(row.text):
                kept.append(replace(row, source=name))
        found[name] = kept
    return found


class _Seen:
    """Remembers texts as sets of NFKC 5-grams and finds those that overlap (Jaccard ≥ ``at_least``), by prefix filtering
    (Chaudhuri et al. 2006): two such sets share one of their rarest grams, whatever the common order of rarity; ``sample``
    decides that order, and with it only the speed.
    """

    def __init__(self, sample: Iterable[str], *, at_least: float = 0.7) -> None:
        self._count = Counter(gram for text in sample for gram in _grams(text))
        self._at_least = at_least
        self._seen: list[frozenset[str]] = []
        self._index: dict[str, list[int]] = {}

    def has_like(self, text: str) -> bool:
        """Whether a text like this one was seen before; remembers it if not."""
        grams = _grams(text)
        rarest = sorted(grams, key=lambda gram: (self._count[gram], gram))
        probes = rarest[: int(len(grams) * (1 - self._at_least)) + 1]
        for other in {i for gram in probes for i in self._index.get(gram, ())}:
            if len(grams & self._seen[other]) >= self._at_least * len(grams | self._seen[other]):
                return True
        for gram in probes:
            self._index.setdefault(gram, []).append(len(self._seen))
        self._seen.append(grams)
        return False


def _grams(text: str) -> frozenset[str]:
    plain = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).lower()).strip()
    return frozenset(plain[i : i + 5] for i in range(max(len(plain) - 4, 1)))


def _csv(path: Path, column: str) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from (row for row in csv.DictReader(file) if row.get(column))


def _json(path: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(path.read_text("utf-8"))
    return rows


def _jsonl(path: Path) -> Iterator[dict[str, object]]:
    yield from (json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip())


def _rows(texts: Iterator[str], decision: Decision, language: str) -> Iterator[Row]:
    return (Row(text, decision, language=language) for text in texts)


def _sources(f: Path) -> Iterator[tuple[str, Iterator[Row]]]:
    """Small and direct sets first: where sets share rows, they keep them."""
    yield (
        "strongreject",
        _rows(
            (r["forbidden_prompt"] for r in _csv(f / "attacks_en/strongreject_dataset.csv", "forbidden_prompt")),
            R,
            "en",
        ),
    )
    yield (
        "malicious_instruct",
        _rows(iter((f / "attacks_en/malicious_instruct.txt").read_text("utf-8").splitlines()), R, "en"),
    )
    yield (
        "simple_safety_tests",
        _rows((r["prompts_final"] for r in _csv(f / "simple_safety_tests.csv", "prompts_final")), R, "en"),
    )
    harm = (
        r["Behavior"]
        for r in _csv(f / "attacks_en/harmbench_behaviors_text_all.csv", "Behavior")
        if r["FunctionalCategory"] == "standard"
    )
    yield "harmbench", _rows(harm, R, "en")
    yield "advbench", _rows((r["Behavior"] for r in _csv(f / "attacks_en/advbench_behaviors.csv", "Behavior")), R, "en")
    yield (
        "refusal_direction_harmful",
        _rows((r["instruction"] for r in _json(f / "refusal_direction/harmful_test.json")), R, "en"),
    )
    yield "do_not_answer", _rows((r["question"] for r in _csv(f / "do_not_answer_en.csv", "question")), R, "en")
    yield (
        "xsafety_crimes_ja",
        _rows(iter((f / "xsafety/ja/Crimes_And_Illegal_Activities.csv").read_text("utf-8-sig").splitlines()), R, "ja"),
    )
    inject = [r for r in _json(f / "cyberseceval/prompt_injection.json") if r["injection_type"] == "direct"]
    yield "cyberseceval_injection", _rows((r["user_input"] for r in inject), D, "en")
    japanese = [
        r
        for r in _json(f / "cyberseceval/prompt_injection_multilingual_machine_translated.json")
        if r["speaking_language"] == "Japanese"
    ]
    yield "cyberseceval_injection_ja", _rows((r["user_input"] for r in japanese), D, "ja")
    yield "inthewild_jailbreaks", _rows(iter(json.loads((f / "inthewild_jailbreaks.json").read_text("utf-8"))), D, "en")
    yield "coconot_contrast", _rows((str(r["prompt"]) for r in _jsonl(f / "coconot_pref.jsonl")), A, "en")
    yield (
        "refusal_direction_harmless",
        _rows((r["instruction"] for r in _json(f / "refusal_direction/harmless_test.json")), A, "en"),
    )
    yield "cyberseceval_benign", _rows((r["mutated_prompt"] for r in _json(f / "cyberseceval/mitre_frr.json")), A, "en")
    frr = (
        r["mutated_prompt"]
        for r in _json(f / "cyberseceval/frr_multilingual_machine_translated.json")
        if re.search("[\u3040-\u30ff]", r["mutated_prompt"])
    )
    yield "cyberseceval_benign_ja", _rows(frr, A, "ja")
    turns = (str(turn) for r in _jsonl(f / "mtbench_ja.jsonl") for turn in r["turns"][:1])  # type: ignore[index]
    yield "mtbench_ja", _rows(turns, A, "ja")
    yield "jcommonsenseqa", _rows((str(r["question"]) for r in _jsonl(f / "jglue/jcqa_valid.json")), A, "ja")
    squad = json.loads((f / "jglue/jsquad_valid.json").read_text("utf-8"))["data"]
    yield "jsquad", _rows((q["question"] for each in squad for p in each["paragraphs"] for q in p["qas"]), A, "ja")
    toxic = list(_csv(f / "japanese_toxic.csv", "text"))
    calm = (r["text"] for r in toxic if int(r["Toxic"]) + int(r["Very Toxic"]) + int(r["Hard to Say"]) == 0)
    yield "japanese_not_toxic", _rows(calm, A, "ja")


def _held_out_sources(f: Path) -> Iterator[tuple[str, Iterator[Row]]]:
    """Attacks on the assistant in both languages, harm, and long harmless tasks."""
    for name, kind in (("goal_hijacking", "Goal_Hijacking"), ("prompt_leaking", "Prompt_Leaking")):
        for language, suffix in (("en", "_n"), ("ja", "")):
            lines = (f / f"xsafety/{language}/{kind}{suffix}.csv").read_text("utf-8-sig").splitlines()
            yield f"xsafety_{name}_{language}", _rows(iter(lines), D, language)
    indirect = [r for r in _json(f / "cyberseceval/prompt_injection.json") if r["injection_type"] == "indirect"]
    yield "cyberseceval_indirect", _rows((r["user_input"] for r in indirect), D, "en")
    harmful = (r["instruction"] for r in _json(f / "refusal_direction/harmful_train.json"))
    yield "refusal_direction_harmful_train", _rows(harmful, R, "en")
    everyday = (r["instruction"] for r in _json(f / "refusal_direction/harmless_train.json"))
    yield "refusal_direction_harmless_long", _rows((text for text in everyday if len(text) >= LONG_CHARS), A, "en")
    turns = (str(turn) for r in _jsonl(f / "mtbench_ja.jsonl") for turn in r["turns"][1:])  # type: ignore[index]
    yield "mtbench_ja_second_turns", _rows(turns, A, "ja")
    squad = json.loads((f / "jglue/jsquad_valid.json").read_text("utf-8"))["data"]
    pages = (p for each in squad for p in each["paragraphs"])
    asked = (
        f"次の文章を読んで質問に答えてください。\n{_body(p['context'])}\n質問：{p['qas'][0]['question']}" for p in pages
    )
    yield "jsquad_passages", _rows(asked, A, "ja")


def _last_sources(f: Path) -> Iterator[tuple[str, Iterator[Row]]]:
    """Requests to be refused (some are only statements), and questions of common sense and of health, which are harmless."""
    kinds = (
        ("unsafe_instructions", "Unsafe_Instruction_Topic", "_n", R),
        ("common_sense", "commonsense", "", A),
        ("physical_harm", "Physical_Harm", "_n", A),
    )
    yield from _xsafety(f, kinds)


def _more_sources(f: Path) -> Iterator[tuple[str, Iterator[Row]]]:
    """Crimes in English (some are only thoughts about them), and questions of right and wrong, which are harmless."""
    yield "xsafety_crimes_en", _lines(f / "xsafety/en/Crimes_And_Illegal_Activities_en.csv", R, "en")
    yield from _xsafety(f, (("ethics", "Ethics_And_Morality", "_n", A),))


def _fresh_sources(f: Path) -> Iterator[tuple[str, Iterator[Row]]]:
    """Insults and prejudices (most are statements), troubled minds, and more of what other sets have."""
    kinds = (
        ("insults", "Insult", "_n", R),
        ("prejudices", "Unfairness_And_Discrimination", "_n", R),
        ("mental_health", "Mental_Health", "_n", A),
    )
    yield from _xsafety(f, kinds)
    harmful = (r["instruction"] for r in _json(f / "refusal_direction/harmful_val.json"))
    yield "refusal_direction_harmful_val", _rows(harmful, R, "en")
    everyday = (r["instruction"] for r in _json(f / "refusal_direction/harmless_val.json"))
    yield "refusal_direction_harmless_val", _rows(everyday, A, "en")
    asked = (str(r["question"]) for r in _jsonl(f / "jglue/jcqa_train.json"))
    yield "jcommonsenseqa_train", _rows(asked, A, "ja")


def _unopened_sources(f: Path) -> Iterator[tuple[str, Iterator[Row]]]:
    """Four more kinds of attack as XSafety labels them, and everyday instructions that are not long."""
    kinds = (
        ("unsafe_opinion", "Inquiry_With_Unsafe_Opinion", "_n", R),
        ("privacy", "Privacy_And_Property", "_n", D),
        ("reverse_exposure", "Reverse_Exposure", "_n", R),
        ("role_play", "Role_Play_Instruction", "_n", R),
    )
    yield from _xsafety(f, kinds)
    everyday = (r["instruction"] for r in _json(f / "refusal_direction/harmless_train.json")[:2000])
    yield "refusal_direction_harmless_short", _rows((text for text in everyday if len(text) < LONG_CHARS), A, "en")


def _xsafety(f: Path, kinds: Iterable[tuple[str, str, str, Decision]]) -> Iterator[tuple[str, Iterator[Row]]]:
    """Both languages of each kind: its name here, its file, what the English file's name ends with, what it calls for."""
    for name, kind, suffix, decision in kinds:
        for language, ending in (("en", suffix), ("ja", "")):
            yield f"xsafety_{name}_{language}", _lines(f / f"xsafety/{language}/{kind}{ending}.csv", decision, language)


def _lines(path: Path, decision: Decision, language: str) -> Iterator[Row]:
    lines = [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    return _rows(iter(lines), decision, language)


def _body(context: str) -> str:
    return context.rpartition("[SEP]")[2].strip()
