"""A label is split while particles are decided, by masters that were sent as such: none is left with a label that is no more."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sem.service.jobs_world import submit, worker
from tests.sem.service.pictures import views

from genba_sem import lanes
from genba_sem.lane import Decision
from genba_sem.lanes import Ready
from genba_sem.settings import Settings

Service = Any  # of conftest, which tests cannot import


def labels(service: Service) -> tuple[str, str]:
    """One label whose masters show discs and needles, and one of squares."""
    both, square = service.label("Both"), service.label("Square")
    for seed in range(3):
        service.particle(views("disc", seed=seed), master_of=both, name=f"disc {seed}")
        service.particle(views("needle", seed=seed), master_of=both, name=f"needle {seed}")
        service.particle(views("square", seed=seed), master_of=square, name=f"square {seed}")
    return both, square


def split(service: Service, label: str) -> dict[str, str]:
    """Into discs and needles by two masters of each kind; the third of each goes where it resembles."""
    names = {}
    for each in service.get("/v1/sem/masters", params={"label_id": label}).json()["items"]:
        names[service.get(f"/v1/sem/particles/{each['particle_id']}").json()["name"]] = each["id"]
    parts = [
        {"name": {"en": kind.title()}, "master_ids": [names[f"{kind} {k}"] for k in (0, 1)]}
        for kind in ("disc", "needle")
    ]
    done = service.post(f"/v1/sem/labels/{label}/split", {"into": parts, "reason": "two kinds"}, version=1)
    assert done.status_code == 200, done.text
    assert done.json()["unassigned"] == 0
    return dict(zip(("disc", "needle"), (part["id"] for part in done.json()["into"]), strict=True))


def test_particles_go_to_the_part_whose_masters_they_resemble_and_so_do_masters_that_nobody_named(
    service: Service,
) -> None:
    both, _ = labels(service)
    sent = {kind: [service.particle(views(kind, seed=50 + k))["id"] for k in range(3)] for kind in ("disc", "needle")}
    parts = split(service, both)
    for kind, ids in sent.items():
        assert {service.get(f"/v1/sem/particles/{each}").json()["label"]["id"] for each in ids} == {parts[kind]}
    masters = service.get("/v1/sem/masters", params={"limit": 50}).json()["items"]
    for kind in ("disc", "needle"):
        own = [each["particle_id"] for each in masters if each["label_id"] == parts[kind]]
        assert sorted(service.get(f"/v1/sem/particles/{each}").json()["name"] for each in own) == [
            f"{kind} {k}" for k in range(3)
        ]


@pytest.mark.parametrize("by", ["job", "request", "again"])
def test_nothing_is_given_a_label_that_is_split_while_it_is_being_decided(
    service: Service, settings: Settings, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    both, _ = labels(service)
    waiting = service.particle(
        views("disc", seed=60), batch="b-1", name="p", decide="now" if by == "again" else "later"
    )
    decide = Ready.decide
    parts: dict[str, str] = {}

    def meanwhile(self: Ready, seen: Any, particle_id: str) -> Decision:
        decision = decide(self, seen, particle_id)
        if not parts:
            parts.update(split(service, both))
        return decision

    if by == "job":
        monkeypatch.setattr(Ready, "decide", meanwhile)
        assert worker(service, settings)(submit(service, "sem.classify", batch="b-1")) == "succeeded"
        found = service.get(f"/v1/sem/particles/{waiting['id']}").json()
    elif by == "request":
        ready = lanes.Lanes.ready

        def then(self: lanes.Lanes, tenant: str, clearance: int) -> Ready:
            made = ready(self, tenant, clearance)
            if not parts:
                parts["disc"] = ""  # whoever splits asks for the lane as well
                parts.update(split(service, both))
            return made

        monkeypatch.setattr(lanes.Lanes, "ready", then)
        found = service.particle(views("disc", seed=61), name="q")
    else:
        parts.update(split(service, both))
        assert service.post(f"/v1/sem/particles/{waiting['id']}/decide", {}).status_code == 200
        found = service.get(f"/v1/sem/particles/{waiting['id']}").json()
    assert found["label"]["id"] == parts["disc"]
    assert found["label"]["status"] == "active"


def test_the_quick_audit_compares_masters_that_were_sent_as_such(service: Service) -> None:
    both, square = labels(service)
    service.particle(views("square", seed=9), master_of=both, name="wrong")
    for seed in (70, 71, 72):
        service.particle(views("square", seed=seed), master_of=square, name=f"more {seed}")
    found = service.get("/v1/sem/audits/labels").json()
    assert found["judged"] == 13
    first = found["doubts"][0]
    assert service.get(f"/v1/sem/particles/{first['particle_id']}").json()["name"] == "wrong"
    assert first["suggested"]["id"] == square
