"""Explore the whole documented API with schemathesis, in this process, over real records. Says what it found; asserts nothing.

The embedded application is asked through its ASGI door as an admin. Ids that schemathesis makes up are mostly replaced by
ids of records that exist, because an API that only ever answers 404 has not been tested.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema
from schemathesis.generation.meta import TestPhase
from schemathesis.python import asgi
from tests.e2e.clips import film
from tests.sem.service.pictures import picture

from genba_gateway import embedded
from genba_gateway.home import first_admin_key
from genba_recommend.tables import FeatureImportance
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.jobs import Jobs
from genba_shared.recipe import Registration
from genba_shared.registry import Registry
from genba_shared.settings import Platform

SEED = 20261121
EXAMPLES_PER_OPERATION = 12  # fuzzed, beside the boundary cases that schemathesis derives from the schemas
ARTIFACT = "answer.txt"
MODEL, VERSIONS = "explored.toy", 4
IMPORTANCE: dict[str, Any] = {
    "model": "recommend.two_tower",
    "feature": "item id",
    "metric": "ndcg_at_10",
    "importance": 0.1,
    "spread": 0.01,
}
STREAM_ENDS_AFTER_S = 0.05

ENDINGS = (
    "/rotate",
    "/retire",
    "/merge",
    "/split",
    "/confirm",
)  # of operations after which a record is no more what it was

# An address that is also the template of another one: GET /v1/sop/evaluations/batch is GET …/{evaluation_id}, and a 422.
SHARED_ADDRESSES = ("POST /v1/sop/evaluations/batch",)
PICTURES = 6


@dataclass
class Found:
    """What an exploration saw."""

    cases: int = 0
    failures: dict[tuple[str, str, str], str] = field(
        default_factory=dict
    )  # (operation, check, title) → how to repeat it
    errors: list[str] = field(default_factory=list)
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    seeded: frozenset[str] = frozenset()  # operations that answered well while records were made for the exploration

    @property
    def operations(self) -> frozenset[str]:
        return frozenset(self.statuses)

    def report(self) -> str:
        """Every failure once, with the request that shows it."""
        told = [f"{' · '.join(key)}\n    {how}" for key, how in sorted(self.failures.items())]
        return "\n".join([*told, *self.errors]) or "nothing"


@dataclass
class Records:
    """Ids of records that exist, by the prefix or the parameter by which they are asked for."""

    ids: dict[str, list[str]]
    spares: dict[str, Iterator[str]]
    finished_job: str
    videos: tuple[bytes, ...]

    def one(self, kind: str, salt: str) -> str | None:
        """An id of a record, seven times out of eight; always the same for the same salt."""
        digest = hashlib.sha256(salt.encode()).digest()
        ids = self.ids.get(kind, [])
        return ids[digest[1] % len(ids)] if ids and digest[0] % 8 else None

    def spare(self, kind: str, asked: str) -> str:
        """A record that nothing else needs, to be deleted; when there is none left, ``asked`` unless it is needed."""
        spare = next(self.spares.get(kind, iter(())), None)
        return spare or (asked[:-8] + "0" * 8 if asked in self.ids.get(kind, []) else asked)


def explore(platform: Platform, folder: Path) -> Found:
    """Run every phase of schemathesis over the embedded application on ``platform``. ``folder``: where clips may lie."""
    with _application(platform) as (application, key), asgi.get_client(application) as client:
        try:
            client.headers["authorization"] = f"Bearer {key}"
            answers: list[tuple[str, str]] = []
            client.hooks["response"].append(lambda answer, **_: answers.append(_asked(answer)) if answer.ok else None)
            records = _make_records(client, platform, folder)
            paths = client.get("/v1/openapi.json").json()["paths"]
            found = Found(seeded=frozenset(_operation(*each, paths) for each in answers))
            _run(application, key, records, found)
            return found
        finally:
            asgi.shutdown_lifespans()


def _asked(answer: Any) -> tuple[str, str]:
    return str(answer.request.method), urlsplit(answer.request.url).path


def _operation(method: str, path: str, paths: dict[str, Any]) -> str:
    """The operation that a request was, named as schemathesis names it; of two templates, the one that says more."""
    fitting = [each for each in paths if re.fullmatch(re.sub(r"\{[^/]+?\}", "[^/]+", each), path)]
    return f"{method} {min(fitting, key=lambda each: each.count('{'), default=path)}"


@contextmanager
def _application(platform: Platform) -> Iterator[tuple[Any, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENBA_GATEWAY_RATE_PER_MINUTE", "1000000")
        patch.setenv("GENBA_GATEWAY_RATE_BURST", "1000000")
        patch.setenv("GENBA_GATEWAY_FAILURES_PER_MINUTE", "1000000")
        patch.setenv("GENBA_GATEWAY_RESILIENCE__QUEUE_S", "60")  # a slow machine is no reason to be turned away
        patch.setenv("GENBA_TRAINING_EVENT_STREAM_MAX_S", str(STREAM_ENDS_AFTER_S))
        patch.setenv("GENBA_TRAINING_EVENT_POLL_S", str(STREAM_ENDS_AFTER_S))
        key_file = first_admin_key(platform)
        assert key_file is not None
        yield embedded.create_app(platform), key_file.read_text().strip()


def _make_records(client: Any, platform: Platform, folder: Path) -> Records:
    """Records of every service, jobs in several states, keys; spares of whatever can be deleted."""
    clips = [film(folder / f"clip_{n}.mp4", seconds=2.0 + n / 4, seed=n).read_bytes() for n in range(4)]
    numbers = itertools.count()

    def post(path: str, body: Any) -> Any:
        answer = client.post(path, json=body, headers={"idempotency-key": f"seed-{next(numbers)}"})
        assert answer.ok, answer.text
        return answer.json()

    procedures = _make_procedures(client, post, clips)
    jobs = [post("/v1/jobs", {"recipe": "platform.verify_audit"})["id"] for _ in range(6)]
    for job in jobs[:2]:
        post(f"/v1/jobs/{job}/cancel", None)
    done = _finish(platform, jobs.pop())
    nightly = {"recipe": "platform.verify_audit", "cron": "30 2 * * *", "time_zone": "Asia/Tokyo"}
    schedules = [post("/v1/schedules", {"name": f"seed {n}", **nightly})["id"] for n in range(8)]
    particles = _make_particles(client, post)
    _register(platform, folder)
    post(f"/v1/models/{MODEL}/rollback", {"generation": VERSIONS, "reason": "seed"})
    llm = _make_llm_records(post, client)
    _fill_catalogue(client)
    arms = [{"name": "a", "lists": "popular"}, {"name": "b", "lists": "trending"}]
    experiments = [post("/v1/recommend/experiments", {"name": f"seed {n}", "arms": arms})["id"] for n in range(5)]
    keys = [post("/v1/keys", {"name": f"seed {n}"})["id"] for n in range(12)]
    doomed = {"job": jobs[0], "experiment": experiments.pop(), "key": keys.pop()}
    doomed |= {"document": llm["document_id"].pop(), "escalation": llm["escalation_id"][1]}
    _answer_well(client, doomed | procedures.doomed | particles.doomed)
    return Records(
        ids={
            **procedures.ids,
            "job_id": [*jobs, done],
            "key_id": keys[:4],
            "schedule_id": schedules[:2],
            **llm,
            "item_id": [f"v{n}" for n in range(6)],
            "user_id": [f"u{n}" for n in range(4)],
            "experiment_id": experiments[:2],
            **particles.ids,
        },
        spares={
            **procedures.spares,
            "key_id": iter(keys[4:]),
            "schedule_id": iter(schedules[2:]),
            "document_id": iter(llm["document_id"][1:]),
            "experiment_id": iter(experiments[2:]),
            **particles.spares,
        },
        finished_job=done,
        videos=tuple(clips),
    )


@dataclass
class _Made:
    """What exists of a service's records, what may go while others are asked for, and what goes before."""

    ids: dict[str, list[str]]
    spares: dict[str, Iterator[str]]
    doomed: dict[str, str]


