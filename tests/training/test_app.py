"""The jobs' API over HTTP: submit, look, follow, cancel, requeue; and what it says of what it cannot do."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any, BinaryIO

import pytest
from fastapi.testclient import TestClient

from genba_shared.artifacts import Artifacts
from genba_shared.ids import new_id
from genba_shared.jobs import Job, JobEvent, JobHead, Jobs, NewEvent
from genba_shared.principal import Clearance, Principal, scopes_of
from genba_shared.problems import Invalid, Overloaded, Unavailable
from genba_training import recipes
from genba_training.app import create_app
from genba_training.runner import Runner
from genba_training.settings import Settings
from genba_training.streams import EventStreams

Signed = Callable[..., dict[str, str]]


@pytest.fixture
def settings(settings: Settings, database_url: str) -> Settings:
    platform = settings.platform.model_copy(update={"database_url": database_url})
    return settings.model_copy(update={"platform": platform})


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def post(client: TestClient, signed: Signed) -> Callable[..., Any]:
    """``post({"recipe": …}, key="k", role="engineer")``"""

    def post(body: Any, *, key: str | None = "k", role: str = "engineer", **fields: Any) -> Any:
        headers = signed(role, **fields) | ({} if key is None else {"Idempotency-Key": key})
        return client.post("/v1/jobs", json=body, headers=headers)

    return post


@pytest.fixture
def work(jobs: Jobs, settings: Settings) -> Callable[[str], str]:
    """Does what a worker would: ``work(job_id)``."""
    runner = Runner(
        jobs=jobs,
        recipes=recipes.load(settings.recipes),
        artifacts=Artifacts(settings.platform.artifacts_url),
        settings=settings,
        owner="worker-1",
    )
    return runner.run


def events_of(text: str) -> list[tuple[str, str | None, Any]]:
    """(event, id, data) of a stream's text."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


WORK = {"recipe": "test.work", "params": {"steps": 2, "step_s": 0}}


def test_a_submission_is_accepted_done_and_seen(
    post: Callable[..., Any], client: TestClient, signed: Signed, work: Callable[[str], str]
) -> None:
    answer = post(WORK)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["clearance"], job["params"]) == ("queued", "internal", {"steps": 2, "step_s": 0.0})
    work(job["id"])
    done = client.get(answer.headers["location"], headers=signed("engineer")).json()
    assert (done["status"], done["progress"], done["result"]["value"]) == ("succeeded", 1.0, {"done": 2})
    report = client.get(f"/v1/jobs/{job['id']}/artifacts/report", headers=signed("engineer"))
    assert (report.status_code, report.content) == (200, b"2 steps")
    assert client.get(f"/v1/jobs/{job['id']}/artifacts/other", headers=signed("engineer")).status_code == 404


