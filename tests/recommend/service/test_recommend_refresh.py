"""Refreshes: what is missing or stale is embedded, once, whatever is killed or poisoned; what serves no more is deleted."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any, Self

import numpy as np
import pytest
from sqlalchemy import func, select
from tests.e2e.world import until
from tests.recommend.model_world import LEASE_S, Trained, runner_for, users_with_history
from tests.recommend.shop_world import event, ids, item

from genba_recommend import refreshing, store
from genba_recommend.index_vectors import build, collection_of
from genba_recommend.serving_model import ServingModel
from genba_recommend.tables import EmbeddingRow, RefreshLog
from genba_shared.principal import Clearance
from genba_shared.registry_rows import VersionRow


def embedded(trained: Trained, kind: str) -> int:
    with trained.service.recommend.database.read() as session:
        return session.scalar(select(func.count()).where(EmbeddingRow.kind == kind)) or 0


def test_a_refresh_that_is_killed_half_way_goes_on_with_what_is_missing(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.service.items(*(item(5000 + n) for n in range(40)))

    class Killed(BaseException):
        """What no recipe can catch."""

    real, calls = refreshing._Refresh.write, 0

    def dies_at_the_third(self: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Killed
        real(self, *args, **kwargs)

    trained.runner = runner_for(trained.service, LEASE_S)
    monkeypatch.setattr(refreshing._Refresh, "write", dies_at_the_third)
    with pytest.raises(Killed):
        trained.run("recommend.refresh", batch=10, what="items")
    assert embedded(trained, "item") == 20
    monkeypatch.setattr(refreshing._Refresh, "write", real)
    job = trained.again()
    assert (job.status, job.attempt) == ("succeeded", 2)
    assert job.result["value"] == {"version": 1, "items": 20, "users": 0}
    assert trained.run("recommend.refresh", what="items").result["value"]["items"] == 0


@pytest.mark.long
def test_a_refresh_whose_worker_is_killed_with_9_goes_on_with_what_is_missing_only(trained: Trained) -> None:
    trained.service.items(*(item(5000 + n) for n in range(400)))
    job = trained.submit("recommend.refresh", batch=1, what="items")
    with trained.worker(job) as worker:
        until(lambda: embedded(trained, "item") >= 5, within_s=120, what="the first vectors")
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    before = embedded(trained, "item")
    assert 5 <= before < 400
    ended = trained.again()
    assert (ended.status, ended.attempt) == ("succeeded", 2)
    assert ended.result["value"] == {"version": 1, "items": 400 - before, "users": 0}
    assert embedded(trained, "item") == 400
    with trained.service.recommend.database.read() as session:
        assert session.scalar(select(func.count()).select_from(RefreshLog)) == 400  # one a batch: none was done twice


def test_many_users_embedded_together_are_as_each_alone(trained: Trained) -> None:
    shop = trained.service.shop
    aligned = shop.view.models[1]
    people = [shop.person(trained.world.user_id(row)) for row in range(12)]
    together = aligned.model.embed_people(people, aligned)
    assert together == pytest.approx(np.stack([aligned.model.embed_user(one, aligned) for one in people]), abs=1e-5)


def test_a_poisoned_row_fails_alone_and_is_reported(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshing, "FIRST_WAIT_S", 0.0)
    trained.service.items(*(item(5000 + n) for n in range(25)))
    real = ServingModel.embed_items

    def poisoned(self: ServingModel, items: Any) -> Any:
        if any(each.item_id == "v5007" for each in items):
            raise ValueError("poison")
        return real(self, items)

    monkeypatch.setattr(ServingModel, "embed_items", poisoned)
    with _Webhook() as hook:
        monkeypatch.setenv("GENBA_RECOMMEND_REFRESH_WEBHOOK_URL", hook.url)
        job = trained.run("recommend.refresh", what="items", batch=10)
    assert job.status == "succeeded"
    assert job.result["value"]["items"] == 24
    assert job.result["value"]["failed"] == ["item v5007"]
    assert "v5007" in hook.told[0]["text"]
    lines = trained.service.get("/refresh-log").json()["lines"]
    assert [line["level"] for line in lines].count("error") == 1
    assert "v5007" in next(line["message"] for line in lines if line["level"] == "error")


def test_a_poisoned_row_above_the_clearance_of_who_asks_is_not_named(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshing, "FIRST_WAIT_S", 0.0)
    secret = {**item(5001), "clearance": "secret"}
    trained.service.items(secret, item(5002), item(5003), clearance=Clearance.SECRET)
    real = ServingModel.embed_items

    def poisoned(self: ServingModel, items: Any) -> Any:
        if any(each.item_id in {"v5001", "v5002"} for each in items):
            raise ValueError("poison")
        return real(self, items)

    monkeypatch.setattr(ServingModel, "embed_items", poisoned)
    trained.principal = replace(trained.principal, clearance=Clearance.INTERNAL)
    job = trained.run("recommend.refresh", what="items")
    assert (job.result["value"]["failed"], job.result["metrics"]["failed"]) == (["item v5002"], 2.0)

    def said(clearance: Clearance) -> str:
        return str(trained.service.get("/refresh-log", clearance=clearance).json())

    assert ["v5001" in said(Clearance.INTERNAL), "v5002" in said(Clearance.INTERNAL)] == [False, True]
    assert "v5001" in said(Clearance.SECRET)
    assert "v5002" not in said(Clearance.PUBLIC)


def test_a_refresh_counts_without_doing_when_it_is_told_to(trained: Trained) -> None:
    trained.service.items(item(5001))
    dry = trained.run("recommend.refresh", dry_run=True)
    assert dry.result["value"]["dry_run"]
    assert dry.result["value"]["items"] == 1
    assert embedded(trained, "item") == 0


def test_a_catalogue_that_changed_between_training_and_refresh_is_no_trouble(trained: Trained) -> None:
    service = trained.service
    service.items({**item(1), "item_id": "v000001", "title": "Another title", "genre": ["another"]})
    service.items({**item(2), "item_id": "v000002", "active": False}, item(5001))
    job = trained.run("recommend.refresh", what="items")
    assert job.result["value"]["items"] == 2
    trained.take_up()
    assert service.get("/status").json()["items_without_vector"] == 0
    assert "v000002" not in ids(service.list(users_with_history(trained, 1)[0], k=200))


def test_only_users_who_did_something_new_are_embedded_again(trained: Trained) -> None:
    first = trained.run("recommend.refresh", what="users").result["value"]["users"]
    assert first == embedded(trained, "user") > 10
    user = users_with_history(trained, 1)[0]
    unseen = ids(trained.service.list(user))[0]
    trained.service.events({"event_id": "x", "user_id": user, "item_id": unseen, "kind": "like"})
    assert trained.run("recommend.refresh", what="users").result["value"]["users"] == 1


def test_the_refresh_log_is_kept_for_a_week(trained: Trained) -> None:
    trained.service.items(item(5001))
    trained.run("recommend.refresh", what="items")
    with trained.service.recommend.database.transaction() as session:
        line = session.scalars(select(RefreshLog)).one()
        line.at = line.at - refreshing.LOG_KEPT - timedelta(minutes=1)
    trained.run("recommend.refresh", what="items")
    assert trained.service.get("/refresh-log").json()["lines"] == []


class _Webhook:
    """Somewhere to post to, such as Slack."""

    def __enter__(self) -> Self:
        told: list[dict[str, Any]] = []

        class Told(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                """Say nothing."""

        self.told = told
        self._server = http.server.HTTPServer(("127.0.0.1", 0), Told)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


# --- swap -----------------------------------------------------------------------------------------------------------


def test_the_vectors_of_a_version_whose_files_are_gone_go_too(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, shop = trained.service, trained.service.shop
    service.events(event(1, "somebody", ids(service.list("somebody"))[0]))
    assert trained.run("recommend.refresh").status == "succeeded"
    monkeypatch.setattr(shop._versions, "_settings", shop.settings.model_copy(update={"exact_up_to": 1}))
    shop._versions.shelf_changed()
    service.follow()
    until(lambda: shop._versions._builds[1].is_done)
    store_of, aligned = service.recommend.vectors(), shop.view.models[1]
    with service.recommend.database.transaction() as session:
        first = session.get_one(VersionRow, (shop.model, 1))
        columns = {column.name: getattr(first, column.name) for column in VersionRow.__table__.columns}
        session.add_all(
            [VersionRow(**{**columns, "number": n, "status": s}) for n, s in ((8, "registered"), (9, "retired"))]
        )
        for number in (8, 9):
            store.put_vectors(session, "default", number, "item", [store.Vector("v1", "x", aligned.vectors[0])])
    for number in (8, 9):
        build(store_of, collection_of("default", number), "x", ["v1"], aligned.vectors[:1], builder="local")
    shop._pruned_s = -np.inf
    service.follow()
    with service.recommend.database.read() as session:
        assert set(session.scalars(select(EmbeddingRow.version))) == {1, 8}
    there = [store_of.current(collection_of("default", number)) is not None for number in (1, 8, 9)]
    assert there == [True, True, False]
