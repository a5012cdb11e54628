"""Embedded mode's writer follows the registry's champion of ``llm.so8t``; sentences of documents stand in for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from genba_llm.backend_extractive import Extractive
from genba_llm.backend_small import SmallModel
from genba_llm.base_model import load_tokenizer
from genba_llm.generation import Message, Options, Task
from genba_llm.live_model import MODEL, OWN_NAME, ChampionModel, DocumentsBy, LiveModel, OwnModel, standing
from genba_llm.policy import Policy
from genba_llm.retrieval import Passage
from genba_llm.sft_rows import messages, passages_of
from genba_llm.so8t_line import FreshShape, make_fresh_base
from genba_llm.synthesise import synthesise
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.readiness import Degraded
from genba_shared.recipe import Registration
from genba_shared.registry import Registry

SHAPE = FreshShape(vocab_size=512, hidden_size=64, layers=1, heads=2, kv_heads=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle as the line writes it, of a model that has learnt nothing yet."""
    folder = tmp_path_factory.mktemp("bundle")
    make_fresh_base(list(synthesise("general", 40, seed=0)), SHAPE, folder / "model", max_tokens=256, seed=0)
    (folder / "bundle.json").write_text(json.dumps({"kind": "phi3", "thinks": True, "reads": True}))
    return folder


@pytest.fixture
def registry(database: Database, tmp_path: Path) -> Registry:
    return Registry(database, Artifacts(str(tmp_path / "artifacts")))


def _live(
    registry: Registry, tmp_path: Path, documents_by: DocumentsBy = "sentences", own_model: OwnModel = "off"
) -> LiveModel:
    return LiveModel(
        registry,
        Policy(),
        cache=tmp_path / "cache",
        refresh_s=3600,
        documents_by=documents_by,
        own_model=own_model,
    )


def _register(registry: Registry, folder: Path, number: int) -> None:
    """As a job does whose gates passed."""
    registration = Registration(MODEL, folder, {"token_accuracy": 0.5}, data_hash=f"d{number}")
    stored = registry.store(registration)
    with registry.database.transaction() as session:
        registry.register(session, registration, job_id=f"job_{number}", by="test", stored=stored)


def test_the_champion_writes_and_sentences_answer_where_documents_speak(
    registry: Registry, tmp_path: Path, bundle: Path
) -> None:
    live = _live(registry, tmp_path)
    live.follow()
    assert isinstance(live.choose(documents=False), Extractive)
    assert [each.model for each in live.all()] == ["genba-extractive-1"]
    _register(registry, bundle, 1)
    live.follow()
    assert live.choose(documents=False).model == "llm.so8t@1"
    assert isinstance(live.choose(documents=True), Extractive)
    assert [each.model for each in live.all()] == ["llm.so8t@1", "genba-extractive-1"]
    assert live.unwell() is None
    all_by_model = _live(registry, tmp_path, "model")
    all_by_model.follow()
    assert all_by_model.choose(documents=True).model == "llm.so8t@1"


def test_a_champion_that_does_not_load_leaves_sentences_answering_and_readiness_says_so(
    registry: Registry, tmp_path: Path, bundle: Path
) -> None:
    torn = shutil.copytree(bundle, tmp_path / "torn")
    (torn / "model" / "model.safetensors").write_bytes(b"torn")
    _register(registry, torn, 1)
    live = _live(registry, tmp_path)
    live.follow()
    assert isinstance(live.choose(documents=False), Extractive)
    assert isinstance(live.unwell(), Degraded)
    assert "version 1 of llm.so8t does not load" in str(live.unwell())


def test_a_champion_reads_the_very_tokens_that_its_rows_began_with(
    registry: Registry, tmp_path: Path, bundle: Path
) -> None:
    _register(registry, bundle, 1)
    live = _live(registry, tmp_path)
    live.follow()
    champion = live.choose(documents=False)
    assert isinstance(champion, ChampionModel)
    assert isinstance(champion.inner, SmallModel)
    tokenizer = load_tokenizer(bundle / "model")
    for row in synthesise("general", 40, seed=1):
        trained = tokenizer.apply_chat_template(
            messages(row)[:-1], add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"]
        task = Task([Message("user", row.instruction)], Options(think=True, max_tokens=1), passages_of(row.input))
        assert champion.inner.prompt(champion.as_trained(task)) == trained
    assert standing(Policy(), "備品の借り方は?").startswith("社内の質問に答える業務アシスタント\n")


def test_the_model_that_ships_writes_until_there_is_a_champion(
    registry: Registry, tmp_path: Path, bundle: Path
) -> None:
    live = _live(registry, tmp_path, own_model="answers")
    live.follow()
    assert [each.model for each in live.all()] == [OWN_NAME, "genba-extractive-1"]
    _register(registry, bundle, 1)
    live.follow()
    assert [each.model for each in live.all()] == ["llm.so8t@1", "genba-extractive-1"]


PASSAGE = Passage("doc", 0, "Press line 3", "M8 bolts of the guard are tightened to 25 Nm. Lunch is at noon.", 0, 1.0)


@pytest.mark.parametrize(
    ("question", "kept"),
    [
        ("To what torque are the M8 bolts of the guard tightened?", True),
        ("torque of M8 bolts", True),
        ("Tell me about how to write minutes, please.", False),
        ("休暇の申請方法を教えてください。", False),
    ],
)
def test_passages_that_only_share_small_words_with_a_question_do_not_answer_it(
    registry: Registry, tmp_path: Path, question: str, *, kept: bool
) -> None:
    live = _live(registry, tmp_path, own_model="answers")
    assert bool(live.needed(question, [PASSAGE])) is kept
    assert _live(registry, tmp_path).needed(question, [PASSAGE]), "without a model, sentences are all there is"
    assert _live(registry, tmp_path, "model", "answers").needed(question, [PASSAGE]), "a model that reads judges itself"