def test_a_file_that_cannot_be_sent_is_not_left_open(
    post: Callable[..., Any],
    client: TestClient,
    signed: Signed,
    work: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = post(WORK).json()
    work(job["id"])
    opened: list[BinaryIO] = []
    open_really = Artifacts.open

    def noted(artifacts: Artifacts, key: str) -> BinaryIO:
        opened.append(open_really(artifacts, key))
        return opened[-1]

    def away(_artifacts: Artifacts, _key: str) -> int:
        raise Unavailable("The artifact store cannot be reached.")

    monkeypatch.setattr(Artifacts, "open", noted)
    monkeypatch.setattr(Artifacts, "size_bytes", away)
    assert client.get(f"/v1/jobs/{job['id']}/artifacts/report", headers=signed("engineer")).status_code == 503
    assert all(file.closed for file in opened)


def test_a_repeated_submission_gives_the_same_job_and_says_so(post: Callable[..., Any]) -> None:
    first, second = post(WORK), post(WORK)
    assert first.json()["id"] == second.json()["id"]
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    other = post({"recipe": "test.work", "params": {"steps": 3}})
    assert (other.status_code, other.json()["type"]) == (422, "urn:genba:problem:idempotency-key-reused")


MISFITS: list[tuple[Any, str, str]] = [
    ({"recipe": "test.nothing"}, "recipe", "there are: platform.prune_jobs"),
    ({"recipe": "no dots"}, "recipe", "two names joined by a dot"),
    ({"recipe": "test.work", "params": {"steps": 0}}, "params.steps", "greater than or equal to 1"),
    ({"recipe": "test.work", "params": {"colour": "red"}}, "params.colour", "not permitted"),
    ({"recipe": "test.work", "params": {"steps": 2**70}}, "params", "64-bit"),
    ({"recipe": "test.work", "params": {"a": "x\x00y"}}, "params", "NUL"),
    ({"recipe": "test.work", "params": 3}, "params", "dictionary"),
    ({"recipe": "test.work", "queue": "gpu"}, "queue", "not permitted"),
]


def test_a_submission_that_does_not_fit_is_refused_with_its_field(post: Callable[..., Any]) -> None:
    for body, field, words in MISFITS:
        answer = post(body, key=f"misfit {field} {words}")
        assert answer.status_code == 422, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        error = answer.json()["errors"][0]
        assert error["field"] == field, body
        assert words in error["message"], body


def test_lone_surrogates_are_refused(client: TestClient, signed: Signed) -> None:
    answer = client.post(
        "/v1/jobs",
        content=rb'{"recipe": "test.work", "params": {"a": "\ud800"}}',
        headers={**signed("engineer"), "Idempotency-Key": "k", "content-type": "application/json"},
    )
    assert answer.status_code == 422


def test_submission_needs_a_key_a_scope_the_recipes_scope_and_room(
    post: Callable[..., Any], settings: Settings
) -> None:
    assert post(WORK, key=None).status_code == 400
    assert post(WORK, role="viewer").status_code == 403
    assert post({"recipe": "test.guarded"}, role="operator").json()["scope"] == "models:write"
    assert post({"recipe": "test.guarded"}, role="engineer").status_code == 202
    assert post({**WORK, "clearance": "secret"}, key="k2").status_code == 403
    assert post({**WORK, "clearance": "public"}, key="k3").json()["clearance"] == "public"
    large = {"recipe": "test.work", "params": {"a": "x" * settings.max_params_bytes}}
    assert post(large, key="k4").status_code == 413


def test_nobody_sees_anothers_job(post: Callable[..., Any], client: TestClient, signed: Signed) -> None:
    path = f"/v1/jobs/{post(WORK).json()['id']}"
    other = signed("engineer", subject="key_other")
    for answer in (
        client.get(path, headers=other),
        client.get(f"{path}/events", headers=other),
        client.get(f"{path}/artifacts/report", headers=other),
        client.post(f"{path}/cancel", headers=other),
        client.post(f"{path}/requeue", headers=other),
    ):
        assert answer.status_code == 404
    assert client.get("/v1/jobs", headers=other).json() == {"jobs": [], "next_before": None}
    assert len(client.get("/v1/jobs", headers=signed("admin", subject="key_admin")).json()["jobs"]) == 1


def test_lists_come_in_pages(post: Callable[..., Any], client: TestClient, signed: Signed) -> None:
    made = [post(WORK, key=f"k{number}").json()["id"] for number in range(5)]
    seen: list[str] = []
    before: str | None = None
    while True:
        query = {"limit": "2"} | ({} if before is None else {"before": before})
        page = client.get("/v1/jobs", params=query, headers=signed("engineer")).json()
        seen += [job["id"] for job in page["jobs"]]
        before = page["next_before"]
        if before is None:
            break
    assert seen == made[::-1]


def test_a_job_is_cancelled_and_requeued(post: Callable[..., Any], client: TestClient, signed: Signed) -> None:
    path = f"/v1/jobs/{post(WORK).json()['id']}"
    assert client.post(f"{path}/requeue", headers=signed("engineer")).status_code == 409
    assert client.post(f"{path}/cancel", headers=signed("engineer")).json()["status"] == "cancelled"
    assert client.post(f"{path}/requeue", headers=signed("engineer")).json()["status"] == "queued"
    assert client.post(f"{path}/cancel", headers=signed("viewer")).status_code == 403


def test_recipes_are_listed_with_the_schema_of_their_parameters(client: TestClient, signed: Signed) -> None:
    found = {r["name"]: r for r in client.get("/v1/recipes", headers=signed("viewer")).json()["recipes"]}
    assert {"platform.verify_audit", "platform.prune_jobs", "test.work"} <= set(found)
    schema = found["test.work"]["params_schema"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["steps"]["minimum"] == 1


def test_what_only_a_service_submits_is_not_offered_and_not_taken(
    post: Callable[..., Any], client: TestClient, signed: Signed
) -> None:
    listed = client.get("/v1/recipes", headers=signed("admin")).json()["recipes"]
    assert "test.inner" not in {recipe["name"] for recipe in listed}
    daily = {"name": "daily", "recipe": "test.inner", "cron": "0 0 * * *"}
    for refused in (
        post({"recipe": "test.inner", "params": {}}),
        client.post("/v1/schedules", json=daily, headers={**signed("admin"), "idempotency-key": "inner"}),
    ):
        assert refused.status_code == 422, refused.text
        assert "POST /v1/test/things alone" in refused.json()["errors"][0]["message"]


def test_bytes_that_somebody_else_uploaded_cannot_be_ingested_by_their_hash() -> None:
    params = {"video_id": new_id("vid"), "key": f"ab/{'ab' * 32}.mp4", "sha256": "ab" * 32, "size_bytes": 1}
    operator = Principal("somebody", ("operator",), scopes_of(["operator"]), Clearance.SECRET)
    with pytest.raises(Invalid, match="POST /v1/sop/videos"):
        recipes.load(["genba_sop.training:RECIPES"]).accept("sop.ingest", params, principal=operator)


# ---- following ----


def test_a_finished_jobs_stream_tells_all_and_ends(
    post: Callable[..., Any], client: TestClient, signed: Signed, work: Callable[[str], str]
) -> None:
    job_id = post(WORK).json()["id"]
    work(job_id)
    answer = client.get(f"/v1/jobs/{job_id}/events", headers=signed("engineer"))
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    assert [int(event_id) for _, event_id, _ in events[:-1] if event_id] == list(range(1, len(events)))
    assert events[-1] == ("end", None, {"status": "succeeded"})
    kinds = [kind for kind, _, _ in events]
    assert kinds[0] == "status"
    assert {"metrics", "progress", "line"} <= set(kinds)


def test_a_stream_continues_after_the_last_event_seen_and_then_is_over(
    post: Callable[..., Any], client: TestClient, signed: Signed, work: Callable[[str], str]
) -> None:
    job_id = post(WORK).json()["id"]
    work(job_id)
    path, who = f"/v1/jobs/{job_id}/events", signed("engineer")
    everything = events_of(client.get(path, headers=who).text)
    last = int(everything[-2][1] or 0)
    rest = events_of(client.get(path, headers={**who, "Last-Event-ID": str(last - 1)}).text)
    assert rest == everything[-2:]
    assert client.get(path, headers={**who, "Last-Event-ID": str(last)}).status_code == 204
    assert client.get(path, headers={**who, "Last-Event-ID": "x"}).status_code == 422


def streams_over(jobs: Jobs, **options: Any) -> EventStreams:
    return EventStreams(
        jobs.heads,
        lambda job_id, after: jobs.events(job_id, after=after),
        **{"poll_s": 0.01, "max_streams": 10, "max_stream_s": 60.0} | options,
    )


async def _next(stream: AsyncIterator[bytes]) -> str:
    return (await asyncio.wait_for(anext(stream), 60)).decode()


def test_a_stream_follows_a_running_job_to_its_end(jobs: Jobs, submit: Callable[..., Job]) -> None:
    async def follow() -> None:
        streams, job = streams_over(jobs), submit("test.work")
        async with streams.polling():
            stream = await streams.open(job.id, 0)
            assert "retry:" in await _next(stream)
            assert '"queued"' in await _next(stream)
            claim = jobs.claim(job.id, owner="worker-1", lease_s=30)
            assert claim is not None
            assert '"running"' in await _next(stream)
            jobs.heartbeat(claim, [NewEvent("progress", {"fraction": 0.5, "message": "half"})], lease_s=30)
            assert "event: progress" in await _next(stream)
            jobs.finish(claim, {})
            assert '"succeeded"' in await _next(stream)
            assert "event: end" in await _next(stream)
            with pytest.raises(StopAsyncIteration):
                await _next(stream)

    asyncio.run(follow())


def test_a_stream_whose_time_is_up_ends_without_end(jobs: Jobs, submit: Callable[..., Job]) -> None:
    async def follow() -> list[bytes]:
        streams, job = streams_over(jobs, max_stream_s=0.05), submit("test.work")
        async with streams.polling():
            return [part async for part in await streams.open(job.id, 0)]

    assert b"event: end" not in b"".join(asyncio.run(follow()))


def test_a_stream_ends_when_its_process_shuts_down(jobs: Jobs, submit: Callable[..., Job]) -> None:
    async def follow() -> None:
        shutting_down = threading.Event()
        streams, job = streams_over(jobs, draining=shutting_down.is_set), submit("test.work")
        async with streams.polling():
            stream = await streams.open(job.id, 0)
            await _next(stream)
            assert '"queued"' in await _next(stream)
            shutting_down.set()
            with pytest.raises(StopAsyncIteration):
                await _next(stream)

    asyncio.run(follow())


def test_so_many_streams_may_be_open(jobs: Jobs, submit: Callable[..., Job]) -> None:
    async def follow() -> None:
        streams, job = streams_over(jobs, max_streams=1), submit("test.work")
        async with streams.polling():
            first = await asyncio.gather(*(streams.open(job.id, 0) for _ in range(3)), return_exceptions=True)
            stream, *refused = first
            assert not isinstance(stream, BaseException)
            assert [type(each) for each in refused] == [Overloaded, Overloaded]
            del stream, first  # as when a caller goes away before the first byte
            gc.collect()
            for _ in range(5):  # the loop closes what was forgotten, by and by
                await asyncio.sleep(0)
            again = await streams.open(job.id, 0)
            await again.aclose()  # type: ignore[attr-defined]
            await streams.open(job.id, 0)

    asyncio.run(follow())


def test_many_streams_cost_one_look_per_poll() -> None:
    looks: list[int] = []
    done = threading.Event()

    def heads(job_ids: Any) -> dict[str, JobHead]:
        looks.append(len(job_ids))
        return {job_id: JobHead(1, done=done.is_set()) for job_id in job_ids}

    def events(_job_id: str, _after: int) -> tuple[Job | None, list[JobEvent]]:
        return None, []  # deleted: the stream ends when it looks again

    async def follow() -> None:
        streams = EventStreams(heads, events, poll_s=0.01, max_streams=100, max_stream_s=60.0)
        async with streams.polling():
            await asyncio.gather(*[_drain(streams, f"job_{number}") for number in range(50)])

    asyncio.run(follow())
    assert all(number <= 50 for number in looks)


async def _drain(streams: EventStreams, job_id: str) -> None:
    async for _ in await streams.open(job_id, 0):
        pass


# ---- running ----


def test_metrics_come_from_the_job_table(post: Callable[..., Any], client: TestClient) -> None:
    post(WORK)
    text = client.get("/metrics").text
    assert 'genba_training_queued_jobs{queue="cpu"} 1.0' in text
    assert 'genba_training_queued_jobs{queue="gpu"} 0.0' in text
    assert "genba_training_oldest_queued_age_seconds" in text
    assert "genba_training_dead_jobs" in text


def test_the_sweeper_publishes_what_a_submission_could_not(
    settings: Settings, jobs: Jobs, submit: Callable[..., Job]
) -> None:
    job = submit("test.work")  # by a service that has no broker
    with TestClient(create_app(settings)) as client:
        folder = settings.platform.home / "broker" / "messages"
        ends_s = time.monotonic() + 60
        while not list(folder.glob("*.cpu.msg")):
            assert time.monotonic() < ends_s, "nothing was published"
            threading.Event().wait(0.01)
        assert client.get("/ready").status_code == 200
    assert job.id in json.loads(next(folder.glob("*.cpu.msg")).read_text())["headers"]["argsrepr"]


def test_a_broker_that_is_down_does_not_fail_a_submission(settings: Settings, signed: Signed) -> None:
    platform = settings.platform.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(settings.model_copy(update={"platform": platform}))) as client:
        answer = client.post("/v1/jobs", json=WORK, headers={**signed("engineer"), "Idempotency-Key": "k"})
        assert answer.status_code == 202
        assert client.get("/ready").status_code == 200


def test_a_secret_job_is_seen_with_secret_clearance_only(
    post: Callable[..., Any], client: TestClient, signed: Signed
) -> None:
    job = post(WORK, clearance=Clearance.SECRET).json()
    assert job["clearance"] == "secret"
    path = f"/v1/jobs/{job['id']}"
    assert client.get(path, headers=signed("admin", clearance=Clearance.INTERNAL)).status_code == 404
    assert client.get(path, headers=signed("admin", clearance=Clearance.SECRET)).status_code == 200


def test_settings_are_few_and_described() -> None:
    assert len(Settings.model_fields) <= 25
    assert all(field.description for field in Settings.model_fields.values())
    assert Settings().keep_jobs_days > timedelta(hours=24).days
