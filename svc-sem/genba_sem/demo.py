"""The story that ``genba demo`` tells of svc-sem: masters are registered, a batch is classified, a few reviews and a retrain shrink
the queue, a label is renamed without a retrain, and needles are found by words.

Speaks HTTP as a web application would. A reviewer who knows the truth is played by the generator's own record of what it drew.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

Json = dict[str, Any]

PRECISION = 0.85  # of what is confirmed without a person; small, so that a demonstration has reviews enough for it
SAMPLES = 112  # of which a share is drawn by id for those reviews: fewer would now and then fall short of them
SEED = 5
BATCH = "demo"
_JOB_WITHIN_S = 600.0


def run(client: httpx.Client, folder: Path, console: Console) -> bool:
    """Tell it. True when the queue shrank, no more was confirmed wrongly than promised, the rename showed and needles were found."""
    from genba_sem.demo_pictures import draw_set

    made, batch = draw_set(folder, seed=SEED, masters=6, samples=SAMPLES, views=4)
    truth = {each.name: each.kind for each in batch}
    console.print(
        f"Particles: {len(made)} masters and a batch of {len(batch)}, four views each, in {folder}", highlight=False
    )
    labels = _register(client, made)
    _put(client, "/v1/sem/policy", {"precision": PRECISION}, version="*")
    for each in batch:
        _send(client, each.views, name=each.name, batch=BATCH, lot="demo", decide="later")
    _job(client, f"/v1/sem/batches/{BATCH}/classify", None)
    first = _figures(client, labels, truth)
    reviewer = _Reviewer(client, labels, truth)
    reviewer.review_what_calibrates()
    second = _figures(client, labels, truth)
    trained = _job(client, "/v1/jobs", {"recipe": "sem.refresh"})
    again = {"recipe": "sem.classify", "params": {"batch": BATCH, "decide": "again"}}
    _wait_for_model(client)
    _job(client, "/v1/jobs", again)
    third = _figures(client, labels, truth)
    reviewer.confirm_bundles()
    fourth = _figures(client, labels, truth)
    _print_queue(console, {"classified": first, "reviewed at random": second, "refreshed and decided again": third,
                           "bundles confirmed": fourth}, reviewer)  # fmt: skip
    said, lane = trained["result"]["value"], _get(client, "/v1/sem/lane")
    console.print(
        f"Refresh: {said['masters']} masters, {said['classifier']}, judged by {said['judged_by']} reviewed particles; "
        f"{lane['calibration_reviews']} calibrate, {lane['reviews_needed']} more needed for {PRECISION:.0%}",
        highlight=False,
    )
    renamed = _rename(client, labels["needle"], console)
    found = _search(client, truth, console)
    kept = third["confirmed"] == 0 or third["wrong"] / third["confirmed"] <= 1 - PRECISION
    return bool(
        third["waiting"] < second["waiting"] and fourth["waiting"] <= third["waiting"] and kept and renamed and found
    )


def _register(client: httpx.Client, made: list[Any]) -> dict[str, str]:
    from genba_sem.demo_pictures import KINDS, NAMES

    labels = {}
    for kind in KINDS:
        en, ja = NAMES[kind]
        labels[kind] = str(_post(client, "/v1/sem/labels", {"name": {"en": en, "ja": ja}})["id"])
    for each in made:
        _send(client, each.views, name=each.name, master_of=labels[each.kind])
    return labels


def _send(client: httpx.Client, views: tuple[Path, ...], **fields: str) -> Json:
    files = [("views", (path.name, path.read_bytes(), "image/tiff")) for path in views]
    answer: Json = _ask(client, "POST", "/v1/sem/particles", files=files, data=fields)
    return answer


class _Reviewer:
    """Knows what was drawn, and says it; counts how often."""

    def __init__(self, client: httpx.Client, labels: Mapping[str, str], truth: Mapping[str, str]) -> None:
        self._client, self._labels, self._truth = client, labels, truth
        self.singles = self.bundles = self.by_bundle = 0

    def review_what_calibrates(self) -> None:
        """One by one: those drawn at random, which is what a promise can be built on."""
        params: dict[str, str | int] = {"reason": "calibration_sample", "limit": 200}
        for item in _get(self._client, "/v1/sem/reviews", params)["items"]:
            body = {"particle_id": item["id"], "label_id": self._label(item["name"]), "seconds": 4.0}
            _post(self._client, "/v1/sem/reviews", body, version=item["version"])
            self.singles += 1

    def confirm_bundles(self) -> None:
        """Look-alikes together: the label that most have, without those that are something else."""
        for bundle in _post(self._client, "/v1/sem/reviews/bundles", {"least": 2, "batch": BATCH}):
            whole = _get(self._client, f"/v1/sem/reviews/bundles/{bundle['id']}")
            members = {each: self._label(self._name(each)) for each in whole["particle_ids"]}
            label_id, _ = Counter(members.values()).most_common(1)[0]
            without = [each for each, label in members.items() if label != label_id]
            body = {"label_id": label_id, "without": without, "seconds": 6.0}
            done = _post(
                self._client, f"/v1/sem/reviews/bundles/{bundle['id']}/confirm", body, version=whole["version"]
            )
            self.bundles, self.by_bundle = self.bundles + 1, self.by_bundle + done["settled"]

    def _label(self, name: str) -> str | None:
        return self._labels.get(self._truth[name])

    def _name(self, particle_id: str) -> str:
        return str(_get(self._client, f"/v1/sem/particles/{particle_id}")["name"])


def _figures(client: httpx.Client, labels: Mapping[str, str], truth: Mapping[str, str]) -> dict[str, int]:
    """How the batch stands, and how often the machine's label is not what was drawn."""
    items: list[Json] = []
    cursor = None
    while True:
        params: dict[str, str | int] = {"batch": BATCH, "limit": 200}
        if cursor:
            params["cursor"] = cursor
        page = _get(client, "/v1/sem/particles", params)
        items += page["items"]
        if not (cursor := page["next_cursor"]):
            break
    confirmed = [item for item in items if item["status"] == "confirmed"]
    right = sum(item["label"]["id"] == labels.get(truth[item["name"]]) for item in confirmed)
    waiting = sum(item["status"] in {"needs_review", "unknown"} for item in items)
    reviewed = sum(item["status"] == "reviewed" for item in items)
    return {"waiting": waiting, "confirmed": len(confirmed), "wrong": len(confirmed) - right, "reviewed": reviewed}


