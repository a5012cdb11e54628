"""The story that ``genba demo`` tells of svc-recommend: likes go in through the gateway, a model is trained by the queue and serves.

Speaks HTTP as a web application would. The people are generated; what they would click on is known to the generator alone, and is
asked of it only to play their part in the experiment.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

Json = dict[str, Any]

ITEMS, USERS, DAYS = 800, 400, 45
TRAINING: Final[Json] = {"max_epochs": 6, "places_per_epoch": 40_000, "gate_over_popularity": -0.02}
ROWS_AT_ONCE = 5000
JOB_WITHIN_S, TAKEN_UP_WITHIN_S = 600.0, 30.0
IN_THE_EXPERIMENT, LISTS_EACH, PLACES = 160, 2, 10


@dataclass
class _Story:
    """Who tells it, to whom, and whether all of it came true."""

    client: httpx.Client
    console: Console
    true: bool = True

    def say(self, said: str) -> None:
        self.console.print(said, highlight=False, soft_wrap=True)

    def check(self, what: str, *, held: bool) -> None:
        """A promise of the story, kept or not."""
        self.say(f"  {'[green]yes[/]' if held else '[red]no [/]'} {what}")
        self.true &= held

    def get(self, path: str, **params: Any) -> Json:
        return _checked(self.client.get(path, params=params))

    def post(self, path: str, body: Json | None = None) -> Json:
        headers = {"idempotency-key": str(uuid.uuid4())}
        return _checked(self.client.post(path, json=body, headers=headers))


def run(client: httpx.Client, folder: Path, console: Console) -> bool:
    """Load, train, promote, serve, like, try two versions against each other, roll back. True when every promise was kept."""
    from genba_recommend.generator import Size, generate

    folder.mkdir(parents=True, exist_ok=True)
    story = _Story(client, console)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Making a catalogue and people", total=1.0)
        world = generate(
            Size(ITEMS, USERS, DAYS), seed=7, progress=lambda share, _what: progress.update(task, completed=share)
        )
    _load(story, world)
    before = story.get("/v1/recommend/users/u000010/items", k=5)
    story.say(f"Before there is a model the list is [bold]{before['source']}[/]: {_why(before)}")
    first = _train(story, "version 1", {**TRAINING})
    story.check("the version passed its gates and serves", held=first["registered"]["outcome"] == "promoted")
    number = int(first["registered"]["number"])
    _wait(story, number)
    user = _keen(world)
    made = story.get(f"/v1/recommend/users/{user}/items", k=8)
    _show(story, f"{user}, by version {made['model_version']}", made)
    story.check("the list is personal", held=made["source"] == "personal" and made["model_version"] == number)
    _like(story, user, made)
    second = _train(
        story,
        "version 2, to be tried first",
        {**TRAINING, "max_epochs": 8, "gate_below_champion": 0.05, "promote": "never"},
    )
    other = int(second["registered"]["number"])
    _experiment(story, world, number, other)
    _roll_back(story, user, number, other)
    return story.true


def _load(story: _Story, world: Any) -> None:
    later_by_s = int(time.time()) - 3600 - int(world.events.at_s.max())  # the log ends an hour ago
    rows: dict[str, Sequence[Any]] = {
        "items": list(world.item_rows(later_by_s=later_by_s)),
        "users": list(world.user_rows()),
        "events": list(world.event_rows(later_by_s=later_by_s)),
    }
    started = time.perf_counter()
    with Progress(console=story.console, transient=True) as progress:
        for kind, found in rows.items():
            for part in progress.track(list(_parts(found)), description=f"Sending {len(found)} {kind}"):
                send: Callable[..., httpx.Response] = story.client.post if kind == "events" else story.client.put
                _checked(send(f"/v1/recommend/{kind}", json={kind: part}))
    story.say(
        f"Sent {len(rows['items'])} items, {len(rows['users'])} users and {len(rows['events'])} events"
        f" in {time.perf_counter() - started:.1f} s"
    )


def _parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for at in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[at : at + ROWS_AT_ONCE]


def _train(story: _Story, name: str, params: Json) -> Json:
    """Through the queue, as every training goes."""
    job = story.post("/v1/jobs", {"recipe": "recommend.two_tower", "params": params})
    deadline = time.monotonic() + JOB_WITHIN_S
    with Progress(console=story.console, transient=True) as progress:
        task = progress.add_task(f"Training {name}", total=1.0)
        while job["status"] not in {"succeeded", "failed", "dead", "cancelled"} and time.monotonic() < deadline:
            time.sleep(0.3)
            job = story.get(f"/v1/jobs/{job['id']}")
            progress.update(task, completed=job["progress"], description=f"Training {name}: {job['message']}")
    if job["status"] != "succeeded":
        message = f"The job {job['id']} is {job['status']}: {(job.get('error') or {}).get('detail')}"
        raise SystemExit(message)
    result: Json = job["result"]
    metrics = result["metrics"]
    story.say(
        f"Trained {name} in {metrics['cpu_seconds']:.1f} s of CPU: NDCG@10 [bold]{metrics['ndcg_at_10']:.3f}[/],"
        f" popularity alone {metrics['popularity_ndcg_at_10']:.3f} (newest tenth of the log, full ranking, seen removed)"
    )
    return result


def _wait(story: _Story, number: int) -> None:
    """Until the service has taken a version up."""
    deadline = time.monotonic() + TAKEN_UP_WITHIN_S
    while story.get("/v1/recommend/status")["model_version"] != number:
        if time.monotonic() > deadline:
            message = f"Version {number} did not come to serve within {TAKEN_UP_WITHIN_S:g} s."
            raise SystemExit(message)
        time.sleep(0.05)


def _keen(world: Any) -> str:
    """The user with the most likes."""
    user: str = world.user_id(int(np.argmax(np.bincount(world.events.of("like").users))))
    return user


def _like(story: _Story, user: str, made: Json) -> None:
    """A like, and the next list."""
    liked = made["items"][0]["item_id"]
    event = {"event_id": f"demo-{uuid.uuid4()}", "user_id": user, "item_id": liked, "kind": "like"}
    started = time.perf_counter()
    story.post("/v1/recommend/events", {"events": [event]})
    after = story.get(f"/v1/recommend/users/{user}/items", k=8)
    took_ms = 1000 * (time.perf_counter() - started)
    _show(story, f"{user}, {took_ms:.0f} ms after liking {liked}", after)
    same = [each["item_id"] for each in made["items"]] == [each["item_id"] for each in after["items"]]
    story.check("the like changed the list, without any batch", held=not same)
    story.check("what was liked is not offered again", held=liked not in {each["item_id"] for each in after["items"]})


def _experiment(story: _Story, world: Any, control: int, other: int) -> None:
    """Two versions against each other; the generator says what people click on."""
    arms = [{"name": "one", "version": control}, {"name": "two", "version": other}]
    for earlier in story.get("/v1/recommend/experiments")["experiments"]:
        if earlier["status"] == "running" and earlier["name"].startswith("demo "):  # of a demo that was cut off
            story.post(f"/v1/recommend/experiments/{earlier['id']}/stop", {})
    experiment = story.post("/v1/recommend/experiments", {"name": f"demo {uuid.uuid4()}", "arms": arms})
    rng = np.random.default_rng(11)
    users = rng.choice(USERS, IN_THE_EXPERIMENT, replace=False)
    with Progress(console=story.console, transient=True) as progress:
        for user in progress.track(users.tolist(), description=f"{len(users)} users visit"):
            for _ in range(LISTS_EACH):
                _visit(story, world, int(user), rng)
    results = story.get(f"/v1/recommend/experiments/{experiment['id']}/results")
    table = Table("arm", "users", "clicks per item", "likes per item", "distance in a list", title="The experiment")
    for arm in results["arms"]:
        values = [f"{arm['values'].get(name, 0):.3f}" for name in ("click_through_rate", "like_rate", "diversity")]
        table.add_row(arm["name"], str(arm["users"]), *values)
    story.console.print(table)
    found = results["against_control"]["two"]["click_through_rate"]
    interval = (
        "too few users"
        if found["difference"] is None or found["low"] is None
        else f"{found['always_low']:+.3f} to {found['always_high']:+.3f} at any look"
    )
    story.say(f"Clicks, two against one: {found['difference'] or 0.0:+.3f} ({interval}) → [bold]{found['verdict']}[/]")
    seen = {arm["name"]: arm["users"] for arm in results["arms"]}
    story.check(
        "both arms had users, each in one arm only", held=min(seen.values()) > 0 and sum(seen.values()) == len(users)
    )
    promoted = story.post(f"/v1/recommend/experiments/{experiment['id']}/promote", {"arm": "two", "reason": "demo"})
    story.check("the second version was promoted", held=promoted["model_version"] == other)


def _visit(story: _Story, world: Any, user: int, rng: np.random.Generator) -> None:
    """Somebody gets a list and does what the generator says that they would do."""
    made = story.get(f"/v1/recommend/users/{world.user_id(user)}/items", k=PLACES)
    items = np.array([int(each["item_id"].removeprefix("v")) for each in made["items"]], np.int64)
    if not len(items):
        return
    taste = world.hidden.taste(np.array([user]), np.array([float(DAYS)]))[0]
    affinity = world.hidden.item_vectors[items] @ taste
    chance = 0.6 / (1 + np.exp(-7 * (affinity - 0.6)))
    clicked = rng.random(len(items)) < chance
    liked = clicked & (rng.random(len(items)) < np.clip(affinity, 0, 1))
    events = [
        {
            "event_id": f"demo-{uuid.uuid4()}",
            "user_id": world.user_id(user),
            "item_id": world.item_id(int(item)),
            "kind": "like" if likes else "click",
        }
        for item, clicks, likes in zip(items, clicked, liked, strict=True)
        if clicks
    ]
    if events:
        story.post("/v1/recommend/events", {"events": events})


def _roll_back(story: _Story, user: str, number: int, other: int) -> None:
    """Back to the version before, without a restart."""
    _wait(story, other)
    model = story.get("/v1/recommend/status")["model"]
    by_other = story.get(f"/v1/recommend/users/{user}/items", k=8)
    generation = story.get(f"/v1/models/{model}")["champion"]["generation"]
    story.post(f"/v1/models/{model}/rollback", {"generation": generation, "reason": "demo"})
    started = time.perf_counter()
    _wait(story, number)
    by_first = story.get(f"/v1/recommend/users/{user}/items", k=8)
    story.say(f"Rolled back; version {number} served again {time.perf_counter() - started:.1f} s later")
    held = (by_other["model_version"], by_first["model_version"]) == (other, number)
    story.check(f"lists came from version {other}, and come from version {number} again", held=held)


def _show(story: _Story, title: str, made: Json) -> None:
    table = Table("item", "title", "score", "why", title=title)
    for each in made["items"]:
        why = each["reasons"][0]
        table.add_row(each["item_id"], each["title"], f"{each['score']:.2f}", f"{why['en']} · {why['ja']}")
    story.console.print(table)


def _why(made: Json) -> str:
    return (
        "; ".join(f"no {each['source']} list: {each['why']}" for each in made["passed_over"])
        or "nothing stood in its way"
    )


def _checked(answer: httpx.Response) -> Json:
    if answer.is_error:
        message = f"{answer.request.method} {answer.request.url.path} was answered {answer.status_code}: {answer.text}"
        raise SystemExit(message)
    document: Json = answer.json()
    return document
