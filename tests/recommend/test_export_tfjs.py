"""The layers-model gives the tower's vectors in Node and in a real Chromium page, whole: from ids and a profile to a ranked list."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import sync_playwright
from tests.recommend.tower_world import Towers, towers

from genba_recommend.blending import Blend
from genba_recommend.export_tfjs import Listed, Quantised, user_tower_inputs, write
from genba_recommend.heads import Heads
from genba_recommend.neighbours import choices, ease
from genba_recommend.scoring import blended, tower_scores
from genba_recommend.training_config import Pooling

HERE = Path(__file__).parent / "tfjs"
TFJS = HERE / "node_modules/@tensorflow/tfjs/dist/tf.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
TOLERANCE = 1e-5
Answer = dict[str, Any]


@pytest.fixture(scope="module")
def tfjs() -> Path:
    """TensorFlow.js as deploy/setup.sh test installs it. Missing: skipped on a person's machine, failed when CI=true."""
    missing = "node" if shutil.which("node") is None else "@tensorflow/tfjs" if not TFJS.is_file() else None
    said = (
        f"{missing} is missing: install Node.js with npm (Debian: apt-get install npm), then run deploy/setup.sh test"
    )
    if missing and os.environ.get("CI") == "true":
        pytest.fail(said, pytrace=False)
    if missing:
        pytest.skip(said)
    return TFJS


BLEND = Blend(towers=0.9, doubt=2.0, stranger=0.5, neighbours=30.0, fade=0.9)


def some_heads(dim: int) -> Heads:
    rng = np.random.default_rng(0)
    drawn = [rng.normal(size=shape).astype(np.float32) for shape in ((3 * dim, 5), (5,), (5, 2), (2,))]
    return Heads(("watched", "returns"), *drawn)


def export(world: Towers, out: Path, *, tables: Quantised = "float32") -> npt.NDArray[np.float32]:
    """Write the export; returns everybody's scores of every item, as the service weighs them, (U, N)."""
    prior = np.linspace(0, 2, len(world.vectors)).astype(np.float32)
    ids = [item.item_id for item in world.dataset.catalogue.items]
    n_users = len(world.dataset.users)
    neighbours = ease(choices(world.dataset.interactions, n_users=n_users, n_items=len(ids)), penalty=10.0)
    items = Listed(
        ids,
        world.items.genre,
        world.items.maker,
        world.vectors,
        prior,
        BLEND,
        neighbours,
        some_heads(world.vectors.shape[1]),
    )
    towers_say = tower_scores(world.answers, world.vectors, temperature=0.07)
    scores = blended(towers_say, neighbours, world.dataset.histories, BLEND)(np.arange(n_users)) + prior
    written = write(world.weights, world.encoders, items, out, temperature=0.07, tables=tables)
    assert all(path.is_file() for path in written)
    return np.asarray(scores, np.float32)


def asked(world: Towers) -> Answer:
    """Every user as columns, and as a browser knows them: ids, newest first, and a profile."""
    inputs = {name: column.tolist() for name, column in user_tower_inputs(world.users.columns()).items()}
    users, histories = [], world.dataset.histories
    for row, user in enumerate(world.dataset.users):
        mine = histories.of(row)
        events = zip(histories.item[mine], histories.weight[mine], histories.watched_s[mine], strict=True)
        history = [
            {"item_id": f"v{item}", "weight": float(weight), **({"watched_s": float(s)} if np.isfinite(s) else {})}
            for item, weight, s in events
        ][::-1]
        told = {"age_range": user.age_range, "region": user.region, "sessions_per_week": user.sessions_per_week}
        users.append(
            {"history": history, "profile": {name: value for name, value in told.items() if value is not None}}
        )
    return {"inputs": inputs, "users": users}


