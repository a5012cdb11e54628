"""A version that was never shown is judged by lists that chance made under another; what it would have earned is planted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from tests.recommend.model_world import Trained, fill, runner_for
from tests.recommend.shop_world import Service

from genba_recommend import routes_lists
from genba_recommend.generator import Size
from genba_recommend.ranking import EXPLORE_FLOOR
from genba_recommend.tables import ExposureRow
from genba_shared.principal import Principal

SIZE = Size(items=90, users=240, days=10)
EVERYTHING = {"k": 200, "diversity": 0, "discover": "never"}
BY_CHANCE = {"k": 8, "explore": 0.5}
Scores = dict[str, dict[str, float]]  # by user and item


def scores_of(service: Service, users: list[str]) -> Scores:
    """What the version that serves makes of every item for each user."""
    made = {user: service.list(user, **EVERYTHING)["items"] for user in users}
    return {
        user: {it["item_id"]: it["score"] for it in items if it["source"] == "personal"} for user, items in made.items()
    }


def likes(row: ExposureRow, scores: Scores) -> dict[str, float]:
    """The planted chance by candidate: what the judged version ranks in the upper third is liked far more often."""
    of_user = scores[row.user_id]
    ranked = sorted(row.candidates or (), key=lambda item: -of_user[item])
    return {item: 0.75 if place < len(ranked) / 3 else 0.05 for place, item in enumerate(ranked)}


def logged(service: Service) -> list[ExposureRow]:
    service.follow()
    with service.recommend.database.read() as session:
        rows = list(session.scalars(select(ExposureRow).where(ExposureRow.user_id.like("u%"))))
        session.expunge_all()
    return [row for row in rows if row.candidates]


def truth(rows: list[ExposureRow], scores: Scores, policy: str) -> float:
    """What the judged version earns a place among the logged candidates, by its own chances and the planted ones."""
    earned = []
    for row in rows:
        left, planted = list(row.candidates or ()), likes(row, scores)
        for drawn in [item for item in row.items if item in left]:
            score = np.array([scores[row.user_id][item] for item in left])
            rates = np.array([planted[item] for item in left])
            odds = np.exp(score - score.max())
            chances = (1 - EXPLORE_FLOOR) * odds / odds.sum() + EXPLORE_FLOOR / len(left)
            earned.append(rates[score.argmax()] if policy == "best" else float(chances @ rates))
            left.remove(drawn)
    return float(np.mean(earned))


def test_the_likes_of_a_version_that_was_never_shown_are_estimated_from_chance_under_another(
    service: Service, principal: Callable[..., Principal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On both databases, with the same chance every time."""
    drawing = np.random.default_rng(1)
    monkeypatch.setattr(routes_lists, "_rng", lambda _ask: drawing)
    trained = Trained(service, fill(service, SIZE), runner_for(service), principal("engineer"))
    trained.train()
    trained.train(dim=8, max_epochs=1)
    users = [trained.world.user_id(n) for n in range(SIZE.users)]
    users = [user for user in users if service.list(user)["source"] == "personal"]
    scores = scores_of(service, users)
    service.recommend.registry.rollback(service.shop.model, by="test", reason="the first one shows")
    trained.take_up()
    makers = Counter(entry.item.maker for entry in service.shop.view.shelf.entries).most_common(3)
    for user in users:
        for maker, _ in makers:  # an item has one maker: no list shows what another showed
            service.list(user, maker=maker, **BY_CHANCE)
    rows = logged(service)
    assert {row.version for row in rows} == {1}
    assert len(rows) > 2 * len(users)
    rng = np.random.default_rng(0)
    liked = [
        {"event_id": f"like-{row.id}-{item}", "user_id": row.user_id, "item_id": item, "kind": "like"}
        for row in rows
        for item, chance in likes(row, scores).items()
        if item in row.items and rng.random() < chance
    ]
    service.events(*liked)
    shown = float(np.mean([chance for row in rows for item, chance in likes(row, scores).items() if item in row.items]))
    assert service.get("/models/2/offpolicy", params={"outcome": "like"}).json()["shown"]["value"] == pytest.approx(
        shown, abs=0.06
    )
    for policy in ("drawn", "best"):
        answer = service.get("/models/2/offpolicy", params={"outcome": "like", "policy": policy})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["lists"], found["users"]) == (len(rows), len(users))
        right = truth(rows, scores, policy)
        for name in ("ips", "snips", "doubly_robust"):
            error = (found[name]["high"] - found[name]["low"]) / (2 * 1.96)
            assert abs(found[name]["value"] - right) < 5 * error, (name, right, found)
        assert found["doubly_robust"]["value"] == pytest.approx(right, abs=0.12)
        error = (found["gain"]["high"] - found["gain"]["low"]) / (2 * 1.96)
        assert abs(found["gain"]["value"] - (right - shown)) < 5 * error, (right, shown, found)
    itself = service.get("/models/1/offpolicy", params={"outcome": "like"}).json()
    assert abs(itself["mean_weight"] - 1) < 0.05
    assert itself["effective_places"] > 0.9 * itself["places"]
    assert abs(itself["gain"]["value"]) < 0.02


def test_what_says_nothing_of_a_version_is_a_clear_problem(
    sqlite_service: Service, principal: Callable[..., Principal]
) -> None:
    service = sqlite_service
    trained = Trained(service, fill(service, replace(SIZE, users=150)), runner_for(service), principal("engineer"))
    trained.train()
    user = trained.world.user_id(0)

    def asked(version: int) -> tuple[int, Any]:
        answer = service.get(f"/models/{version}/offpolicy")
        return answer.status_code, answer.json()

    service.list(user, k=8)  # nothing left to chance
    status, problem = asked(1)
    assert (status, problem["type"], problem["lists"]) == (409, "urn:genba:problem:nothing-to-judge-by", 0)
    assert "explore" in problem["detail"]
    for _ in range(3):
        service.list(user, **BY_CHANCE)
    status, problem = asked(1)
    assert (status, problem["type"]) == (409, "urn:genba:problem:too-little-overlap")
    assert problem["effective"] < problem["needed"]
    for _ in range(20):
        service.list(user, **BY_CHANCE)
    status, problem = asked(1)  # many places, and one user: nothing says how far the figure may be off
    assert (status, problem["type"], problem["lists"]) == (409, "urn:genba:problem:nothing-to-judge-by", 23)
    assert "1 users" in problem["detail"]
    trained.train(max_epochs=1)
    status, problem = asked(2)
    assert (status, problem["older"]) == (409, 23)
    assert asked(7)[0] == 404
    assert service.get("/models/1/offpolicy", params={"policy": "random"}).status_code == 422
