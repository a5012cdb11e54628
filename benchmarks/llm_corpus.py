"""The data line's speed and memory: documents a second through the quality filter, and collecting two sizes of the same corpus.

    python benchmarks/llm_corpus.py [--documents 40000] [--times 4]

The documents are Japanese sentences of the generator's own lexicon, 20 to 2,000 characters, a third of them repeated
characters or English; they lie in one file as CC-100 does. Beside the filter stands the same formula in plain Python, a text
at a time, whose scores it must equal. Collecting runs in processes of its own: once on the corpus, twice on one so many
times as long; memory is what the peak rose above what was there before, the hash is that of all shards.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from genba_llm import contrast
from genba_llm.corpus_quality import KEPT_FROM, MAX_CHARS, MIN_CHARS, domain_of, quality

BATCH = 512
_JAPANESE = (
    ("\u3040", "\u30ff"),
    ("\u3400", "\u4dbf"),
    ("\u4e00", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\uff66", "\uff9f"),
)
_MARKS = frozenset("。、．，！？「」『』（）・：；.,!?()")


def documents(n: int, *, seed: int = 0) -> Iterator[str]:
    """Texts of mixed length and worth."""
    rng = random.Random(seed)
    sentences = {
        language: [
            fact[language]
            for works in contrast.lexicon("knowledge").values()
            for each in works
            for fact in each["facts"]
        ]
        for language in ("ja", "en")
    }
    for number in range(n):
        length, kind = int(20 * 100 ** rng.random()), number % 6
        if kind == 0:
            yield rng.choice("あかさー。a") * length
            continue
        text = f"{number}番の記録です。"
        while len(text) < length:
            text += rng.choice(sentences["en" if kind == 1 else "ja"])
        yield text


def plain_quality(text: str) -> float:
    """``corpus_quality``'s formula, a character at a time."""
    n = len(text)
    japanese = sum(any(first <= each <= last for first, last in _JAPANESE) or each in "々〆ー" for each in text) / n
    marks = sum(each in _MARKS for each in text) / n
    diversity = min(1.0, len(set(text)) / math.sqrt(2.0 * n) / 5.0)
    length = min(1.0, n / MIN_CHARS, MAX_CHARS / n)
    punctuation = min(1.0, max(0.0, min(marks / 0.02, (0.3 - marks) / 0.1)))
    return min(1.0, diversity / 0.2) * (0.3 * length + 0.4 * japanese + 0.2 * punctuation + 0.1 * diversity)


def speed(texts: list[str]) -> dict[str, float]:
    """Documents a CPU second: the filter, the filter with the domain of what it keeps, and plain Python."""
    began = time.process_time()
    found = np.concatenate([quality(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)])
    filtered = time.process_time() - began
    for text, score in zip(texts, found, strict=True):
        if score >= KEPT_FROM:
            domain_of(text)
    with_domain = time.process_time() - began
    few = texts[: len(texts) // 10]
    began = time.process_time()
    plain = [plain_quality(text) for text in few]
    spent = time.process_time() - began
    if not np.allclose(plain, found[: len(few)]):
        raise SystemExit("the filter and the formula disagree")
    return {
        "filter_documents_per_cpu_s": len(texts) / filtered,
        "filter_and_domain_documents_per_cpu_s": len(texts) / with_domain,
        "plain_python_documents_per_cpu_s": len(few) / spent,
        "mean_chars": sum(map(len, texts)) / len(texts),
        "kept": float((found >= KEPT_FROM).mean()),
    }


def collected(path: Path, folder: Path) -> dict[str, Any]:
    """What collecting a file takes, in this process."""
    from genba_llm.build_own_model import local_run
    from genba_llm.data_line import collect

    run = local_run(folder)
    before, began = psutil.Process().memory_info().rss, time.process_time()
    made = collect([path], run, keep_from=KEPT_FROM)
    spent = time.process_time() - began
    status = Path("/proc/self/status").read_text("ascii")  # getrusage would give the peak of whoever started this
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]
    return {
        "documents": made.tally.n_read,
        "kept": made.tally.n_kept,
        "documents_per_cpu_s": made.tally.n_read / spent,
        "memory_rose_mib": (peak - before) / 2**20,
        "hash": made.data_hash,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=40_000)
    parser.add_argument("--times", type=int, default=4)
    parser.add_argument("--collect", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.collect:
        json.dump(collected(*given.collect), sys.stdout)
        return
    found: dict[str, Any] = {"speed": speed(list(documents(given.documents))), "collect": []}
    with tempfile.TemporaryDirectory() as name:
        for number, times in enumerate((1, given.times, given.times)):
            path = Path(name) / f"{times}.txt"
            path.write_text("\n\n".join(documents(times * given.documents)) + "\n", "utf-8")
            (folder := Path(name) / str(number)).mkdir()
            command = [sys.executable, __file__, "--collect", str(path), str(folder)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            found["collect"].append(json.loads(done.stdout))
    found["same_hash"] = found["collect"][1]["hash"] == found["collect"][2]["hash"]
    json.dump(found, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