def _make_procedures(client: Any, post: Callable[[str, Any], Any], clips: list[bytes]) -> _Made:
    """A procedure with golds and evaluations; spare procedures, golds and videos."""
    spans = [{"id": "red", "start_s": 0, "end_s": 1}, {"id": "blue", "start_s": 1, "end_s": 2}]

    def upload(clip: bytes) -> str:
        answer = client.post("/v1/sop/videos", data=clip, headers={"content-type": "video/mp4"})
        assert answer.ok, answer.text
        return str(answer.json()["id"])

    def procedure() -> str:
        steps = [{"id": "red", "name": {"en": "Red", "ja": "赤"}}, {"id": "blue", "critical": True}]
        document = {"title": {"en": "Blocks"}, "steps": steps, "golds": [{"video": videos[0], "steps": spans}]}
        return str(post("/v1/sop/procedures", document)["id"])

    def attach(video_id: str) -> str:
        return str(post(golds, {"video_id": video_id, "steps": spans})["id"])

    videos = [upload(clip) for clip in clips]
    main, *spare_procedures = [procedure() for _ in range(4)]
    golds = f"/v1/sop/procedures/{main}/golds"
    asked = [{"procedure_id": main, "video_id": video, "operator": "op-1"} for video in videos[:2]]
    evaluations = [str(post("/v1/sop/evaluations", each)["id"]) for each in asked]
    spare_golds = [attach(video) for video in videos[1:3]]
    said = "WEBVTT\n\n00:00.000 --> 00:01.000\nThe red block first."
    for video in videos:
        answer = client.put(f"/v1/sop/videos/{video}/transcript", data=said, headers={"content-type": "text/vtt"})
        assert answer.ok, answer.text
    assert client.post("/v1/sop/ask", json={"question": "Which block is first?"}).json()["found"]
    assert client.delete(f"/v1/sop/videos/{videos[3]}/transcript").status_code == 204
    corrected = client.put(f"{golds}/{spare_golds[0]}", json={"steps": spans})
    assert corrected.ok, corrected.text
    taken_away = client.delete(f"{golds}/{attach(videos[3])}")
    assert taken_away.status_code == 204, taken_away.text
    doomed = {
        "procedure": spare_procedures.pop(),
        "video": upload(clips[3] + b"\0"),
        "evaluated": videos[0],
        "main": main,
    }
    return _Made(
        ids={"video_id": videos[:2], "procedure_id": [main], "evaluation_id": evaluations},
        spares={
            "video_id": iter(videos[3:]),
            "procedure_id": iter(spare_procedures),
            "gold_id": iter(spare_golds),
        },
        doomed=doomed,
    )


