"""Rows as a web application sends them, and somebody who sends them to the recommender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.testclient import TestClient

from genba_recommend.service import Recommender
from genba_recommend.shop import Shop

Headers = Callable[..., dict[str, str]]
NOW = datetime.now(UTC)


def item(number: int, genre: str = "drama", **fields: Any) -> dict[str, Any]:
    """An item as a web application sends it."""
    return {
        "item_id": f"v{number}",
        "title": f"Video {number}",
        "genre": [genre],
        "maker": f"maker {number % 3}",
        "tags": [f"tag {number % 5}"],
        "price": 100.0 * (number % 7),
        "duration_s": 600.0,
        "published_at": (NOW - timedelta(days=number)).isoformat(),
        **fields,
    }


def event(
    number: int, user: str, item_id: str, kind: str = "like", *, days_ago: float = 0.0, **fields: Any
) -> dict[str, Any]:
    """An event as a web application sends it."""
    at = (NOW - timedelta(days=days_ago)).isoformat()
    return {"event_id": f"e{number}", "user_id": user, "item_id": item_id, "kind": kind, "at": at, **fields}


@dataclass
class Service:
    """A running svc-recommend and somebody who uses it."""

    client: TestClient
    recommend: Recommender
    signed: Headers

    @property
    def shop(self) -> Shop:
        return self.recommend.open_shop("default")

    def headers(self, *roles: str, **fields: Any) -> dict[str, str]:
        return self.signed(*(roles or ("engineer",)), **fields)

    def get(self, path: str, *roles: str, params: Any = None, **fields: Any) -> Any:
        return self.client.get(f"/v1/recommend{path}", headers=self.headers(*roles, **fields), params=params)

    def post(self, path: str, body: Any = None, *roles: str, **fields: Any) -> Any:
        return self.client.post(f"/v1/recommend{path}", json=body, headers=self.headers(*roles, **fields))

    def put(self, path: str, body: Any, *roles: str, **fields: Any) -> Any:
        return self.client.put(f"/v1/recommend{path}", json=body, headers=self.headers(*roles, **fields))

    def delete(self, path: str, *roles: str, **fields: Any) -> Any:
        return self.client.delete(f"/v1/recommend{path}", headers=self.headers(*roles, **fields))

    def items(self, *items: dict[str, Any], **fields: Any) -> Any:
        answer = self.put("/items", {"items": list(items)}, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, *events: dict[str, Any], **fields: Any) -> Any:
        answer = self.post("/events", {"events": list(events)}, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def list(self, user: str, **params: Any) -> Any:
        answer = self.get(f"/users/{user}/items", params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def follow(self) -> None:
        """Take up at once what the follower would take up within half a second."""
        self.recommend.follow()


def ids(made: Any) -> list[str]:
    """The items of a list."""
    return [each["item_id"] for each in made["items"]]
