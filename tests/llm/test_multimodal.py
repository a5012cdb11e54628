"""Rendered documents: what stands on them is known to the pixel, the level decides, and a seed decides every byte."""

from __future__ import annotations

import io
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.llm.run_world import StopsAt, local_run

from genba_llm import training_so8t
from genba_llm.multimodal import DECIDED, multimodal
from genba_llm.pictures import HEIGHT_PX, KINDS, LEVELS, WIDTH_PX, draw
from genba_llm.sft_rows import Row
from genba_llm.shards import read_shards
from genba_shared.recipe import Cancelled


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", ["ja", "en"])
def test_every_line_lies_inside_the_picture_and_has_ink_where_it_says(kind: str, language: str) -> None:
    picture = draw(kind, "medical", "confidential", language, random.Random(3))  # type: ignore[arg-type]
    pixels = np.asarray(Image.open(io.BytesIO(picture.png)).convert("L")).astype(int)
    assert pixels.shape == (HEIGHT_PX, WIDTH_PX)
    paper = np.median(pixels)
    assert len(picture.lines) >= 6
    for line in picture.lines:
        left, top, right, bottom = line.box
        assert 0 <= left < right <= WIDTH_PX
        assert 0 <= top < bottom <= HEIGHT_PX
        assert abs(pixels[top:bottom, left:right] - paper).max() > 40, line
    assert picture.ocr_text.splitlines()[-1] == {"ja": "秘", "en": "CONFIDENTIAL"}[language]


def test_lines_of_a_picture_do_not_lie_on_each_other() -> None:
    for number in range(24):
        picture = draw(KINDS[number % 3], "finance", "secret", "ja" if number % 2 else "en", random.Random(number))
        boxes = [line.box for line in picture.lines]
        for at, one in enumerate(boxes):
            for other in boxes[at + 1 :]:
                apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
                assert apart, (picture.kind, picture.lines)


def test_a_job_gives_rows_that_the_line_takes_and_pictures_by_their_keys(tmp_path: Path) -> None:
    run = local_run(tmp_path)
    result = training_so8t.draw_pictures(training_so8t.MultimodalParams(n=24, seed=5), run)
    rows = [Row.model_validate(row) for _, row in read_shards(run.artifacts, result.value["shards"])]
    records = [record for _, record in read_shards(run.artifacts, result.value["pictures"])]
    assert len(rows) == len(records) == 24
    assert Counter(each["level"] for each in records) == dict.fromkeys(LEVELS, 6)
    for row, record in zip(rows, records, strict=True):
        assert row.decision == DECIDED[record["level"]]
        assert row.input == record["ocr_text"]
        with Image.open(run.artifacts.local_path(record["image"])) as image:
            assert image.size == (WIDTH_PX, HEIGHT_PX)
    assert result.value["tally"]["by_decision"] == {"ALLOW": 12, "DENY": 6, "ESCALATE": 6}


def test_a_killed_job_ends_with_the_same_bytes_and_another_seed_with_others(tmp_path: Path) -> None:
    def made(name: str, *, seed: int = 1, reporter: StopsAt | None = None, attempt: int = 1) -> list[str]:
        run = local_run(tmp_path / name, reporter, attempt=attempt)
        drawn = multimodal(["general", "medical"], KINDS, run, n=10, seed=seed, per_shard=4)
        return drawn.rows.shards + drawn.pictures

    whole = made("whole")
    with pytest.raises(Cancelled):
        made("cut", reporter=StopsAt(after=6))
    assert made("cut", attempt=2) == whole
    assert made("other", seed=2) != whole
