"""``/v1/recommend``: lists for users and sessions, similar, popular and trending items.

Lists are made on the event loop: they touch memory only, and take a millisecond where a thread's turn would take as long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Path, Query, Request, Response

from genba_recommend import lists, store
from genba_recommend.catalogue import Wanted
from genba_recommend.experiments import Arm, Experiment, assign
from genba_recommend.lists import Ask, Listed, Made
from genba_recommend.query import parameters_of, read_query
from genba_recommend.routes_catalogue import Reader, UserId, Writer
from genba_recommend.schemas import ID_PATTERN, EmbeddingOut, Filters, ListOut, ListQuery, SessionIn, Status
from genba_recommend.service import Here, Recommender
from genba_recommend.shop import Shop
from genba_recommend.staleness import user_hash
from genba_recommend.view import View
from genba_shared.ids import new_id
from genba_shared.principal import Clearance, Principal
from genba_shared.problems import Conflict, NotFound
from genba_shared.service import problem_responses

router = APIRouter(prefix="/v1/recommend", tags=["recommend lists"])

ItemId = Annotated[str, Path(pattern=ID_PATTERN)]


class SharedQuery(Filters):
    """How a list is made that does not depend on the user."""

    k: Annotated[int, Query(ge=1, le=200)] = 20


class SimilarQuery(SharedQuery):
    """How a list of similar items is made."""

    diversity: Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)] = None


@router.get(
    "/users/{user_id}/items",
    response_model=ListOut,
    responses=problem_responses(404),
    openapi_extra=parameters_of(ListQuery),
)
async def list_for_user(request: Request, user_id: UserId, here: Here, principal: Reader) -> Response:
    """A list for a user, by the version that serves or the arm that they are in.

    Somebody unknown gets what users alike, trends or everybody give; `passed_over` says why nothing better was at hand.
    """
    query = read_query(ListQuery, request)
    shop = await _shop(here, principal)
    person = shop.people.here(user_id)
    if person is None:
        person = await asyncio.to_thread(shop.person, user_id)
    view = shop.view
    ask = _ask_personal(here, view, principal, query)
    found = assign(view.experiments, user_id) if view.experiments else None
    if found is not None:
        ask = _as_the_arm_says(ask, found[1], query)
    made = lists.for_person(view, person, ask, _rng(ask), shop.discovery)
    return _answer(here, shop, made, _Shown(user_id, found, ask.explore > 0))


@router.post("/sessions/items", response_model=ListOut, responses=problem_responses(404))
async def list_for_session(body: SessionIn, here: Here, principal: Reader) -> Response:
    """A list for somebody anonymous, from the items of this session. Nothing of it is kept."""
    shop = await _shop(here, principal)
    ask = _ask_personal(here, shop.view, principal, body)
    return _answer(here, shop, lists.for_person(shop.view, shop.session_of(body.items), ask, _rng(ask)))


@router.get(
    "/items/{item_id}/similar",
    response_model=ListOut,
    responses=problem_responses(404),
    openapi_extra=parameters_of(SimilarQuery),
)
async def list_similar(request: Request, item_id: ItemId, here: Here, principal: Reader) -> Response:
    """Items like one item."""
    query = read_query(SimilarQuery, request)
    shop = await _shop(here, principal)
    view = shop.view
    row = view.shelf.row(item_id)
    if row is None or view.shelf.clearance[row] > principal.clearance:
        raise NotFound(f"There is no item {item_id}.")
    ask = _ask(here, view, principal, query, diversity=query.diversity)
    return _answer(here, shop, lists.similar(view, row, ask))


@router.get("/popular", response_model=ListOut, responses=problem_responses(), openapi_extra=parameters_of(SharedQuery))
async def list_popular(request: Request, here: Here, principal: Reader) -> Response:
    """What is popular with everybody, over months; where nothing is known, the newest."""
    return await _shared(here, principal, read_query(SharedQuery, request), "popular")


@router.get(
    "/trending", response_model=ListOut, responses=problem_responses(), openapi_extra=parameters_of(SharedQuery)
)
async def list_trending(request: Request, here: Here, principal: Reader) -> Response:
    """What is taken up now, over days; filled up with what is popular."""
    return await _shared(here, principal, read_query(SharedQuery, request), "trending")


@router.post("/users/{user_id}/embedding", responses=problem_responses(404, 409))
def embed_user(user_id: UserId, here: Here, principal: Writer) -> EmbeddingOut:
    """Compute and keep a user's vector under the version that serves. Lists never wait for this: they compute their own."""
    shop = here.shop_of(principal)
    person, view = shop.person(user_id), shop.view
    aligned = view.models.get(view.champion) if view.champion is not None else None
    if aligned is None:
        raise Conflict("No model serves yet: train one with the recipe recommend.two_tower.")
    rows, _ = aligned.window(person, aligned.model.history_len)
    if not len(rows) and not person.user.age_range and not person.user.region:
        raise NotFound(f"Nothing is known of the user {user_id} that a vector could be made from.")
    vector = aligned.model.embed_user(person, aligned)
    made_from = user_hash(person.user, [(view.shelf.ids[row], did.weight) for row, did in person.history])
    with here.database.transaction() as session:
        kept = store.Vector(user_id, made_from, vector)
        store.put_vectors(session, shop.tenant, aligned.model.number, "user", [kept])
    return EmbeddingOut(
        user_id=user_id,
        model=shop.model,
        model_version=aligned.model.number,
        history=len(rows),
        vector=[round(float(x), 7) for x in vector],
    )