def _answer_well(client: Any, doomed: dict[str, str]) -> None:
    """What the exploration only does by luck: a schema does not say which version is current, nor what is still open."""
    sem, two_steps = "/v1/sem", {"title": {"en": "Two"}, "steps": [{"id": "red"}, {"id": "blue"}]}
    batch = {"procedure_id": doomed["main"], "videos": [{"video_id": doomed["evaluated"]}]}
    name, master = {"name": {"en": "renamed"}}, {"label_id": doomed["label"], "particle_id": doomed["particle"]}
    for method, path, body in (
        ("PUT", f"/v1/sop/procedures/{doomed['procedure']}", two_steps),
        ("POST", "/v1/sop/evaluations/batch", batch),
        ("DELETE", f"/v1/sop/videos/{doomed['video']}", None),
        ("POST", f"/v1/jobs/{doomed['job']}/requeue", None),
        ("POST", f"/v1/keys/{doomed['key']}/rotate", {}),
        ("POST", f"/v1/recommend/experiments/{doomed['experiment']}/stop", None),
        ("POST", f"/v1/llm/escalations/{doomed['escalation']}/assign", {}),
        ("DELETE", f"/v1/llm/documents/{doomed['document']}", None),
        ("PUT", f"{sem}/labels/{doomed['label']}", name),
        ("PUT", f"{sem}/policy", {"precision": 0.8}),
        ("PATCH", f"{sem}/particles/{doomed['particle']}", {"note": "seed"}),
        ("POST", f"{sem}/reviews", {"particle_id": doomed["particle"], "label_id": doomed["label"]}),
        ("POST", f"{sem}/masters", master),
        ("POST", f"{sem}/batches/b-1/classify", None),
        ("POST", f"{sem}/label-studio/webhook", {"action": "TASKS_CREATED"}),
        ("DELETE", f"{sem}/particles/{doomed['stray']}", None),
    ):
        headers = {"if-match": "*", "idempotency-key": f"well-{method}-{path}".replace("/", ".")}
        answer = client.request(method, path, json=body, headers=headers)
        assert answer.ok, (method, path, answer.text)


