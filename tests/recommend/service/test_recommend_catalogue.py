"""The catalogue, users and events over HTTP: bulk, idempotent, a bad row alone, nothing lost."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient
from tests.recommend.shop_world import Headers, Service, event, ids, item

from genba_recommend import store
from genba_recommend.app import create_app
from genba_recommend.dataset import Kind
from genba_recommend.evidence import day_of
from genba_recommend.settings import Settings
from genba_recommend.tables import EventRow, ExposureRow
from genba_shared.principal import Clearance


def stored_events(service: Service) -> int:
    with service.recommend.database.read() as session:
        return session.scalar(select(func.count()).select_from(EventRow)) or 0


def test_a_malformed_row_fails_alone_with_its_index(service: Service) -> None:
    rows = [item(1), {**item(2), "price": -1}, "no object", item(3), {**item(4), "gnre": ["drama"]}]
    answer = service.put("/items", {"items": rows})
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == 2
    assert [(each["index"], each["errors"][0]["field"]) for each in answer.json()["rejected"]] == [
        (1, "price"), (2, "row"), (4, "gnre"),
    ]  # fmt: skip
    assert sorted(ids(service.get("/popular").json())) == ["v1", "v3"]


def test_a_request_of_which_no_row_can_be_taken_is_a_problem_that_names_them(service: Service) -> None:
    answer = service.post("/events", {"events": [{"event_id": "e1"}, {**event(2, "u1", "v1"), "kind": "lick"}]})
    assert answer.status_code == 422
    named = {error["field"] for error in answer.json()["errors"]}
    assert {"events.0.user_id", "events.0.item_id", "events.0.kind", "events.1.kind"} <= named


def test_an_event_that_is_sent_twice_counts_once(service: Service) -> None:
    service.items(item(1), item(2))
    first = service.events(event(1, "u1", "v1"), event(2, "u1", "v2"), event(1, "u1", "v1"))
    assert (first["accepted"], first["duplicates"]) == (2, 1)
    again = service.events(event(1, "u1", "v1"), event(3, "u2", "v1"))
    assert (again["accepted"], again["duplicates"]) == (1, 1)
    assert stored_events(service) == 3


def test_an_event_of_an_unknown_item_is_kept_and_counts_as_soon_as_the_item_comes(service: Service) -> None:
    service.items(item(1))
    said = service.events(event(1, "u1", "v9"), event(2, "u2", "v9"), event(3, "u3", "v1"))
    assert (said["accepted"], said["unknown_item_events"], said["unknown_items"]) == (3, 2, ["v9"])
    service.follow()
    service.items(item(9))
    assert ids(service.get("/trending").json())[0] == "v9"
    assert "v9" not in ids(service.list("u1"))  # they liked it before we knew it


def test_what_was_disliked_before_the_catalogue_had_it_is_not_offered_when_it_comes(service: Service) -> None:
    service.items(item(1))
    service.list("u1")  # in memory from here on
    service.events(event(1, "u1", "v9", "dislike"))
    service.follow()
    service.items(item(9), item(10))
    assert set(ids(service.list("u1"))) == {"v1", "v10"}
    assert set(ids(service.list("u2"))) == {"v1", "v9", "v10"}


def test_an_event_of_tomorrow_is_refused_and_the_others_are_taken(service: Service) -> None:
    service.items(item(1))
    said = service.events(event(1, "u1", "v1", days_ago=-1), event(2, "u1", "v1"))
    assert (said["accepted"], said["rejected"][0]["index"], said["rejected"][0]["errors"][0]["field"]) == (1, 0, "at")


def test_a_moment_beyond_the_calendar_is_refused_by_its_field(service: Service) -> None:
    service.items(item(1))
    beyond = {**event(1, "u1", "v1"), "at": "0001-01-01T00:00:00+14:00"}
    said = service.events(beyond, event(2, "u1", "v1"))
    assert (said["accepted"], said["rejected"][0]["errors"][0]["field"]) == (1, "at")


def test_an_item_that_is_replaced_or_taken_off_changes_every_list_at_once(service: Service) -> None:
    service.items(*(item(n) for n in range(1, 5)))
    assert set(ids(service.list("u1", genre="comedy"))) == set()
    service.items(item(2, genre="comedy"), {**item(3), "active": False})
    assert ids(service.list("u1", genre="comedy")) == ["v2"]
    assert set(ids(service.list("u1"))) == {"v1", "v2", "v4"}


def test_too_many_rows_are_refused_and_too_many_writers_told_to_wait(service: Service) -> None:
    settings = service.recommend.settings.model_copy(update={"max_rows": 2})
    service.recommend.settings = settings
    answer = service.put("/items", {"items": [item(n) for n in range(3)]})
    assert (answer.status_code, answer.json()["max_rows"]) == (413, 2)
    busy = service.recommend._ingesting
    taken = [busy.acquire(blocking=False) for _ in range(settings.ingest_at_once)]
    assert all(taken)
    refused = service.put("/items", {"items": [item(1)]})
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    busy.release(len(taken))
    assert service.put("/items", {"items": [item(1)]}).status_code == 200


def test_what_several_send_at_once_is_all_there(service: Service) -> None:
    service.items(*(item(n) for n in range(8)))

    def send(part: int) -> None:
        service.events(*(event(100 * part + n, f"u{part}", f"v{n % 8}") for n in range(50)))

    threads = [threading.Thread(target=send, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored_events(service) == 200


def test_a_user_is_erased_with_everything(service: Service) -> None:
    service.items(item(1), item(2))
    service.put("/users", {"users": [{"user_id": "u1", "age_range": "25-34"}]})
    service.events(event(1, "u1", "v1"), event(2, "u2", "v1"))
    assert "v1" not in ids(service.list("u1", explore=0.5))
    erased = service.delete("/users/u1").json()
    assert (erased["events"], erased["exposures"]) == (1, 1)  # also the list that still waited to be written
    assert "v1" in ids(service.list("u1"))
    assert stored_events(service) == 1


def test_another_process_knows_a_user_as_they_are_now_and_nobody_who_was_erased(
    service: Service, settings: Settings, signed: Headers
) -> None:
    app = create_app(settings)
    with TestClient(app) as client:
        other = Service(client, app.state.recommend, signed)
        service.items(item(1), item(2))
        service.events(event(1, "u1", "v1"))
        other.follow()
        assert ids(other.list("u1", explore=0.5)) == ["v2"]
        service.put("/users", {"users": [{"user_id": "u1", "region": "Kanto"}, {"user_id": "u2"}]})
        other.follow()
        assert other.shop.person("u1").user.region == "Kanto"
        service.delete("/users/u1")
        assert ids(other.list("u1", explore=0.5)) == ["v2"]  # it has not heard of it yet
        other.follow()
        assert set(ids(other.list("u1"))) == {"v1", "v2"}
    with service.recommend.database.read() as session:
        assert session.scalar(select(func.count()).select_from(ExposureRow)) == 0


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_an_event_that_appears_after_later_ones_counts_though_all_was_counted_in_between(service: Service) -> None:
    """On Postgres a slow transaction has lower numbers than those that begin and end meanwhile."""
    service.items(item(1), item(2))
    likes = [store.Event(f"s{n}", f"u{n}", "v2", Kind.LIKE, store.now(), day_of(store.now()), 1.0) for n in range(1, 4)]
    with service.recommend.database.transaction() as slow:
        store.add_events(slow, "default", likes)
        service.events(event(1, "u5", "v1"), event(2, "u5", "v9"))
        service.follow()
        service.items(item(9))  # it comes after an event of it, and all is counted anew
        assert "v2" in ids(service.list("u1"))
    service.follow()
    assert ids(service.get("/trending").json())[0] == "v2"
    assert "v2" not in ids(service.list("u1"))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/items", {"items": [item(1)]}),
        ("PUT", "/users", {"users": [{"user_id": "u1"}]}),
        ("POST", "/events", {"events": [event(1, "u1", "v1")]}),
        ("POST", "/users/u1/embedding", None),
        ("DELETE", "/users/u1", None),
    ],
)
def test_a_viewer_reads_and_does_not_write(sqlite_service: Service, method: str, path: str, body: Any) -> None:
    client, headers = sqlite_service.client, sqlite_service.headers("viewer")
    assert client.request(method, f"/v1/recommend{path}", json=body, headers=headers).status_code == 403
    assert sqlite_service.get("/users/u1/items", "viewer").status_code == 200


def test_an_item_above_somebodys_clearance_is_on_none_of_their_lists(sqlite_service: Service) -> None:
    service = sqlite_service
    service.items(item(1), {**item(2), "clearance": "confidential"}, clearance=Clearance.CONFIDENTIAL)
    refused = service.put("/items", {"items": [{**item(3), "clearance": "secret"}]})
    assert refused.status_code == 422
    over = service.put("/items", {"items": [{**item(2), "title": "mine"}, item(4)]}).json()
    assert (over["accepted"], over["rejected"][0]["errors"][0]["field"]) == (1, "item_id")
    for path in ("/popular", "/users/u1/items", "/items/v1/similar"):
        assert "v2" not in ids(service.get(path).json()), path
    assert service.get("/items/v2/similar").status_code == 404
    high = service.get("/popular", clearance=Clearance.SECRET)
    assert {each["item_id"]: each["title"] for each in high.json()["items"]}["v2"] == item(2)["title"]
    low = service.get("/popular", params={"clearance": "internal"}, clearance=Clearance.SECRET)
    assert set(ids(low.json())) == {"v1", "v4"}


def test_tenants_do_not_see_each_other(sqlite_service: Service) -> None:
    service = sqlite_service
    service.items(item(1))
    service.items(item(1), item(2), tenant="other")
    service.events(event(1, "u1", "v1"))
    assert ids(service.get("/popular").json()) == ["v1"]
    assert "v1" in ids(service.get("/users/u1/items", tenant="other").json())
    assert ids(service.get("/users/u1/items").json()) == []
