"""The recommender with a model: trained by a job, served at once, swapped whole, refreshed bit by bit, rolled back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import delete, select
from tests.e2e.world import until
from tests.recommend.model_world import SMALL, Trained, fill, runner_for, users_with_history
from tests.recommend.shop_world import Service, event, ids, item

from genba_recommend import data, versions
from genba_recommend.blending import Blend
from genba_recommend.catalogue import Wanted
from genba_recommend.dataset import User, split_by_time
from genba_recommend.evaluating import _World
from genba_recommend.features import no_history
from genba_recommend.lists import Ask, for_person
from genba_recommend.metrics import questions
from genba_recommend.neighbours import choices, item_knn
from genba_recommend.premieres import N_AGES, Premieres
from genba_recommend.prior import Prior
from genba_recommend.reranker import Reranker
from genba_recommend.serving_model import ServingModel, align
from genba_recommend.tables import EmbeddingModelVersion, EmbeddingRow, ExposureRow
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import Unavailable
from genba_shared.vectors import Vectors


def test_a_version_is_trained_promoted_served_and_rolled_back(
    service: Service, principal: Callable[..., Principal]
) -> None:
    """The whole life of a model, on both databases."""
    trained = Trained(service, fill(service, SMALL), runner_for(service), principal("engineer"))
    [user] = users_with_history(trained, 1)
    assert service.list(user)["passed_over"][0] == {"source": "personal", "why": "no_model"}
    job = trained.train()
    assert job.result["registered"]["outcome"] == "promoted"
    first = service.list(user)
    assert (first["source"], first["model_version"], first["index"]) == ("personal", 1, "exact")
    assert {each["source"] for each in first["items"]} == {"personal"}
    trained.train(max_epochs=4)
    second = service.list(user)
    assert second["model_version"] == 2
    service.recommend.registry.rollback(service.shop.model, by="test", reason="back")
    trained.take_up()
    assert ids(service.list(user)) == ids(first)
    with service.recommend.database.read() as session:
        rows = session.execute(select(EmbeddingModelVersion.version, EmbeddingModelVersion.active)).all()
    assert sorted(map(tuple, rows)) == [(1, True), (2, False)]
    assert trained.run("recommend.refresh").result["value"]["users"] > 0
    vector = service.post(f"/users/{user}/embedding").json()
    assert np.linalg.norm(vector["vector"]) == pytest.approx(1.0, abs=1e-4)


def test_too_few_likes_fail_the_job_and_say_how_many_are_needed(
    sqlite_service: Service, principal: Callable[..., Principal]
) -> None:
    sqlite_service.items(*(item(n) for n in range(20)))
    sqlite_service.events(*(event(n, f"u{n}", f"v{n}") for n in range(20)))
    trained = Trained(sqlite_service, None, runner_for(sqlite_service), principal("engineer"))  # type: ignore[arg-type]
    job = trained.run("recommend.two_tower")
    assert (job.status, job.error["needed"], job.error["found"]) == ("failed", 200, 20)
    assert "needs 200 likes" in job.error["detail"]
    assert trained.run("recommend.refresh").status == "failed"


def test_a_version_that_misses_its_gate_is_registered_and_does_not_serve(untrained: Trained) -> None:
    trained = untrained
    job = trained.train(gate_over_popularity=0.9)
    assert job.result["registered"]["outcome"] == "gate_failed"
    assert trained.service.get("/status").json()["model_version"] is None
    dry = trained.run("recommend.two_tower", dry_run=True)
    assert dry.result["value"]["dry_run"]
    assert len(trained.service.recommend.registry.versions(trained.service.shop.model)) == 1


def test_a_like_moves_the_users_vector_and_their_next_list(trained: Trained) -> None:
    service = trained.service
    service.items(item(9001, "unheard of"), item(9002))
    made = service.list("newcomer")
    assert made["source"] in {"trending", "popular"}  # by the half-life that was tuned for people without history
    assert {"source": "personal", "why": "no_history"} in made["passed_over"]
    liked = ids(service.list("newcomer"))[0]
    service.events({"event_id": "fresh", "user_id": "newcomer", "item_id": liked, "kind": "like"})
    after = service.list("newcomer")
    assert (after["source"], after["model_version"]) == ("personal", 1)
    assert liked not in ids(after)
    named = [reason for each in after["items"] for reason in each["reasons"] if reason["kind"] == "because_of"]
    assert named
    assert {reason["item_id"] for reason in named} == {liked}
    session = service.post("/sessions/items", {"items": [liked]}).json()
    assert session["source"] == "personal"


@pytest.mark.parametrize(
    ("kind", "said", "japanese"),
    [("like", "liked", "気に入った"), ("view", "watched", "見た"), ("click", "looked at", "チェックした")],
)
def test_a_reason_says_what_was_done_and_no_more(trained: Trained, kind: str, said: str, japanese: str) -> None:
    service = trained.service
    first = ids(service.list("newcomer"))[0]
    service.events({"event_id": "first", "user_id": "newcomer", "item_id": first, "kind": kind})
    listed = service.list("newcomer", diversity=0, discover="never")["items"]
    named = [why for each in listed for why in each["reasons"] if why["kind"] == "because_of"]
    assert named
    assert all(why["en"].startswith(f"Because you {said} “") and japanese in why["ja"] for why in named)
    explained = service.get(f"/users/newcomer/items/{listed[0]['item_id']}/explanation").json()["moved"]
    told = {each["en"].split(" “")[0] for each in explained if each["part"] == "history_item"}
    assert told <= {f"You {said}"}
    session = service.post("/sessions/items", {"items": [first]}).json()
    reasons = [why["en"] for each in session["items"] for why in each["reasons"] if why["kind"] == "because_of"]
    assert all(each.startswith("Because you looked at") for each in reasons)


def test_people_without_history_get_what_is_popular_under_the_half_life_tuned_for_them(trained: Trained) -> None:
    view = trained.service.shop.view
    aligned = view.models[1]
    assert aligned.model.prior.newcomer_half_life_days is not None
    assert aligned.newcomers is not None
    best = [view.shelf.ids[row] for row in np.argsort(-aligned.newcomers, kind="stable")[:20]]
    assert ids(trained.service.list("newcomer", k=20)) == best

    person, ask = trained.service.shop.person("newcomer"), Ask(Wanted(), k=5)
    few = np.full(len(view.shelf), -np.inf, np.float32)
    few[[7, 3]] = [1.0, 2.0]
    for days, named in ((1.0, "trending"), (200.0, "popular")):
        prior = replace(aligned.model.prior, newcomer_half_life_days=days)
        model = replace(aligned.model, loaded=replace(aligned.model.loaded, prior=prior))
        tuned = replace(view, models={1: replace(aligned, model=model, newcomers=few)}, _tops={})
        made = for_person(tuned, person, ask, np.random.default_rng(0))
        assert made.rows[:2] == [3, 7]
        assert [each.source for each in made.items] == [named, named, "trending", "trending", "trending"]
    old = replace(view, models={1: replace(aligned, newcomers=None)}, _tops={})
    trending = ids(trained.service.get("/trending").json())[:5]
    assert [each.item_id for each in for_person(old, person, ask, np.random.default_rng(0)).items] == trending


def test_an_item_that_training_never_saw_is_listed_at_once(trained: Trained) -> None:
    service = trained.service
    [user] = users_with_history(trained, 1)
    genre = trained.service.shop.view.shelf.entries[0].item.genre[0]
    service.items(item(7001, genre), item(7002, "never heard of"))
    everything = ids(service.list(user, k=200))
    assert {"v7001", "v7002"} <= set(everything)
    assert service.get("/items/v7001/similar").json()["index"] == "exact"


def test_a_premiere_is_ranked_by_what_is_foreseen_of_it_until_somebody_touches_it(trained: Trained) -> None:
    service, shop = trained.service, trained.service.shop
    service.items(item(7001, "saga"), item(7002, "never heard of"))
    model = shop.view.models[1].model
    parts = np.zeros((len(model.loaded), 2), np.float32)  # this world is too small to learn anything from
    learnt = Premieres((("genre", "saga"),), np.array([5.0, 0.0]), np.zeros(2), np.zeros(N_AGES), -2.0, parts=parts)
    shop._versions.shelf_changed()
    shop._versions.follow(shop.view.shelf, {1: replace(model, loaded=replace(model.loaded, premieres=learnt))})
    shop._look()

    def ahead() -> float:
        view = shop.view
        first, second = (view.models[1].bias[view.shelf.row_by_id[item_id]] for item_id in ("v7001", "v7002"))
        return float(first - second) / model.prior.weight

    assert ahead() == pytest.approx(5.0, abs=1e-3)
    service.events(event(9001, "somebody", "v7001"))
    service.follow()
    of_one = np.log(1.0 + model.prior.smoothing) - np.log(np.exp(-2.0) * model.prior.half_life_days / np.log(2.0))
    assert ahead() == pytest.approx(of_one, abs=0.2)


def test_exploration_writes_down_the_chance_of_every_place(trained: Trained) -> None:
    [user] = users_with_history(trained, 1)
    made = trained.service.list(user, k=10, explore=0.3)
    chances = [each["propensity"] for each in made["items"]]
    assert chances[:7] == [1.0] * 7
    assert all(0 < chance < 1 for chance in chances[7:])
    assert made["items"][-1]["reasons"][0]["kind"] == "explored"
    trained.service.follow()
    with trained.service.recommend.database.read() as session:
        [row] = session.scalars(select(ExposureRow)).all()
        assert row.propensities == pytest.approx(chances)
        assert (row.list_id, row.version) == (made["list_id"], 1)


def test_the_last_place_goes_to_what_is_seldom_shown_and_stays_when_looked_at_again(trained: Trained) -> None:
    service, shown = trained.service, []
    for user in users_with_history(trained, 30):
        plain, wide = service.list(user, k=10, discover="never"), service.list(user, k=10, discover="always")
        assert ids(wide)[:9] == ids(plain)[:9]
        assert wide["items"][9]["reasons"][0] == {
            "kind": "seldom", "en": "Something seldom shown", "ja": "あまり表示されない作品", "item_id": None,
        }  # fmt: skip
        assert ids(service.list(user, k=10, discover="always")) == ids(wide)
        shown.append(ids(wide)[9])
    assert len(set(shown)) > 20
    newcomer = shown[0]
    [user] = users_with_history(trained, 1)
    service.events({"event_id": "taken", "user_id": user, "item_id": newcomer, "kind": "like"})
    assert newcomer not in ids(service.list(user, k=10, discover="always"))
    assert all(
        reason["kind"] != "seldom"
        for asked in ({"k": 4, "discover": "always"}, {"k": 10, "discover": "always", "aim": "liked"})
        for each in service.list(user, **asked)["items"][: 4 if asked["k"] == 4 else 0]
        for reason in each["reasons"]
    )
    [sometimes] = [service.list(u, k=10) for u in users_with_history(trained, 1)]
    assert sometimes["items"][-1]["propensity"] == 1.0


def test_chance_and_discovery_share_a_list_without_touching_each_others_items(trained: Trained) -> None:
    service = trained.service
    for user in users_with_history(trained, 10):
        made = service.list(user, k=10, explore=0.3, discover="always")
        kinds = [each["reasons"][0]["kind"] for each in made["items"]]
        assert kinds[6:] == ["seldom", *["explored"] * 3]
        assert len(set(ids(made))) == 10
    service.follow()
    with service.recommend.database.read() as session:
        for row in session.scalars(select(ExposureRow)):
            among = frozenset(row.candidates or ())
            assert row.items[6] not in among
            assert among >= set(row.items[7:])


def test_diversity_is_a_dial(trained: Trained) -> None:
    [user] = users_with_history(trained, 1)
    shop = trained.service.shop
    person = shop.person(user)
    distances = []
    for diversity in (0.0, 1.0):
        ask = Ask(Wanted(), 10, diversity=diversity, drop_seen=False)
        distances.append(for_person(shop.view, person, ask, np.random.default_rng(0)).distance)
    assert distances[0] < distances[1]  # type: ignore[operator]


# --- refresh --------------------------------------------------------------------------------------------------------


def test_nobody_sees_a_failure_or_a_mixed_list_while_a_version_is_trained_refreshed_and_swapped(
    trained: Trained,
) -> None:
    service, users = trained.service, users_with_history(trained, 5)
    over = threading.Event()
    answers: list[tuple[str, Any]] = []

    def ask() -> Iterator[Any]:
        while not over.is_set():
            for user in users:
                yield user, service.get(f"/users/{user}/items", params={"k": 10, "diversity": 0})
            time.sleep(0.005)

    def ask_on() -> None:
        answers.extend(ask())

    threads = [threading.Thread(target=ask_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    service.items(*(item(6000 + n) for n in range(5)))
    trained.train(max_epochs=3)
    service.items(*(item(6100 + n) for n in range(5)))
    trained.run("recommend.refresh")
    trained.take_up()
    time.sleep(0.2)
    over.set()
    for thread in threads:
        thread.join()
    assert {answer.status_code for _, answer in answers} == {200}
    versions = {number: service.shop.load_version(number) for number in (1, 2)}
    seen = set()
    for user, answer in answers:
        document = answer.json()
        seen.add(document["model_version"])
        _check_scores(service, user, document, versions[document["model_version"]])
    assert seen == {1, 2}


def _check_scores(service: Service, user: str, document: Any, model: ServingModel) -> None:
    """Every score is the one that the tower and the vectors of the version named give, so none is of another version."""
    shelf = service.shop.view.shelf
    aligned = align(model, shelf, {}, generation=0)
    taste = aligned.taste(service.shop.person(user))
    lift = np.zeros(len(shelf), np.float32)
    lift[taste.lift.rows] = taste.lift.by
    known = [each for each in document["items"] if each["item_id"] in model.loaded.row_by_id]
    rows = np.array([shelf.row_by_id[each["item_id"]] for each in known])
    bias = service.shop._counting.bias(model.prior, time.time() / 86_400, len(shelf), aligned.foreseen)
    expected = aligned.vectors[rows] @ taste.query + bias[rows] + lift[rows]
    expected = expected + aligned.gains(taste, rows, now_s=time.time())
    assert [each["score"] for each in known] == pytest.approx(expected.tolist(), abs=2e-2)


def test_a_bundle_that_does_not_load_leaves_the_old_one_serving(trained: Trained) -> None:
    service, [user] = trained.service, users_with_history(trained, 1)
    trained.train(promote="never")
    registry = service.recommend.registry
    key = registry.get(service.shop.model, 2).files["vectors.npy"]
    registry._bytes(service.shop.model).delete(key)
    registry.promote(service.shop.model, 2, by="test", reason="broken")
    trained.take_up()
    assert service.list(user)["model_version"] == 1
    ready = service.client.get("/ready")
    assert ready.status_code == 200
    assert "version 2" in ready.json()["degraded"]["model"]
    with service.recommend.database.transaction() as session:
        session.execute(delete(EmbeddingRow))  # vectors of the database are a copy: lists do without
    trained.take_up()
    assert service.list(user)["source"] == "personal"


def test_an_evaluation_keeps_what_each_feature_is_worth(trained: Trained) -> None:
    assert trained.service.get("/models/1/importance").status_code == 404
    job = trained.run("recommend.evaluate", users=40, repeats=1, newest=0.3)
    assert job.status == "succeeded", job.error
    found = trained.service.get("/models/1/importance").json()
    assert {"user history", "item id", "item genre"} <= {each["feature"] for each in found["features"]}
    assert found["features"] == sorted(found["features"], key=lambda each: -each["importance"])
    plot = trained.service.get("/models/1/importance.svg")
    assert plot.headers["content-type"].startswith("image/svg+xml")
    assert "user history" in plot.text


def test_a_history_is_worth_what_everything_that_reads_it_loses_without(trained: Trained) -> None:
    service = trained.service
    loaded = service.shop.view.models[1].model.loaded
    with service.recommend.database.read() as session:
        split = split_by_time(data.read(session, "default").dataset, newest=0.3)
    seen = choices(split.train.interactions, n_users=len(split.train.users), n_items=len(loaded))
    by_neighbours = replace(
        loaded, neighbours=item_knn(seen), reranker=Reranker.none(len(loaded)), prior=Prior(weight=0.0),
        blend=Blend(towers=0.0, neighbours=1.0),
    )  # fmt: skip
    world = _World(by_neighbours, split, questions(split))
    shuffled = world.quality_by_others_histories(np.random.default_rng(0))
    assert shuffled.ndcg_at_10.mean() < 0.7 * world.quality().ndcg_at_10.mean()


def test_what_lasts_changes_the_places_after_the_first_and_none_that_chance_draws(trained: Trained) -> None:
    shop, [user] = trained.service.shop, users_with_history(trained, 1)
    aligned, n = shop.view.models[1], len(shop.view.shelf)
    second = replace(Reranker.none(n), weights=np.array([1, 0, 0, 0], np.float32))  # there, and silent

    def rows(generation: int, lasting: npt.NDArray[np.float32] | None, **ask: Any) -> tuple[list[int], list[float]]:
        model = replace(aligned, reranker=second, lasting=lasting, generation=generation)
        view = replace(shop.view, models={1: model}, _choices={}, _tops={})
        made = for_person(view, shop.person(user), Ask(Wanted(), k=30, **ask), np.random.default_rng(0))
        return made.rows, [each.score for each in made.items]

    plain, _ = rows(-1, None)
    raised = np.zeros(n, np.float32)
    raised[plain[25]], raised[plain[2]] = 50.0, 1.0
    found, scores = rows(-2, raised)
    assert found == [*plain[:10], plain[25], *plain[10:25], *plain[26:]]
    assert scores == sorted(scores, reverse=True)
    assert rows(-3, raised, explore=0.2) == rows(-4, None, explore=0.2)


def test_a_score_is_explained_by_what_was_liked_and_who_asks(trained: Trained) -> None:
    service, [user] = trained.service, users_with_history(trained, 1)
    first = service.list(user, diversity=0)["items"][0]
    found = service.get(f"/users/{user}/items/{first['item_id']}/explanation").json()
    assert found["score"] == pytest.approx(first["score"], abs=1e-2)
    liked = [each for each in found["moved"] if each["part"] == "history_item"]
    assert liked
    assert liked[0]["ja"].startswith("「")
    assert service.get(f"/users/{user}/items/nothing/explanation").status_code == 404


def test_an_index_that_could_not_be_built_is_built_once_the_store_is_back(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "AGAIN_S", 0.01)
    shop = trained.service.shop
    asked: list[int] = []

    def store() -> Vectors:
        asked.append(len(asked))
        if len(asked) == 1:
            raise Unavailable("The vector store is away.")
        return trained.service.recommend.vectors()

    under_way = versions._Build(shop.tenant, shop.load_version(1), shop.settings, store)
    until(lambda: under_way.is_done)
    under_way.stop()
    assert len(asked) == 2


def test_what_somebody_liked_above_the_clearance_of_who_asks_is_not_named(trained: Trained) -> None:
    service, people = trained.service, users_with_history(trained, 5)

    def named(user: str, **who: Any) -> set[str]:
        shown = service.get(f"/users/{user}/items", params={"diversity": 0, "seen": "kept"}, **who).json()["items"]
        explained = service.get(f"/users/{user}/items/{shown[0]['item_id']}/explanation", **who).json()["moved"]
        reasons = [why for each in shown for why in each["reasons"] if why["kind"] == "because_of"]
        return {each["item_id"] for each in [*reasons, *explained] if each["item_id"]}

    view = service.shop.view
    liked = {user: {view.shelf.ids[row] for row, _ in service.shop.person(user).history} for user in people}
    hidden = set().union(*(sorted(each)[::2] for each in liked.values()))
    entries = [entry for entry in view.shelf.entries if entry.item.item_id in hidden]
    service.shop.put_items([replace(entry, clearance=int(Clearance.SECRET)) for entry in entries])
    assert any(named(user, clearance=Clearance.SECRET) & hidden for user in people)
    assert not any(named(user) & hidden for user in people)
    assert any(named(user) for user in people)


def test_the_champion_learns_further_at_two_sites_of_which_no_event_leaves(trained: Trained) -> None:
    job = trained.run("recommend.federated", sites=2, rounds=2, share=1.0, steps=3, processes=True)
    assert job.status == "succeeded", job.error
    assert job.result["value"] == {"from_version": 1, "sites": 2, "rounds": 2, "engine": "genba"}
    service = trained.service
    one, two = (service.shop.load_version(number).loaded for number in (1, 2))
    np.testing.assert_array_equal(one.vectors, two.vectors)
    assert two.metrics["received_bytes"] > 0
    assert not two.heads.tasks
    registry = service.recommend.registry
    registry.promote(service.shop.model, 2, by="test", reason="learnt at sites", gates="overridden")
    trained.take_up()
    [user] = users_with_history(trained, 1)
    made = service.list(user)
    assert (made["source"], made["model_version"]) == ("personal", 2)
    old, new = (m.embed_users([User(user)], no_history(1, length=20)) for m in (one, two))
    assert np.abs(old - new).max() > 1e-6


def test_two_versions_are_tried_against_each_other_and_the_better_is_promoted(trained: Trained) -> None:
    trained.train(promote="never", max_epochs=4)
    service = trained.service
    arms = [{"name": "one", "version": 1}, {"name": "two", "version": 2}]
    experiment = service.post("/experiments", {"name": "one or two", "arms": arms}).json()
    found = {user: service.list(user) for user in users_with_history(trained, 40)}  # the arms draw by chance
    assert {(made["experiment"]["arm"], made["model_version"]) for made in found.values()} == {("one", 1), ("two", 2)}
    results = service.get(f"/experiments/{experiment['id']}/results").json()
    assert all(arm["values"]["diversity"] > 0 for arm in results["arms"])
    promoted = service.post(f"/experiments/{experiment['id']}/promote", {"arm": "two"})
    assert (promoted.status_code, promoted.json()["model_version"]) == (200, 2)
    assert {service.list(user)["model_version"] for user in found} == {2}
