"""Lists without a model: the chain from segment to popular, filters, and a like that counts at once."""

from __future__ import annotations

import time
import unicodedata
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy.orm import Session
from tests.recommend.shop_world import Service, event, ids, item

from genba_recommend import store
from genba_recommend.dataset import Item, Kind
from genba_recommend.evidence import DAY_S
from genba_recommend.prior import Prior
from genba_recommend.schemas import ListOut, ListQuery
from genba_recommend.shop import Shop


def test_the_list_says_which_source_made_it_and_why_the_better_ones_did_not(service: Service) -> None:
    assert service.list("u1")["passed_over"][-1] == {"source": "popular", "why": "no_items"}
    service.items(*(item(n) for n in range(6)))
    made = service.list("u1")
    assert made["source"] == "popular"
    assert ids(made) == [f"v{n}" for n in range(6)]  # nothing is known yet: the newest first
    assert made["passed_over"] == [
        {"source": "personal", "why": "no_model"},
        {"source": "segment", "why": "no_profile"},
        {"source": "trending", "why": "nothing_allowed"},
    ]
    service.events(*(event(n, f"w{n}", "v5") for n in range(3)))
    service.follow()
    made = service.list("u1")
    assert (made["source"], ids(made)[0]) == ("trending", "v5")
    assert made["items"][0]["reasons"][0] == {
        "kind": "trending",
        "en": "Trending now",
        "ja": "いま話題",
        "item_id": None,
    }
    assert made["items"][1]["source"] == "popular"


def test_what_was_popular_for_months_is_popular_and_what_is_new_trends(service: Service) -> None:
    service.items(*(item(n) for n in range(4)))
    old = [event(n, f"a{n}", "v1", days_ago=20) for n in range(10)]
    new = [event(100 + n, f"b{n}", "v2", days_ago=0.1) for n in range(4)]
    service.events(*old, *new)
    service.follow()
    assert ids(service.get("/popular").json())[:2] == ["v1", "v2"]
    assert ids(service.get("/trending").json())[0] == "v2"


def test_a_trend_ends_though_nothing_is_written_any_more(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.items(item(0), item(1))
    service.events(event(1, "u1", "v1", "click"))
    service.follow()
    assert service.get("/trending").json()["source"] == "trending"
    later_s = time.time() + 6 * DAY_S
    monkeypatch.setattr("genba_recommend.shop.time", SimpleNamespace(time=lambda: later_s, monotonic=time.monotonic))
    service.follow()
    assert service.get("/trending").json()["source"] == "popular"


def test_what_one_user_says_many_times_in_a_day_counts_once(service: Service) -> None:
    """Players tell every half a minute how far somebody is, and one who likes a thing forty times is no crowd."""
    service.items(*(item(n) for n in range(3)))
    service.put("/users", {"users": [{"user_id": "bot", "region": "Kanto"}, {"user_id": "u9", "region": "Kanto"}]})
    service.events(*(event(n, "bot", "v1", "view", watched_s=30.0 * n) for n in range(1, 21)))
    service.follow()
    service.events(*(event(n, "bot", "v1") for n in range(21, 41)))
    service.events(event(41, "u1", "v2"), event(42, "u2", "v2"))
    service.follow()
    assert ids(service.get("/trending").json())[:2] == ["v2", "v1"]
    counting, shelf = service.shop._counting, service.shop.view.shelf
    followed = counting.popular(time.time() / DAY_S, shelf)
    assert followed[2] / followed[1] == pytest.approx(2.0, rel=1e-3)
    with service.recommend.database.read() as session:
        counting.count_all(session, shelf)
    assert counting.popular(time.time() / DAY_S, shelf) == pytest.approx(followed, rel=1e-3)
    assert counting._popularity.segment_events[("", "Kanto")] == 1


def test_users_alike_make_a_segment(service: Service) -> None:
    service.items(*(item(n) for n in range(6)))
    young = [{"user_id": f"y{n}", "age_range": "18-24", "region": "Kanto"} for n in range(60)]
    service.put("/users", {"users": [*young, {"user_id": "new", "age_range": "18-24", "region": "Kanto"}]})
    service.events(*(event(n, f"y{n}", "v3") for n in range(60)), *(event(900 + n, f"z{n}", "v1") for n in range(80)))
    service.follow()
    made = service.list("new")
    assert (made["source"], ids(made)[0]) == ("segment", "v3")
    assert service.list("stranger")["source"] == "trending"
    service.shop._counting = type(service.shop._counting)("default", service.recommend.settings)
    with service.recommend.database.read() as session:  # as after a restart
        service.shop._counting.count_all(session, service.shop._shelf)
    service.shop._look()
    assert ids(service.list("new"))[0] == "v3"


def test_a_like_changes_the_next_list_without_a_batch(service: Service) -> None:
    service.items(*(item(n) for n in range(4)))
    assert "v2" in ids(service.list("u1"))
    service.events(event(1, "u1", "v2"))
    assert "v2" not in ids(service.list("u1"))
    assert "v2" in ids(service.list("u1", seen="kept"))
    service.events(event(2, "u1", "v3", "dislike"), event(3, "u1", "v0", "impression"))
    assert set(ids(service.list("u1"))) == {"v0", "v1"}


def test_what_another_process_wrote_is_taken_up(service: Service) -> None:
    service.items(*(item(n) for n in range(3)))
    service.list("u1")

    def write(session: Session) -> None:
        seen = store.Event("x1", "u1", "v1", Kind.LIKE, store.now(), 20_000, 1.0)
        store.add_events(session, "default", [seen])
        entries, _ = store.entries(session, "default")
        store.put_items(session, "default", [type(entries[0])(Item("v7", title="from elsewhere"))])

    with service.recommend.database.transaction() as session:
        write(session)
    service.follow()
    assert set(ids(service.list("u1"))) == {"v0", "v2", "v7"}


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"genre": "comedy"}, {"v4", "v5"}),
        ({"genre": ["comedy", "noir"]}, {"v4", "v5", "v6"}),
        ({"maker": "maker 0"}, {"v0", "v3", "v6"}),
        ({"tags": ["tag 1", "tag 2"]}, {"v1", "v2", "v6", "v7"}),
        ({"price_max": 150}, {"v0", "v1", "v7"}),
        ({"price_min": 500, "price_max": 600}, {"v5", "v6"}),
        ({"duration_min_s": 1000}, {"v7"}),
        ({"genre": "comedy", "price_max": 400}, {"v4"}),
        ({"region": "Kansai", "genre": "drama"}, {"v0", "v1", "v2", "v7"}),
        ({"exclude": ["v0", "v1"], "genre": "drama"}, {"v2", "v3", "v7"}),
        ({"genre": "nothing has it"}, set()),
    ],
)
def test_filters_keep_to_what_was_asked_for(
    sqlite_service: Service, filters: dict[str, Any], expected: set[str]
) -> None:
    service = sqlite_service
    service.items(
        *(item(n) for n in range(3)), {**item(3), "regions": ["Kanto"]},
        item(4, "comedy"), item(5, "comedy"), item(6, "noir"), {**item(7), "duration_s": 1200},
    )  # fmt: skip
    assert set(ids(service.list("u1", **filters))) == expected