def _print_queue(console: Console, stages: Mapping[str, Mapping[str, int]], reviewer: _Reviewer) -> None:
    table = Table("after", "waiting", "confirmed by the machine", "of these wrong", "reviewed", title="The queue")
    for name, row in stages.items():
        table.add_row(name, *(str(row[key]) for key in ("waiting", "confirmed", "wrong", "reviewed")))
    console.print(table)
    console.print(
        f"Decisions of the reviewer: {reviewer.singles} one by one, {reviewer.bundles} bundles for {reviewer.by_bundle} particles",
        highlight=False,
    )


def _rename(client: httpx.Client, label_id: str, console: Console) -> bool:
    """A new name shows in every answer at once; no model and no particle is touched."""
    before = _get(client, "/v1/sem/particles", {"label_id": label_id, "limit": 1})["items"][0]
    started = time.perf_counter()
    body = {"name": {"en": "Acicular", "ja": "針状結晶"}, "synonyms": {"en": ["needle"]}, "reason": "demo"}
    _put(client, f"/v1/sem/labels/{label_id}", body, version="*")
    after = _get(client, f"/v1/sem/particles/{before['id']}")
    took_ms = 1000 * (time.perf_counter() - started)
    console.print(
        f"Renamed {before['label']['name']['en']} to {after['label']['name']['en']}: seen in {took_ms:.0f} ms, "
        f"particle still at version {after['version']}",
        highlight=False,
    )
    return bool(after["label"]["name"]["en"] == "Acicular" and after["version"] == before["version"])


def _search(client: httpx.Client, truth: Mapping[str, str], console: Console) -> bool:
    """Words in two languages; the share of the ten best that were drawn as needles."""
    shares = []
    for text in ("needle-like", "針状の粒子"):
        hits = _post(client, "/v1/sem/search", {"text": text, "k": 10, "batch": BATCH})["hits"]
        right = sum(truth[hit["particle"]["name"]] == "needle" for hit in hits)
        shares.append(right / max(1, len(hits)))
        console.print(
            f"Search {text!r}: {right} of {len(hits)} are needles; {', '.join(hits[0]['matched'])}", highlight=False
        )
    return min(shares) >= 0.8


def _wait_for_model(client: httpx.Client) -> None:
    """Until the service serves what the refresh made; it looks every few seconds."""
    deadline = time.monotonic() + 60
    while _get(client, "/v1/sem/lane")["model"] == "masters" and time.monotonic() < deadline:
        time.sleep(0.5)


def _job(client: httpx.Client, path: str, body: Json | None) -> Json:
    """Submit a job and wait for its end."""
    headers = {"idempotency-key": str(uuid.uuid4())}
    job = _ask(client, "POST", path, json=body, headers=headers)
    deadline = time.monotonic() + _JOB_WITHIN_S
    while (found := _get(client, f"/v1/jobs/{job['id']}"))["status"] not in {
        "succeeded",
        "failed",
        "dead",
        "cancelled",
    }:
        if time.monotonic() > deadline:
            raise SystemExit(f"Job {job['id']} did not end within {_JOB_WITHIN_S:g} s.")
        time.sleep(0.3)
    if found["status"] != "succeeded":
        raise SystemExit(f"Job {job['id']} ended as {found['status']}: {json.dumps(found.get('error'))}")
    done: Json = found
    return done


def _get(client: httpx.Client, path: str, params: Mapping[str, str | int] | None = None) -> Any:
    return _ask(client, "GET", path, params=params)


def _post(client: httpx.Client, path: str, body: Json, *, version: int | str | None = None) -> Any:
    headers = {} if version is None else {"if-match": f'"{version}"' if isinstance(version, int) else version}
    return _ask(client, "POST", path, json=body, headers=headers)


def _put(client: httpx.Client, path: str, body: Json, *, version: str) -> Any:
    return _ask(client, "PUT", path, json=body, headers={"if-match": version})


def _ask(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    answer = client.request(method, path, **options)
    if answer.is_error:
        message = f"{answer.request.method} {answer.request.url.path} was answered {answer.status_code}: {answer.text}"
        raise SystemExit(message)
    return answer.json()
