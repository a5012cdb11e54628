"""A user's own model judges requests beside the classifier, and is named by what it decided."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.world import until
from tests.llm.service.conftest import HARMLESS, Headers, running
from tests.llm.test_backends import make_tiny_phi3

from genba_llm.settings import Settings
from genba_shared.settings import Platform


def test_the_model_in_the_folder_judges_requests_too(upgraded: Platform, signed: Headers, tmp_path: Path) -> None:
    folder = make_tiny_phi3(tmp_path / "tiny-phi3")
    settings = Settings(platform=upgraded, backend="transformers", backend_folder=folder, reasoner="one_forward")
    with running(settings, signed) as service:
        until(lambda: service.llm.backend_answers() is None)
        found = service.post("triage", {"text": HARMLESS}).json()
        again = service.post("triage", {"text": HARMLESS}).json()
    judged = next(each for each in found["evidence"] if each["stage"] == "reasoning")
    assert sum(judged["scores"].values()) == pytest.approx(1.0, abs=1e-5)
    assert found["model_version"].endswith("+one-forward:tiny-phi3")
    assert next(each for each in again["evidence"] if each["stage"] == "reasoning")["scores"] == judged["scores"]


def test_a_reasoner_without_a_model_to_ask_is_refused_at_the_start(upgraded: Platform, signed: Headers) -> None:
    with (
        pytest.raises(ValueError, match="needs GENBA_LLM_BACKEND=transformers"),
        running(Settings(platform=upgraded, reasoner="one_forward"), signed),
    ):
        pass