def test_a_word_is_the_same_however_a_keyboard_composes_it(sqlite_service: Service) -> None:
    apart, whole = (unicodedata.normalize(form, "ドラマ・ガガガ") for form in ("NFD", "NFC"))
    assert apart != whole
    sqlite_service.items(item(1, apart), item(2, whole), item(3, "drama"))
    for asked in (apart, whole):
        assert set(ids(sqlite_service.list("u1", genre=asked))) == {"v1", "v2"}


@pytest.mark.parametrize(
    "filters", [{"gnre": "x"}, {"k": 0}, {"k": 201}, {"diversity": 2}, {"price_min": "nan"}, {"seen": "x"}]
)
def test_a_filter_that_cannot_be_meant_is_refused(sqlite_service: Service, filters: dict[str, Any]) -> None:
    assert sqlite_service.get("/users/u1/items", params=filters).status_code == 422


def test_items_like_one_share_its_words_while_there_is_no_model(sqlite_service: Service) -> None:
    service = sqlite_service
    service.items(item(0, "noir"), item(1, "noir"), item(2, "drama"), item(6, "noir"))
    made = service.get("/items/v0/similar").json()
    assert (made["source"], ids(made)[:2]) == ("similar", ["v6", "v1"])  # v6 is also of the same maker
    assert made["items"][0]["reasons"][0]["ja"] == "「Video 0」に似ています"
    assert service.get("/items/nothing/similar").status_code == 404


def test_an_anonymous_session_is_served_and_not_kept(sqlite_service: Service) -> None:
    service = sqlite_service
    service.items(*(item(n) for n in range(4)))
    answer = service.post("/sessions/items", {"items": ["v1", "v3", "unknown"]})
    assert answer.status_code == 200
    assert set(ids(answer.json())) == {"v0", "v2"}


def test_a_vector_is_refused_while_nothing_serves(sqlite_service: Service) -> None:
    answer = sqlite_service.post("/users/u1/embedding")
    assert answer.status_code == 409
    assert "recommend.two_tower" in answer.json()["detail"]


