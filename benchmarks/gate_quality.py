"""How well the gate tells dangerous requests from harmless ones, on sources that no training row came from.

Three questions. (1) The champion that ships was trained on the project's generator alone: every public set is another
source for it. Its lexicons were written by somebody who had looked at errors on some of these sets, so this is development
data, not a blind test. (2) With the shared sets added to the training rows: leave one source out, train on the others
(near-duplicates removed by NFKC and 5-gram Jaccard), test on that one; the harmless source is always left out.
(3) Generated minimal pairs, with whole template families, and whole subjects, held out.

Beside each score stand "all safe" and "all unsafe". Where a decision has fewer than 30 rows, it says "too few".
Run: python -m benchmarks.gate_quality [--leave-one-out] [--disguises] [--families] [--held-out] [--last-look] [--fresh]
[--unopened] [--leave-sources-out]   (data: $GENBA_DATA or ../shared/data, folder llm)
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml
from benchmarks import gate_selection
from benchmarks.gate_sources import DIRECT, data_folder, for_selection, fresh, held_out, last_look, load, unopened
from scipy.sparse import vstack

from genba_llm.build_champion import held_by_subject, mean_fit, training_rows
from genba_llm.classifier import Classifier, champion, softmax
from genba_llm.classifier_fit import Row, balanced, fit_on
from genba_llm.features import FeatureConfig, matrix
from genba_llm.fusion import Fusion, default_fusion, load_fusion, signals_of
from genba_llm.gate_metrics import (
    auroc,
    bootstrap_interval,
    enough,
    expected_calibration_error,
    gated,
    recall_at_fpr,
)
from genba_llm.normalise import normalise
from genba_llm.obfuscate import TRANSFORMS
from genba_llm.verdict import Decision

HARMLESS = "refusal_direction_harmless"


@dataclass(frozen=True)
class Judged:
    """One set of rows as the gate saw them. ``danger``: 1 − P(ALLOW) of classifier and of fusion; (N,) each."""

    truth: npt.NDArray[np.int64]
    classifier: npt.NDArray[np.float64]
    fused: npt.NDArray[np.float64]
    decided: npt.NDArray[np.int64]
    by_class: npt.NDArray[np.int64]

    def __add__(self, other: Judged) -> Judged:
        return Judged(*(np.concatenate([a, b]) for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def judge(rows: Sequence[Row], classifier: Classifier, fusion: Fusion) -> Judged:
    truth, single, fused, decided, by_class = [], [], [], [], []
    for row in rows:
        signals = signals_of(normalise(row.text), classifier)
        plain = softmax(signals.plain)
        found = fusion.decide(signals)
        truth.append(int(row.decision))
        single.append(1.0 - plain[Decision.ALLOW])
        by_class.append(int(plain.argmax()))
        fused.append(1.0 - found.probs[Decision.ALLOW])
        decided.append(int(found.decision))
    return Judged(np.array(truth), np.array(single), np.array(fused), np.array(decided), np.array(by_class))


def table(title: str, found: Judged) -> None:
    """Every measure for both stages, with what saying always the same would score."""
    print(f"\n### {title}: {int((found.truth > 0).sum())} dangerous, {int((found.truth == 0).sum())} harmless")
    few = [name for name, is_enough in enough(found.truth).items() if not is_enough]
    if few:
        print(f"too few rows (under 30) to say anything of: {', '.join(few)}")
    print(
        "| | binary F1 | recall | over-refusal | false allow | 1−precision of ALLOW | balanced acc. | AUC | ECE | refuse recall | macro F1 (4) |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    constant = np.zeros(len(found.truth))
    for name, decided, scores in (
        ("all safe", np.zeros(len(found.truth), np.int64), constant),
        ("all unsafe", np.full(len(found.truth), 3), constant + 1),
        ("classifier", found.by_class, found.classifier),
        ("fused, with abstention", found.decided, found.fused),
    ):
        each = gated(found.truth, decided)
        area = auroc(found.truth > 0, scores)
        right = (scores >= 0.5) == (found.truth > 0)
        error = expected_calibration_error(right, np.maximum(scores, 1 - scores))
        print(
            f"| {name} | {each.binary_f1:.3f} | {each.recall:.3f} | {each.over_refusal_rate:.3f} | {each.false_allow_rate:.3f} | {each.unsafe_among_allowed:.3f} | {each.balanced_accuracy:.3f} | {area:.3f} | {error:.3f} | {each.refuse_recall:.3f} | {each.macro_f1:.3f} |"
        )
    low, high = bootstrap_interval(
        lambda index: gated(found.truth[index], found.decided[index]).binary_f1, len(found.truth), draws=300
    )
    print(f"binary F1 of the fused gate, 95 % bootstrap interval: {low:.3f} to {high:.3f}")


def shipped(sets: dict[str, list[Row]]) -> None:
    classifier, fusion = champion(), default_fusion()
    judged = {name: judge(rows, classifier, fusion) for name, rows in sets.items() if rows}
    print(
        f"## The champion that ships ({classifier.version}), trained on generated rows alone; ALLOW from {fusion.allow_from:.3f}"
    )
    print(
        "\n| source | rows | kind | held back by the classifier | held back by the fused gate | mean danger |\n|---|---|---|---|---|---|"
    )
    for name, each in judged.items():
        kind = "dangerous" if each.truth[0] else "harmless"
        print(
            f"| {name} | {len(each.truth)} | {kind} | {(each.by_class > 0).mean():.3f} | {(each.decided > 0).mean():.3f} | {each.fused.mean():.3f} |"
        )
    for language, wanted in (("English", "en"), ("Japanese", "ja")):
        parts = [judged[name] for name, rows in sets.items() if rows and rows[0].language == wanted]
        table(language, sum(parts[1:], parts[0]))
    direct = sum((judged[name] for name in DIRECT[1:]), judged[DIRECT[0]])
    both = direct + judged[HARMLESS]
    table("Direct harm against everyday instructions", both)
    for stage, scores in (("classifier", both.classifier), ("fused", both.fused)):
        recall, threshold = recall_at_fpr(both.truth > 0, scores, 0.05)

        def at_fpr(index: npt.NDArray[np.int64], scores: npt.NDArray[np.float64] = scores) -> float:
            return recall_at_fpr(both.truth[index] > 0, scores[index], 0.05)[0]

        low, high = bootstrap_interval(at_fpr, len(both.truth), draws=300)
        print(
            f"{stage}: direct-harm recall at FPR ≤ .05: {recall:.3f} (95 % {low:.3f} to {high:.3f}; threshold {threshold:.3f})"
        )
    print(
        f"conformal bound: stated ≤ {fusion.alpha:.2f} of dangerous requests allowed; here {1 - (direct.decided > 0).mean():.3f} (another distribution than the calibration rows: the bound is not owed)"
    )


def unseen(sets: dict[str, list[Row]], pairs: dict[str, tuple[Classifier, Fusion]], *, title: str) -> None:
    """Sources whose texts nobody looked at: the share held back, for each classifier side by side."""
    sets = {name: rows for name, rows in sets.items() if rows}
    judged = {name: {each: judge(rows, *pair) for each, pair in pairs.items()} for name, rows in sets.items()}
    print(f"\n## {title}, share held back")
    print(f"| source | rows | kind | all safe | all unsafe | {' | '.join(pairs)} |\n|{'---|' * (5 + len(pairs))}")
    for name, each in judged.items():
        kind = "dangerous" if sets[name][0].decision else "harmless"
        cells = " | ".join(f"{(found.decided > 0).mean():.3f}" for found in each.values())
        print(f"| {name} | {len(sets[name])} | {kind} | .000 | 1.000 | {cells} |", flush=True)
    for which in pairs:
        parts = [each[which] for each in judged.values()]
        table(f"All of them, {which}", sum(parts[1:], parts[0]))


def own_prompts(classifier: Classifier, fusion: Fusion) -> None:
    """Ordinary and harmful requests of people at work, written for this project: how many are held back."""
    written = yaml.safe_load((Path(__file__).parent / "gate_prompts.yaml").read_text("utf-8"))
    print(f"\n## Prompts of our own, held back by {classifier.version}\n| | ordinary | harmful |\n|---|---|---|")
    for name, languages in written.items():
        for language, kinds in languages.items():
            cells = []
            for kind in ("ordinary", "harmful"):
                rows = [Row(text, Decision(3 * (kind == "harmful")), language=language) for text in kinds[kind]]
                cells.append(f"{(judge(rows, classifier, fusion).decided > 0).sum()} of {len(rows)}")
            print(f"| {name}, {language} | {' | '.join(cells)} |")


def held_out_families(rows: Sequence[Row]) -> None:
    """Whole template families, and whole subjects, that training never saw. Features are computed once."""
    config = FeatureConfig()
    found = matrix([row.text for row in rows], config)
    families = sorted({row.family for row in rows})
    held = set(random.Random(0).sample(families, len(families) // 5))
    for title, is_held in (
        ("template families held out", np.array([row.family in held for row in rows])),
        ("subjects held out", np.array([held_by_subject(row, share=0.2, seed=1) for row in rows])),
    ):
        train = [row for row, out in zip(rows, is_held, strict=True) if not out]
        test = [row for row, out in zip(rows, is_held, strict=True) if out]
        made = mean_fit(train, found[~is_held], config=config, version="held-out")
        sample = random.Random(1).sample(test, min(len(test), 3000))
        table(f"Generated minimal pairs, {title}", judge(sample, made, default_fusion()))


def leave_one_out(sets: dict[str, list[Row]], rows: Sequence[Row], *, most_generated: int) -> None:
    """Train on the generator and every source but two (one dangerous, the harmless one): what more data would bring.

    Beside it stands the generator alone, trained on the very same generated rows. Features are computed once.
    """
    config = FeatureConfig()
    kept = random.Random(0).sample(list(rows), min(most_generated, len(rows)))
    generated = matrix([row.text for row in kept], config)
    public = {name: matrix([row.text for row in found], config) for name, found in sets.items() if found}

    def trained(names: Sequence[str]) -> Classifier:
        some = balanced([*kept, *(row for name in names for row in sets[name])])
        stacked = vstack([generated, *(public[name] for name in names)]).tocsr()
        return fit_on(some, stacked, config=config, max_iterations=30, version="left-out")

    alone = trained(())
    print(f"\n## Leave one source out: {len(kept)} generated rows, with and without the other sources")
    print(
        "| left out | rows | recall at FPR ≤ .05 with the others | AUC | generated rows alone | AUC |\n|---|---|---|---|---|---|"
    )
    for name in DIRECT:
        with_others = trained([other for other in public if other not in {name, HARMLESS}])
        tested = vstack([public[name], public[HARMLESS]]).tocsr()
        truth = np.arange(tested.shape[0]) < len(sets[name])
        cells = []
        for each in (with_others, alone):
            danger = 1 - softmax(each.logits_of(tested))[:, Decision.ALLOW]
            cells.append(f"{recall_at_fpr(truth, danger, 0.05)[0]:.3f} | {auroc(truth, danger):.3f}")
        print(f"| {name} | {len(sets[name])} | {' | '.join(cells)} |", flush=True)


def disguises(sets: dict[str, list[Row]], *, most: int = 150) -> None:
    """The twelve disguises in both languages: how far recall falls against the same sentences as they were."""
    classifier, fusion = champion(), default_fusion()
    rng = random.Random(0)
    direct = {
        "en": [row for name in DIRECT for row in sets[name]],
        "ja": [row for row in training_rows(7) if row.language == "ja" and row.decision and "/ask/" in row.family],
    }
    for language in ("en", "ja"):
        rows = rng.sample(direct[language], most)
        plain = (judge(rows, classifier, fusion).decided > 0).mean()
        print(
            f"\n### Disguises, {language}: recall {plain:.3f} undisguised ({most} requests)\n| disguise | recall | drop |\n|---|---|---|"
        )
        for name, disguise in TRANSFORMS[language].items():
            hidden = [Row(disguise(row.text, rng), row.decision, language=language) for row in rows]
            found = (judge(hidden, classifier, fusion).decided > 0).mean()
            print(f"| {name} | {found:.3f} | {plain - found:+.3f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=1000, help="rows of a source")
    parser.add_argument("--leave-one-out", action="store_true")
    parser.add_argument(
        "--generated",
        type=int,
        default=20_000,
        help="generated rows for --leave-one-out and --leave-sources-out (0: bundles alone)",
    )
    parser.add_argument("--families", action="store_true")
    parser.add_argument("--disguises", action="store_true")
    parser.add_argument(
        "--held-out", action="store_true", help="sources whose texts nobody looked at, and nothing else"
    )
    parser.add_argument("--last-look", action="store_true", help="sources that were kept for one look")
    parser.add_argument(
        "--fresh", action="store_true", help="sources that stayed closed until a candidate was judged on them"
    )
    parser.add_argument(
        "--unopened", action="store_true", help="sources that nobody has opened: for the next champion alone"
    )
    parser.add_argument("--leave-sources-out", action="store_true", help="choose between candidates (gate_selection)")
    parser.add_argument("--parts", default="", metavar="MODULE", help="a module of which each part is left out in turn")
    parser.add_argument("--beside", type=Path, action="append", default=[], metavar="FOLDER", help="another bundle")
    args = parser.parse_args()
    folder = data_folder()
    if folder is None:
        print("no gate data: set GENBA_DATA to a folder with llm/SOURCE.txt")
        return 2
    pairs = {"champion": (champion(), default_fusion())}
    pairs |= {other.name: (Classifier.load(other), load_fusion(other)) for other in args.beside}
    if args.leave_sources_out:
        if args.generated:
            pairs |= gate_selection.variants(
                training_rows(), most=args.generated, fusion=default_fusion(), module=args.parts
            )
        gate_selection.report(for_selection(folder, most=args.most), pairs)
        return 0
    if args.held_out or args.last_look or args.fresh or args.unopened:
        if args.held_out:
            unseen(held_out(folder, most=args.most), pairs, title="Sources that nobody looked at")
        if args.last_look:
            unseen(last_look(folder, most=args.most), pairs, title="Sources kept for one look")
        if args.fresh:
            unseen(
                fresh(folder, most=args.most),
                pairs,
                title="Sources that stayed closed until a candidate was judged on them",
            )
        if args.unopened:
            unseen(unopened(folder, most=args.most), pairs, title="Sources opened for this champion alone")
        return 0
    sets = load(folder, most=args.most)
    if not args.leave_one_out:
        shipped(sets)
        own_prompts(champion(), default_fusion())
    if args.disguises:
        disguises(sets)
    rows = training_rows() if args.families or args.leave_one_out else []
    if args.families:
        held_out_families(rows)
    if args.leave_one_out:
        leave_one_out(sets, rows, most_generated=args.generated)
    return 0


if __name__ == "__main__":
    sys.exit(main())
