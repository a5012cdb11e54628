"""Experiments over HTTP: sticky arms, a log of what was shown, results, an end."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select
from tests.recommend.shop_world import Service, event, item

from genba_recommend.tables import ExposureRow

ARMS = [{"name": "popular", "lists": "popular"}, {"name": "trending", "lists": "trending"}]


def start(service: Service, **body: Any) -> Any:
    answer = service.post("/experiments", {"name": "lists", "arms": ARMS, **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def filled(service: Service) -> None:
    """v0 is popular of old, v9 trends."""
    service.items(*(item(n) for n in range(10)))
    old = [event(n, f"a{n}", "v0", days_ago=25) for n in range(9)]
    service.events(*old, *(event(50 + n, f"b{n}", "v9") for n in range(3)))
    service.follow()


def test_each_user_gets_the_lists_of_their_arm_every_time_and_all_is_logged(service: Service) -> None:
    filled(service)
    experiment = start(service)
    seen = {}
    for n in range(40):
        made = service.list(f"u{n}", k=3)
        arm = made["experiment"]["arm"]
        assert made["experiment"]["experiment_id"] == experiment["id"]
        assert made["source"] == arm
        assert made["items"][0]["item_id"] == {"popular": "v0", "trending": "v9"}[arm]
        seen[f"u{n}"] = arm
    assert set(seen.values()) == {"popular", "trending"}
    assert all(service.list(user)["experiment"]["arm"] == arm for user, arm in seen.items())
    service.follow()
    with service.recommend.database.read() as session:
        rows = session.scalars(select(ExposureRow)).all()
        assert len(rows) == 80
        assert {row.user_id: row.arm for row in rows} == seen
        assert rows[0].items[0] in {"v0", "v9"}


def test_clicks_and_likes_on_what_was_shown_are_counted_for_the_arm(service: Service) -> None:
    filled(service)
    experiment = start(service)
    arms: dict[str, list[str]] = {"popular": [], "trending": []}
    for n in range(60):
        arms[service.list(f"u{n}", k=2)["experiment"]["arm"]].append(f"u{n}")
    shown = {user: service.list(user, k=2)["items"][0]["item_id"] for user in arms["trending"]}
    done = [event(1000 + n, user, shown[user], "click") for n, user in enumerate(shown)]
    done += [event(2000 + n, user, "v5", "like") for n, user in enumerate(arms["popular"])]  # not shown to them
    for each in done:
        del each["at"]  # now, after it was shown
    service.events(*done)
    found = service.get(f"/experiments/{experiment['id']}/results").json()
    by_arm = {arm["name"]: arm for arm in found["arms"]}
    assert by_arm["trending"]["users"] == len(arms["trending"])
    assert by_arm["popular"]["values"]["click_through_rate"] == 0
    assert by_arm["trending"]["values"]["click_through_rate"] == pytest.approx(0.5)
    against = found["against_control"]["trending"]
    assert against["like_rate"]["difference"] == 0
    assert found["sample_ratio_p"] > 0.001
    assert set(against) == {"click_through_rate", "like_rate", "session_seconds", "diversity"}


def test_an_experiment_ends_and_everybody_gets_the_same_again(service: Service) -> None:
    filled(service)
    experiment = start(service)
    again = service.post("/experiments", {"name": "lists", "arms": ARMS})
    assert again.status_code == 409
    stopped = service.post(f"/experiments/{experiment['id']}/stop")
    assert (stopped.status_code, stopped.json()["status"]) == (200, "stopped")
    assert service.list("u1")["experiment"] is None
    assert service.post(f"/experiments/{experiment['id']}/stop").status_code == 409
    listed = service.get("/experiments").json()["experiments"]
    assert [each["id"] for each in listed] == [experiment["id"]]
    assert service.get(f"/experiments/{experiment['id']}", tenant="other").status_code == 404


def test_an_arm_without_a_model_and_a_promotion_without_the_right_are_refused(sqlite_service: Service) -> None:
    service = sqlite_service
    filled(service)
    body = {"name": "x", "arms": [{"name": "a"}, {"name": "b", "lists": "popular"}]}
    refused = service.post("/experiments", body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "arms.0.version")
    missing = {"name": "x", "arms": [{"name": "a", "version": 7}, {"name": "b", "lists": "popular"}]}
    assert service.post("/experiments", missing).status_code == 404
    same = {"name": "x", "arms": [ARMS[0], ARMS[0]]}
    assert service.post("/experiments", same).status_code == 422
    experiment = start(service)
    path = f"/experiments/{experiment['id']}/promote"
    assert service.post(path, {"arm": "popular"}, "operator").status_code == 403
    assert service.post(path, {"arm": "popular"}).status_code == 422
