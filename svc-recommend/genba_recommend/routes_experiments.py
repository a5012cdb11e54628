"""``/v1/recommend/experiments``: put users into arms, look at what came of it, stop, promote the better version."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, status
from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_recommend import store
from genba_recommend.analysis import Difference
from genba_recommend.experiments import Experiment
from genba_recommend.measuring import Measured, measure
from genba_recommend.routes_catalogue import Reader, Writer
from genba_recommend.schemas_experiments import (
    ArmOut,
    DifferenceOut,
    ExperimentIn,
    ExperimentOut,
    ExperimentPage,
    PromotedOut,
    PromoteIn,
    ResultsOut,
)
from genba_recommend.service import Here
from genba_recommend.shop import Shop
from genba_recommend.tables import ExperimentRow
from genba_shared.audit import append_in
from genba_shared.db import take_turns
from genba_shared.ids import new_id
from genba_shared.patterns import pattern
from genba_shared.problems import AlreadyExists, Conflict, Invalid, NotFound, ScopeMissing
from genba_shared.service import problem_responses

router = APIRouter(prefix="/v1/recommend/experiments", tags=["recommend experiments"])

ExperimentId = Annotated[
    str, Path(pattern=pattern(r"^exp_[0-9a-z]{1,30}$", "must be an experiment's id as answers give it: exp_…"))
]
MOST_LISTED = 200


@router.post("", status_code=status.HTTP_201_CREATED, responses=problem_responses(404, 409, 410))
def start_experiment(body: ExperimentIn, here: Here, principal: Writer) -> ExperimentOut:
    """Start an experiment: every user falls into an arm by a hash of ids, and stays there. The first arm is the control.

    An arm without a version takes the one that serves now, and keeps it when another is promoted.
    """
    shop = here.shop_of(principal)
    serving = shop.view.champion
    arms = [arm.model_dump() for arm in body.arms]
    for index, arm in enumerate(arms):
        if arm["lists"] == "personal" and arm["version"] is None:
            if serving is None:
                message = "no model serves yet: name a version, or another kind of lists"
                raise Invalid("An arm has no model.", errors=[{"field": f"arms.{index}.version", "message": message}])
            arm["version"] = serving
        if arm["version"] is not None and arm["version"] not in shop.view.models:
            shop.load_version(arm["version"])  # one that does not load is refused now, not found out by users
    row = ExperimentRow(
        id=new_id("exp"), tenant=shop.tenant, name=body.name, status="running", share=body.share, arms=arms,
        created_by=principal.subject, started_at=store.now(), stopped_at=None, outcome=None,
    )  # fmt: skip
    with here.database.transaction() as session:
        take_turns(session, f"recommend experiments of {shop.tenant}")
        named = (
            ExperimentRow.tenant == shop.tenant,
            ExperimentRow.status == "running",
            ExperimentRow.name == body.name,
        )
        if session.scalar(select(ExperimentRow.id).where(*named)) is not None:
            raise AlreadyExists(
                f"An experiment {body.name!r} is running already: stop it first, or choose another name."
            )
        session.add(row)
        append_in(
            session, "recommend.experiment_started", actor=principal.subject, subject=row.id, detail={"name": body.name}
        )
        started = Experiment.of(row)
    shop.reload_experiments()
    return _out(started)


@router.get("", responses=problem_responses())
def list_experiments(here: Here, principal: Reader) -> ExperimentPage:
    """The newest experiments first, up to 200."""
    query = select(ExperimentRow).where(ExperimentRow.tenant == principal.tenant).order_by(ExperimentRow.id.desc())
    with here.database.read() as session:
        return ExperimentPage(
            experiments=[_out(Experiment.of(row)) for row in session.scalars(query.limit(MOST_LISTED))]
        )


@router.get("/{experiment_id}", responses=problem_responses(404))
def get_experiment(experiment_id: ExperimentId, here: Here, principal: Reader) -> ExperimentOut:
    """An experiment and its arms."""
    with here.database.read() as session:
        return _out(Experiment.of(_row(session, principal.tenant, experiment_id)))


@router.get("/{experiment_id}/results", responses=problem_responses(404))
def get_results(experiment_id: ExperimentId, here: Here, principal: Reader) -> ResultsOut:
    """What came of it so far. `always_low` and `always_high` hold however often you look; `low` and `high` for one planned look."""
    shop = here.shop_of(principal)
    shop.exposures.flush()
    with here.database.read() as session:
        experiment = Experiment.of(_row(session, principal.tenant, experiment_id))
        return results_of(experiment, measure(session, principal.tenant, experiment))


@router.post("/{experiment_id}/stop", responses=problem_responses(404, 409))
def stop_experiment(experiment_id: ExperimentId, here: Here, principal: Writer) -> ExperimentOut:
    """End it: users get what everybody gets again. Results can be read as long as shown lists are kept, 90 days as shipped."""
    shop = here.shop_of(principal)
    shop.exposures.flush()
    with here.database.transaction() as session:
        stopped = _stop(session, shop, experiment_id, by=principal.subject, outcome={})
    shop.reload_experiments()
    return _out(stopped)


@router.post("/{experiment_id}/promote", responses=problem_responses(404, 409, 410))
def promote_arm(experiment_id: ExperimentId, body: PromoteIn, here: Here, principal: Writer) -> PromotedOut:
    """Make an arm's version the champion, and end the experiment. Needs models:write too. Rolling back is /v1/models' business."""
    if not principal.allows("models:write"):
        raise ScopeMissing("This needs the scope models:write.", scope="models:write")
    shop = here.shop_of(principal)
    shop.exposures.flush()
    with here.database.read() as session:
        experiment = Experiment.of(_row(session, shop.tenant, experiment_id))
    arm = next((arm for arm in experiment.arms if arm.name == body.arm), None)
    if arm is None or arm.version is None:
        message = "names no arm of this experiment that has a version"
        raise Invalid(f"{body.arm!r} {message}.", errors=[{"field": "arm", "message": message}])
    if experiment.status != "running":
        raise Conflict(f"Experiment {experiment_id} has ended.")
    reason = body.reason or f"arm {arm.name} of experiment {experiment.name}"
    pointer = here.registry.promote(shop.model, arm.version, by=principal.subject, reason=reason, viewer=principal)
    with here.database.transaction() as session:
        stopped = _stop(session, shop, experiment_id, by=principal.subject, outcome={"promoted": arm.name})
    shop.live.refresh()
    shop.reload_experiments()
    return PromotedOut(
        experiment=_out(stopped), model=shop.model, model_version=arm.version, generation=pointer.generation
    )


def _stop(session: Session, shop: Shop, experiment_id: str, *, by: str, outcome: dict[str, Any]) -> Experiment:
    row = _row(session, shop.tenant, experiment_id, lock=True)
    if row.status != "running":
        raise Conflict(f"Experiment {experiment_id} has ended.")
    row.status, row.stopped_at, row.outcome = "stopped", store.now(), outcome
    append_in(session, "recommend.experiment_stopped", actor=by, subject=row.id, detail=outcome)
    return Experiment.of(row)


def _row(session: Session, tenant: str, experiment_id: str, *, lock: bool = False) -> ExperimentRow:
    query = select(ExperimentRow).where(ExperimentRow.id == experiment_id, ExperimentRow.tenant == tenant)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"There is no experiment {experiment_id}.")
    return row


def _out(experiment: Experiment) -> ExperimentOut:
    return ExperimentOut.model_validate(experiment, from_attributes=True)


def results_of(experiment: Experiment, measured: Measured) -> ResultsOut:
    """The analysis as the wire shows it."""
    return ResultsOut(
        experiment=_out(experiment),
        arms=[ArmOut.model_validate(asdict(arm)) for arm in measured.arms],
        against_control={
            name: {metric: _difference(found) for metric, found in metrics.items()}
            for name, metrics in measured.against_control.items()
        },
        sample_ratio_p=measured.sample_ratio_p,
    )


def _difference(found: Difference) -> DifferenceOut:
    """Nan is null on the wire."""
    values = asdict(found)
    return DifferenceOut.model_validate(
        {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
    )