def _make_llm_records(post: Callable[[str, Any], Any], client: Any) -> dict[str, list[str]]:
    """Decisions, questions in the queue, documents, and a second revision of both of svc-llm's papers."""
    question = {"text": "What is the torque of a bolt?", "action": "disclose", "classification": "internal"}
    somebody = {"authorization": f"Bearer {post('/v1/keys', {'name': 'asks', 'role': 'operator'})['key']}"}
    asked = [client.post("/v1/llm/triage", json=question, headers=somebody).json() for _ in range(4)]
    decided = {"outcome": "ALLOW", "reason": "seed"}
    post(f"/v1/llm/escalations/{asked[0]['escalation_id']}/decision", decided)  # nobody decides on their own question
    for kind in ("policies", "identities"):
        document = client.get(f"/v1/llm/{kind}").json()["document"]
        post(f"/v1/llm/{kind}", {"document": document, "note": "seed"})
    documents = []
    for number in range(6):
        text = f"The torque of bolt {number} is 25 Nm."
        answer = client.post("/v1/llm/documents", data=text, headers={"content-type": "text/plain"})
        assert answer.ok, answer.text
        documents.append(str(answer.json()["id"]))
    post("/v1/llm/office/summarize", {"document_id": documents[0]})
    post("/v1/llm/chat/completions", {"messages": [{"role": "user", "content": "What is the torque of bolt 2?"}]})
    period = "start=2026-01-01T00:00:00Z&end=2036-01-01T00:00:00Z"
    for path in ("models/genba-extractive-1", "policies/2", "identities/2", f"report?{period}"):
        assert client.get(f"/v1/llm/{path}").ok, path
    escalations = [str(each["escalation_id"]) for each in asked]
    return {
        "decision_id": [str(each["id"]) for each in asked],
        "escalation_id": escalations,
        "document_id": documents,
    }


def _make_particles(client: Any, post: Callable[[str, Any], Any]) -> _Made:
    """Two kinds with masters, particles that wait and are reviewed, bundles; spare labels, masters, particles and bundles."""
    numbers = itertools.count()

    def send(kind: str, **fields: str) -> str:
        files = [("views", ("v.png", picture(kind, seed=next(numbers)), "image/png")) for _ in range(2)]
        answer = client.post("/v1/sem/particles", files=files, data=fields)
        assert answer.ok, answer.text
        return str(answer.json()["id"])

    def label(name: str) -> str:
        return str(post("/v1/sem/labels", {"name": {"en": name}})["id"])

    kinds = {kind: label(kind) for kind in ("disc", "needle")}
    for kind, label_id in kinds.items():
        for _ in range(3):
            send(kind, master_of=label_id)
    doomed_labels = [label(f"doomed {n}") for n in range(40)]
    for _ in range(2):
        send("square", master_of=doomed_labels[0])
    masters = client.get("/v1/sem/masters", params={"label_id": doomed_labels[0]}).json()["items"]
    known = [send("disc", batch="b-1", lot="L1", name=f"p-{n}") for n in range(PICTURES)]
    send("needle", batch="b-1", decide="later")
    files = [("views", ("v.png", picture("disc", seed=0), "image/png"))]
    assert client.post("/v1/sem/search/image", files=files).ok
    any_version = {"if-match": "*"}
    merge = {"into": kinds["disc"], "reason": "seed"}
    assert client.post(f"/v1/sem/labels/{doomed_labels.pop()}/merge", json=merge, headers=any_version).ok
    parts = {"into": [{"name": {"en": "one"}}, {"name": {"en": "two"}}], "reason": "seed"}
    split_label = doomed_labels.pop()
    assert client.post(f"/v1/sem/labels/{split_label}/split", json=parts, headers=any_version).ok
    retired = doomed_labels.pop()
    for verb in ("retire", "restore"):
        assert client.post(f"/v1/sem/labels/{retired}/{verb}", json={"reason": "seed"}, headers=any_version).ok
    for verb, body in (("split", {"parts": 2}), ("confirm", {"label_id": kinds["disc"]})):
        bundles = client.post("/v1/sem/reviews/bundles", json={"least": 2}).json()
        assert bundles, "the discs should lie together"
        assert client.post(f"/v1/sem/reviews/bundles/{bundles[0]['id']}/{verb}", json=body, headers=any_version).ok
    return _Made(
        ids={
            "label_id": list(kinds.values()),
            "particle_id": known,
            "bundle_id": [bundles[0]["id"]],
            "master_id": [masters[0]["id"]],
        },
        spares={
            "label_id": iter(doomed_labels[1:]),
            "master_id": iter([each["id"] for each in masters]),
            "particle_id": iter([send("needle") for _ in range(4)]),
        },
        doomed={"label": doomed_labels.pop(), "particle": send("needle"), "stray": send("needle")},
    )


