"""``/v1/recommend``: what versions are made of, what refreshes did, what moved a score."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import select

from genba_recommend import store
from genba_recommend.counterfactuals import Outcome, Policy, drawn_lists, judge
from genba_recommend.explaining import explain
from genba_recommend.plots import importance_svg
from genba_recommend.routes_catalogue import Reader, UserId
from genba_recommend.routes_lists import ItemId
from genba_recommend.schemas import ExplanationOut, ImportanceOut, ImportanceRow, RefreshLine, RefreshLogOut
from genba_recommend.schemas_experiments import OffPolicyOut
from genba_recommend.service import Here, Recommender
from genba_recommend.shop import model_of
from genba_recommend.tables import FeatureImportance, RefreshLog
from genba_shared.principal import Principal
from genba_shared.problems import Conflict, NotFound
from genba_shared.service import problem_responses

router = APIRouter(prefix="/v1/recommend", tags=["recommend models"])

VersionNumber = Annotated[int, Path(ge=1, le=2**31 - 1, description="Of the model.")]
SVG = "image/svg+xml"


@router.get("/models/{version}/importance", responses=problem_responses(404))
def get_importance(version: VersionNumber, here: Here, principal: Reader) -> ImportanceOut:
    """What each feature is worth to a version, as `recommend.evaluate` measured it."""
    rows = _importances(here, principal, version)
    features = [ImportanceRow(feature=row.feature, importance=row.importance, spread=row.spread) for row in rows]
    return ImportanceOut(
        model=model_of(principal.tenant), model_version=version, metric=rows[0].metric, features=features
    )


@router.get(
    "/models/{version}/importance.svg",
    response_class=Response,
    responses={200: {"content": {SVG: {}}, "description": "Bars, the greatest first."}, **problem_responses(404)},
)
def plot_importance(version: VersionNumber, here: Here, principal: Reader) -> Response:
    """The same as a picture."""
    rows = _importances(here, principal, version)
    return Response(importance_svg({row.feature: (row.importance, row.spread) for row in rows}), media_type=SVG)


@router.get("/models/{version}/offpolicy", responses=problem_responses(404, 409, 410))
def estimate_version(
    version: VersionNumber,
    here: Here,
    principal: Reader,
    outcome: Annotated[Outcome, Query(description="Of an item within a day of being shown.")] = "click",
    policy: Annotated[
        Policy, Query(description="`drawn`: as an exploring list draws; `best`: the version's best candidate.")
    ] = "drawn",
    days: Annotated[int, Query(ge=1, le=365, description="How far back lists are read, as far as they are kept.")] = 14,
) -> OffPolicyOut:
    """What places left to chance would have earned under a version, from lists that were made with `explore`.

    It needs no experiment: chance, whose odds are logged, has shown a little of what every version would show.
    """
    shop = here.shop_of(principal)
    made_at = here.registry.get(shop.model, version).created_at
    shop.exposures.flush()
    view = shop.view
    aligned = shop.laid(view, version)
    with here.database.read() as session:
        drawn = drawn_lists(session, shop.tenant, since=store.now() - timedelta(days=days))
        found = judge(
            session, shop.tenant, aligned, view.shelf, drawn, made_at=made_at, outcome=outcome, policy=policy
        )  # fmt: skip
    return OffPolicyOut.model_validate(
        {
            **vars(found),
            "model": shop.model, "model_version": version, "outcome": outcome, "policy": policy, "days": days,
            "effective_places": found.ips.effective_n, "mean_weight": found.ips.support,
        }
    )  # fmt: skip


@router.get("/refresh-log", responses=problem_responses())
def get_refresh_log(here: Here, principal: Reader, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> RefreshLogOut:
    """What refreshes did, the newest first; lines are kept for seven days. Those that name items above your clearance are left out."""
    mine = (RefreshLog.tenant == principal.tenant, RefreshLog.clearance <= int(principal.clearance))
    query = select(RefreshLog).where(*mine).order_by(RefreshLog.id.desc()).limit(limit)
    with here.database.read() as session:
        return RefreshLogOut(
            lines=[RefreshLine.model_validate(row, from_attributes=True) for row in session.scalars(query)]
        )


@router.get("/users/{user_id}/items/{item_id}/explanation", responses=problem_responses(404, 409))
def explain_item(user_id: UserId, item_id: ItemId, here: Here, principal: Reader) -> ExplanationOut:
    """What moved the score of an item for a user: which items of the history, which parts of the profile, and popularity.

    Items of the history above your clearance are left out.
    """
    shop = here.shop_of(principal)
    person, view = shop.person(user_id), shop.view
    aligned = view.models.get(view.champion) if view.champion is not None else None
    if aligned is None:
        raise Conflict("No model serves yet: train one with the recipe recommend.two_tower.")
    row = view.shelf.row(item_id)
    if row is None or view.shelf.clearance[row] > principal.clearance or not aligned.present[row]:
        raise NotFound(f"There is no item {item_id} with a vector.")
    titles = [entry.item.title or entry.item.item_id for entry in view.shelf.entries]
    found = explain(aligned, person, row, ids=view.shelf.ids, titles=titles, now_s=view.now_s)
    hidden = {view.shelf.ids[at] for at in np.flatnonzero(view.shelf.clearance > principal.clearance)}
    return ExplanationOut.model_validate(
        {
            "user_id": user_id, "item_id": item_id, "model": shop.model, "model_version": aligned.model.number,
            "score": found.score, "moved": [each for each in found.moved if each.item_id not in hidden],
        },
        from_attributes=True,
    )  # fmt: skip


def _importances(here: Recommender, principal: Principal, version: int) -> Sequence[FeatureImportance]:
    model = model_of(principal.tenant)
    query = select(FeatureImportance).where(FeatureImportance.model == model, FeatureImportance.version == version)
    with here.database.read() as session:
        rows = session.scalars(query.order_by(FeatureImportance.importance.desc())).all()
    if not rows:
        raise NotFound(f"Version {version} has not been evaluated: run recommend.evaluate with it.")
    return rows