def in_node(folder: Path, question: Answer) -> Answer:
    done = subprocess.run(
        ["node", HERE / "run.mjs", folder], input=json.dumps(question), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: Answer = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("pooling", ["three_ways", "mean"])
def test_node_gives_the_towers_vectors_and_lists(pooling: Pooling, tfjs: Path, tmp_path: Path) -> None:
    world = towers(pooling=pooling)
    scores = export(world, tmp_path)
    answer = in_node(tmp_path, question := asked(world))
    assert answer["backend"] == "cpu"
    np.testing.assert_allclose(answer["batch"], world.answers, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(answer["vectors"], world.answers, rtol=0, atol=TOLERANCE)
    said = some_heads(16).predict(world.answers, np.tile(world.vectors[7], (len(world.answers), 1)))
    assert [list(each) for each in answer["foreseen"]] == [["watched", "returns"]] * len(said)
    np.testing.assert_allclose([list(each.values()) for each in answer["foreseen"]], said, rtol=0, atol=TOLERANCE)
    for row, (user, ranked) in enumerate(zip(question["users"], answer["lists"], strict=True)):
        seen = {event["item_id"] for event in user["history"]}
        best = [item for item in np.argsort(-scores[row], kind="stable") if f"v{item}" not in seen][:5]
        assert [each["item_id"] for each in ranked] == [f"v{item}" for item in best]
        np.testing.assert_allclose([each["score"] for each in ranked], scores[row, best], rtol=0, atol=1e-3)


@pytest.mark.parametrize(("tables", "least_cosine"), [("float16", 0.99999), ("uint8", 0.995)])
def test_smaller_tables_are_smaller_and_stay_near(
    tables: Quantised, least_cosine: float, tfjs: Path, tmp_path: Path
) -> None:
    world = towers()
    export(world, tmp_path / "whole")
    export(world, tmp_path / "small", tables=tables)
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).glob("*.bin")) for name in ("whole", "small")]
    assert sizes[1] < sizes[0]
    answer = in_node(tmp_path / "small", asked(world))
    assert (np.array(answer["vectors"]) * world.answers).sum(1).min() > least_cosine


def test_a_large_table_is_cut_into_shards_and_put_together_again(
    tfjs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = towers()
    monkeypatch.setattr("genba_recommend.export_tfjs.SHARD_BYTES", 1001)  # no multiple of a number's size
    export(world, tmp_path)
    assert len([*tmp_path.glob("*.bin")]) > 10
    np.testing.assert_allclose(in_node(tmp_path, asked(world))["vectors"], world.answers, rtol=0, atol=TOLERANCE)


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path, tfjs: Path) -> Iterator[tuple[str, Path]]:
    """A web server over a folder with TensorFlow.js and an empty page in it."""
    shutil.copy(tfjs, tmp_path / "tf.min.js")
    (tmp_path / "index.html").write_text('<!doctype html><title>towers</title><script src="tf.min.js"></script>')
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", tmp_path
        server.shutdown()
        thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)")
@pytest.mark.xdist_group("browser")
def test_a_chromium_page_opens_the_model_by_its_address_and_agrees(site: tuple[str, Path]) -> None:
    url, folder = site
    world = towers()
    export(world, folder / "towers")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{url}index.html")
        answer = page.evaluate(
            """async ({ inputs, users }) => {
                await tf.setBackend("cpu");
                const plain = await tf.loadLayersModel("towers/model.json");  // without any code of ours
                const named = (input, n) => tf.tensor2d(inputs[plain.inputNames[n]], undefined, input.dtype);
                const { UserTower } = await import("/towers/user_tower.mjs");
                const tower = await UserTower.load(tf, "/towers/");
                const vectors = users.map(({ history, profile }) => [...tower.vector(history, profile)]);
                return { batch: plain.predict(plain.inputs.map(named)).arraySync(), vectors, list: tower.rank(vectors[1], { k: 3 }) };
            }""",
            asked(world),
        )
        browser.close()
    assert errors == []
    np.testing.assert_allclose(answer["batch"], world.answers, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(answer["vectors"], world.answers, rtol=0, atol=TOLERANCE)
    assert len(answer["list"]) == 3


def test_parts_that_do_not_belong_together_are_refused() -> None:
    world = towers()
    with pytest.raises(ValueError, match="belong together"):
        Listed(["v1"], world.items.genre, world.items.maker, world.vectors)