def _fill_catalogue(client: Any) -> None:
    """Items with events, so that every kind of list has something on it."""
    items = [{"item_id": f"v{n}", "title": f"Video {n}", "genre": ["drama"], "maker": "Aoi"} for n in range(6)]
    users = [{"user_id": f"u{n}", "age_range": "25-34"} for n in range(4)]
    likes = [{"event_id": f"e{n}", "user_id": f"u{n % 4}", "item_id": f"v{n % 5}", "kind": "like"} for n in range(12)]
    for answer in (
        client.put("/v1/recommend/items", json={"items": items}),
        client.put("/v1/recommend/users", json={"users": users}),
        client.post("/v1/recommend/events", json={"events": likes}),
    ):
        assert answer.ok, answer.text
    for n in range(4):
        kind = {"content-type": "image/png"}
        answer = client.put(f"/v1/recommend/items/v{n}/picture", data=picture("disc", seed=n), headers=kind)
        assert answer.json()["state"] == "embedded", answer.text


def _finish(platform: Platform, job_id: str) -> str:
    """Do a job as a worker would, and leave a file."""
    database = Database(platform.database_url)
    try:
        jobs = Jobs(database)
        claim = jobs.claim(job_id, owner="exploration", lease_s=60)
        key = Artifacts(platform.artifacts_url).put(b"42")
        assert claim is not None
        assert jobs.finish(claim, {"value": None, "metrics": {}, "artifacts": {ARTIFACT: key}})
        return job_id
    finally:
        database.close()


def _register(platform: Platform, folder: Path) -> None:
    """Versions of a model, each promoted as a job that passes its gates would."""
    database = Database(platform.database_url)
    registry = Registry(database, Artifacts(platform.artifacts_url))
    try:
        for number in range(VERSIONS):
            bundle = folder / f"bundle_{number}"
            bundle.mkdir()
            (bundle / "bundle.json").write_text(json.dumps({"config": {"number": number}}))
            registration = Registration(MODEL, bundle, {"accuracy": 0.5 + number / 10}, data_hash="d1")
            stored = registry.store(registration)
            with database.transaction() as session:
                session.add(FeatureImportance(**IMPORTANCE, version=number + 1))
                registry.register(session, registration, job_id=f"job_{number}", by="exploration", stored=stored)
    finally:
        database.close()


def _run(application: Any, key: str, records: Records, found: Found) -> None:
    videos = st.sampled_from(records.videos) | st.binary(max_size=512)
    for kind in ("video/mp4", "application/octet-stream"):
        schemathesis.openapi.media_type(kind, videos)
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", application, config=_config(key))
    with _before_every_call(lambda case: _aim(case, records)):
        for event in from_schema(schema).execute():
            if isinstance(event, events.ScenarioFinished):
                _note(event, found)
            elif isinstance(event, events.NonFatalError | events.FatalError):
                found.errors.append(f"{getattr(event, 'label', '')}: {getattr(event, 'value', None) or event}")


@contextmanager
def _before_every_call(aim: Callable[[Any], None]) -> Iterator[None]:
    """Schemathesis takes this hook for the whole process only, so it is taken back in the end."""

    def before_call(context: Any, case: Any, kwargs: Any) -> None:
        aim(case)

    schemathesis.hook(before_call)
    try:
        yield
    finally:
        schemathesis.hooks.unregister(before_call)