@router.get("/status", responses=problem_responses())
def get_status(here: Here, principal: Reader) -> Status:
    """What this process serves: the version, the index, the size of the catalogue."""
    return Status.model_validate(here.shop_of(principal).status(), from_attributes=True)


async def _shop(here: Recommender, principal: Principal) -> Shop:
    shop = here.shops.get(principal.tenant)
    return shop if shop is not None else await asyncio.to_thread(here.open_shop, principal.tenant)


async def _shared(
    here: Recommender, principal: Principal, query: SharedQuery, start: Literal["trending", "popular"]
) -> Response:
    shop = await _shop(here, principal)
    ask = replace(_ask(here, shop.view, principal, query, diversity=0.0), start=start)
    return _answer(here, shop, lists.for_person(shop.view, shop.session_of(()), ask, _rng(ask)))


def _ask(here: Recommender, view: View, principal: Principal, query: Any, *, diversity: float | None) -> Ask:
    """What the caller wants, never above their own clearance."""
    label = (
        principal.clearance if query.clearance is None else min(principal.clearance, Clearance.parse(query.clearance))
    )
    wanted = Wanted(
        genre=tuple(query.genre),
        maker=tuple(query.maker),
        tags=tuple(query.tags),
        performers=tuple(query.performers),
        region=query.region,
        price_min=query.price_min,
        price_max=query.price_max,
        duration_min_s=query.duration_min_s,
        duration_max_s=query.duration_max_s,
        clearance=int(label),
    )
    exclude = tuple(row for item_id in query.exclude if (row := view.shelf.row(item_id)) is not None)
    spread = here.settings.diversity if diversity is None else diversity
    return Ask(wanted, query.k, diversity=spread, exclude=exclude)


def _ask_personal(here: Recommender, view: View, principal: Principal, query: ListQuery) -> Ask:
    """What the caller wants of a list for one person."""
    ask = _ask(here, view, principal, query, diversity=query.diversity)
    return replace(
        ask,
        explore=query.explore,
        discover=query.discover or "sometimes",
        drop_seen=query.seen == "removed",
        aim=query.aim,
        predict=query.predict,
    )


def _as_the_arm_says(ask: Ask, arm: Arm, query: ListQuery) -> Ask:
    """An arm decides what the caller leaves open, and always which version or list it is."""
    return replace(
        ask,
        version=arm.version,
        start=arm.lists,
        diversity=ask.diversity if arm.diversity is None or query.diversity is not None else arm.diversity,
        explore=ask.explore if arm.explore is None else arm.explore,
        discover=ask.discover if arm.discover is None or query.discover is not None else arm.discover,
    )


def _rng(ask: Ask) -> np.random.Generator:
    return np.random.default_rng() if ask.explore > 0 else _UNUSED


_UNUSED = np.random.default_rng(0)  # nothing is drawn from it


@dataclass(frozen=True)
class _Shown:
    """To whom a list is shown, and whether it has to be noted."""

    user_id: str
    found: tuple[Experiment, Arm] | None
    by_chance: bool


def _answer(here: Recommender, shop: Shop, made: Made, shown: _Shown | None = None) -> Response:
    list_id = new_id("lst")
    aligned, found = made.aligned, None if shown is None else shown.found
    here.counters.lists.labels(made.source).inc()
    if shown is not None and (found is not None or shown.by_chance):
        shop.exposures.add(_exposure(shop, made, shown, list_id))
    return Response(
        orjson.dumps(
            {
                "list_id": list_id,
                "items": [_written(item) for item in made.items],
                "source": made.source,
                "aim": made.aim,
                "passed_over": made.passed_over,
                "model": None if aligned is None else shop.model,
                "model_version": None if aligned is None else aligned.model.number,
                "index": None if aligned is None else aligned.index.name,
                "experiment": None if found is None else {"experiment_id": found[0].id, "arm": found[1].name},
            }
        ),
        media_type="application/json",
    )


def _written(item: Listed) -> dict[str, Any]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "score": item.score,
        "source": item.source,
        "propensity": item.propensity,
        "reasons": [reason.json for reason in item.reasons],
        "predicted": item.predicted,
    }


def _exposure(shop: Shop, made: Made, shown: _Shown, list_id: str) -> dict[str, Any]:
    chances: Sequence[float] = [item.propensity for item in made.items]
    return {
        "tenant": shop.tenant,
        "list_id": list_id,
        "user_id": shown.user_id,
        "experiment_id": shown.found[0].id if shown.found else None,
        "arm": shown.found[1].name if shown.found else None,
        "version": None if made.aligned is None else made.aligned.model.number,
        "source": made.source,
        "items": [item.item_id for item in made.items],
        "propensities": list(chances) if made.among else None,
        "candidates": [made.view.shelf.ids[row] for row in made.among] or None,
        "diversity": made.distance,
        "at": store.now(),
    }