def test_the_document_tells_every_parameter_of_a_list_and_an_error_names_the_one_that_is_wrong(
    sqlite_service: Service,
) -> None:
    document = sqlite_service.client.get("/openapi.json").json()
    told = document["paths"]["/v1/recommend/users/{user_id}/items"]["get"]["parameters"]
    by_name = {each["name"]: each for each in told}
    assert {"user_id", *ListQuery.model_fields} == set(by_name)
    assert by_name["genre"]["schema"]["type"] == "array"
    assert by_name["aim"]["schema"]["enum"] == ["fit", "watched", "liked", "returns"]
    assert by_name["k"]["schema"]["maximum"] == 200
    assert "$ref" not in str(told)
    for asked, where in (
        ({"k": 0}, "k"),
        ({"kk": 3}, "kk"),
        ({"price_min": "dear"}, "price_min"),
        ({"aim": "x"}, "aim"),
    ):
        for _ in range(2):  # what is wrong is not remembered as right
            answer = sqlite_service.get("/users/u1/items", params=asked)
            assert answer.status_code == 422
            assert where in answer.text
    long = {
        "genre": [f"g{n}" for n in range(50)],
        "exclude": [f"v{n}" for n in range(100)],
    }  # too long to be remembered
    assert sqlite_service.get("/users/u1/items", params=long).status_code == 200


def test_a_half_life_that_comes_later_counts_what_arrived_a_moment_ago(service: Service) -> None:
    """On Postgres the newest events are looked at twice, because places may appear late; a new prior must not miss them."""
    service.items(item(0), item(1))
    service.events(*(event(n, f"u{n}", "v0") for n in range(5)))
    service.follow()
    counting, shelf = service.shop._counting, service.shop.view.shelf
    with service.recommend.database.read() as session:
        for half_life_days in (3.0, 3.0, 9.0):
            counting.prior(session, shelf, half_life_days)
    service.events(event(9, "u9", "v0"))
    service.follow()
    for half_life_days in (3.0, 9.0):
        bias = counting.bias(Prior(half_life_days, weight=1.0, smoothing=1.0), time.time() / DAY_S, 2)
        assert bias[0] - bias[1] == pytest.approx(np.log(7), abs=0.25)  # six likes and one of smoothing, a little faded
    prior = Prior(3.0, weight=1.0, smoothing=1.0, lasting=0.5)
    assert counting.lasting(prior, time.time() / DAY_S, 2) is None
    with service.recommend.database.read() as session:
        counting.prior(session, shelf, prior.lasting_half_life_days)
    lasting = counting.lasting(prior, time.time() / DAY_S, 2)
    assert lasting == pytest.approx([np.log(1 + 0.5 * 6 / 7), 0.0], abs=0.1)
    assert counting.lasting(Prior(3.0), time.time() / DAY_S, 2) is None


def test_what_one_process_showed_another_and_one_that_comes_later_know(service: Service) -> None:
    service.items(*(item(n) for n in range(4)))
    mine, here = service.shop, service.recommend
    other = Shop("default", here.database, here.registry, here.settings, here.vectors)
    other.open()
    for each, rows in ((mine, [0, 1]), (mine, [1]), (other, [1]), (other, [1])):
        each.discovery.give(("ann", 0), None, np.array(rows))
    mine.close()  # writes what it has shown
    other.close()
    later = Shop("default", here.database, here.registry, here.settings, here.vectors)
    later.open()
    now_s = later.discovery.clock()
    for shop in (other, later):
        penalty = shop.discovery.seldom.penalty(4, now_s=now_s)
        assert penalty[1] == -np.inf  # above the average
        assert penalty[0] < penalty[2] == penalty[3] == 0.0
    later.close()


def test_lists_are_what_the_document_says_and_what_the_framework_would_answer(sqlite_service: Service) -> None:
    service = sqlite_service
    service.items(*(item(n, title=f"“{n}” \u2028 漢字 </script>") for n in range(6)), item(7, clearance="secret"))
    service.events(*(event(n, f"u{n % 3}", f"v{n}") for n in range(5)))
    asked = [
        ("/users/u1/items", {}),
        ("/users/nobody/items", {"k": 2, "genre": ["drama", "none"]}),
        ("/users/not%20an%20id/items", {}),
        ("/users/u1/items", {"k": 0}),
        ("/items/v1/similar", {"k": 3}),
        ("/items/v7/similar", {}),
        ("/items/none/similar", {}),
        ("/popular", {}),
        ("/trending", {"region": "Kanto"}),
    ]

    def answers() -> list[tuple[int, Any]]:
        found = []
        for path, params in asked:
            for role in ("viewer", "auditor"):
                answer = service.get(path, role, params=params)
                body = answer.json()
                if answer.status_code == 200:
                    assert ListOut.model_validate_json(answer.content).model_dump(mode="json") == body
                left_out = {"list_id", "request_id"}
                found.append((answer.status_code, {key: of for key, of in body.items() if key not in left_out}))
        return found

    direct = answers()
    app: Any = service.client.app
    app.dependency_overrides[answers] = answers  # any override sends requests the framework's way
    assert answers() == direct
    assert {status for status, _ in direct} == {200, 403, 404, 422}