def _config(key: str) -> SchemathesisConfig:
    shared = {"unsupported_method": {"enabled": False}, "allow_header_conformance": {"enabled": False}}
    operations = [{"include-name": name, "checks": shared} for name in SHARED_ADDRESSES]
    return SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "continue-on-failure": True,
            "cache": {"enabled": False},
            "headers": {"Authorization": f"Bearer {key}"},
            "generation": {
                "max-examples": EXAMPLES_PER_OPERATION,
                "mode": "all",
                "database": "none",
                "no-shrink": True,
            },
            # Rules between fields (steps that contradict each other, bytes that are no video) are beyond JSON Schema, and a
            # link may lead to a record that is gone: a valid document may rightly be a 4xx, as long as that is documented.
            "checks": {"positive_data_acceptance": {"enabled": False}},
            "operations": operations,
        }
    )


def _aim(case: Any, records: Records) -> None:
    """Point a case at records that exist, where it names some that might. Following links, schemathesis has its own."""
    if case.meta is not None and case.meta.phase.name is TestPhase.STATEFUL:
        return
    salt = json.dumps([case.path_parameters, case.query, repr(case.body)], sort_keys=True, default=repr)
    parameters = case.path_parameters or {}
    ending = next((each for each in ENDINGS if case.path.endswith(each)), "")
    ends_something = case.method == "DELETE" or ending != ""
    for name, value in list(parameters.items()):
        if _may_be_an_id(value):
            is_target = ends_something and f"{{{name}}}" in case.path.removesuffix(ending).rsplit("/", 1)[1]
            parameters[name] = records.spare(name, value) if is_target else records.one(name, salt) or value
    _aim_at_own_ids(parameters, records, salt)
    if case.path.endswith("/artifacts/{name}") and parameters.get("job_id") in records.ids["job_id"]:
        parameters.update(job_id=records.finished_job, name=ARTIFACT)
    if case.path.startswith("/v1/recommend/models/") and str(parameters.get("version", "")).isdecimal():
        parameters["version"] = 1 + int(parameters["version"]) % (VERSIONS + 1)
    if "model" in parameters and re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", str(parameters["model"])):
        parameters["model"] = MODEL
        if str(parameters.get("number", "")).isdecimal():
            parameters["number"] = 1 + int(parameters["number"]) % (VERSIONS + 1)
        if isinstance(case.body, dict) and isinstance(case.body.get("number"), int) and case.body["number"] >= 1:
            case.body["number"] = 1 + case.body["number"] % (VERSIONS + 1)
    for place in (case.query, case.body):
        _aim_within(place, records, salt)


def _aim_at_own_ids(parameters: dict[str, Any], records: Records, salt: str) -> None:
    """Ids that senders choose, of any form that a path can hold."""
    for name in {"item_id", "user_id"} & parameters.keys():
        if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:@~-]{0,127}", str(parameters[name])):
            parameters[name] = records.one(name, salt) or parameters[name]


def _aim_within(node: Any, records: Records, salt: str) -> None:
    if isinstance(node, list):
        for item in node:
            _aim_within(item, records, salt)
    elif isinstance(node, dict):
        for name, value in node.items():
            if _may_be_an_id(value) and name in records.ids:
                node[name] = records.one(name, salt) or value
            else:
                _aim_within(value, records, salt)


def _may_be_an_id(value: object) -> bool:
    """Of the right form, so that putting another in its place turns no bad case into a good one."""
    return isinstance(value, str) and re.fullmatch(r"[a-z]{2,8}_[0-9a-z]{1,30}|[0-9a-z]{12}", value) is not None


def _note(event: events.ScenarioFinished, found: Found) -> None:
    recorder = event.recorder
    for case_id, interaction in recorder.interactions.items():
        node = recorder.cases.get(case_id)
        if node is None or interaction.response is None:
            continue
        found.cases += 1
        label = node.value.operation.label
        found.statuses.setdefault(label, Counter())[interaction.response.status_code] += 1
    for case_id, checks in recorder.checks.items():
        for check in checks:
            if check.failure_info is None:
                continue
            failure = check.failure_info.failure
            key = (recorder.cases[case_id].value.operation.label, check.name, failure.title)
            answer = recorder.interactions[case_id].response
            said = f"{answer.status_code}: {answer.text[:500]}" if answer is not None else "no answer"
            told = f"{failure.message}\n{check.failure_info.code_sample}\n{said}"
            found.failures.setdefault(key, told[:1500].replace("\n", "\n    "))
