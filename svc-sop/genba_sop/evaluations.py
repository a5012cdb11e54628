"""Score a stored video against a procedure and write down everything that a person may ask about it later.

References are fitted once per procedure version and set of golds, kept as artifacts and in memory. Reading and
computing happen outside
any transaction; the record appears in one, or not at all. Knows nothing of HTTP, pictures or languages.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from genba_shared import records
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database, utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Principal
from genba_shared.problems import Conflict, EncoderMismatch, NotFound
from genba_sop import reference as references
from genba_sop import store
from genba_sop.bundles import unpack_features
from genba_sop.evaluation import Deviation, Evaluation, StepResult
from genba_sop.features import Features
from genba_sop.ingest import artifact_key
from genba_sop.procedure import Procedure, Span, Step, Text
from genba_sop.procedures import Registered, registered, spans_of
from genba_sop.reference import Gold, Reference
from genba_sop.review import calibration
from genba_sop.rows import moments_s
from genba_sop.scoring import Policy, evaluate
from genba_sop.tables import EvaluationRow, ProcedureRow, ReferenceRow, Video

MODEL_VERSION: Final = f"rules-1.{references.FORMAT}"


@dataclass(frozen=True)
class Asked:
    """What is to be scored, and for whom."""

    principal: Principal
    procedure_id: str
    video_id: str
    operator: str | None = None


@dataclass(frozen=True)
class _Case:
    """What is read before anything is computed."""

    registered: Registered
    golds: tuple[Video, ...]
    trainee: Video
    policy: Policy


@dataclass(frozen=True)
class Scored:
    """An evaluation that only has to be written."""

    asked: Asked
    case: _Case
    reference: Reference
    evaluation: Evaluation
    path_s: list[tuple[float, float]]  # the trace's pairs as times in gold and trainee
    timings_ms: dict[str, float]


class References:
    """Fitted references: in memory, as artifacts, or fitted now. One fit per key at a time."""

    def __init__(self, database: Database, artifacts: Artifacts, *, kept: int) -> None:
        self._database, self._artifacts, self._kept = database, artifacts, kept
        self._memory: OrderedDict[str, Reference] = OrderedDict()
        self._lock = threading.Lock()
        self._fitting: dict[str, threading.Lock] = {}

    def get(self, found: Registered, golds: Sequence[Video], features: Callable[[Video], Features]) -> Reference:
        """The reference of a procedure version with its golds.

        Raises:  Conflict when the golds do not make one.
        """
        key = _key(found, golds)
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
            fitting = self._fitting.setdefault(key, threading.Lock())
        with fitting:
            with self._lock:
                if key in self._memory:
                    return self._memory[key]
            try:
                made = self._stored(key) or self._fit(key, found, golds, features)
            finally:
                with self._lock:
                    self._fitting.pop(key, None)
            with self._lock:
                self._memory[key] = made
                while len(self._memory) > self._kept:
                    self._memory.popitem(last=False)
        return made

    def peek(self, found: Registered, golds: Sequence[Video]) -> Reference | None:
        """The reference if it is in memory."""
        with self._lock:
            return self._memory.get(_key(found, golds))

    def _stored(self, key: str) -> Reference | None:
        with self._database.read() as session:
            row = session.get(ReferenceRow, key)
        if row is None:
            return None
        try:
            with self._artifacts.open(row.artifact_key) as file:
                return Reference.from_bytes(file.read())
        except NotFound:  # the golds have just changed, and it has been erased
            return None

    def _fit(
        self, key: str, found: Registered, golds: Sequence[Video], features: Callable[[Video], Features]
    ) -> Reference:
        try:
            shown = [Gold(features(video), spans_of(gold)) for gold, video in zip(found.golds, golds, strict=True)]
            made = references.fit(found.procedure, shown)
        except ValueError as err:
            raise Conflict(f"The golds of procedure {found.row.id} do not make a reference: {err}") from err
        self._keep(key, found, made.to_bytes())
        return made

    def _keep(self, key: str, fitted: Registered, data: bytes) -> None:
        """Store a reference for other processes, unless its golds have changed meanwhile. Losing it only costs a
        fit.
        """
        address = artifact_key(hashlib.sha256(data).hexdigest(), ".npz")
        with self._database.transaction() as session:
            store.promise_erasure(session, "artifact", address, after_s=store.RESERVATION_S)
        self._artifacts.put(data, suffix=".npz")
        try:
            with self._database.transaction() as session:
                row = session.get(ProcedureRow, fitted.row.id, with_for_update=True)
                if row is None or key != _current_key(session, row):
                    return
                store.keep_artifacts(session, [address])
                session.merge(ReferenceRow(key=key, procedure_id=row.id, artifact_key=address, created_at=utc_now()))
        except IntegrityError:  # another process has kept the same one
            return

    def forget(self, procedure_id: str) -> None:
        """Drop what this process has in memory of a procedure's golds."""
        with self._lock:
            for key in [key for key, kept in self._memory.items() if kept.procedure.id == procedure_id]:
                del self._memory[key]


def _current_key(session: Session, row: ProcedureRow) -> str:
    found = registered(session, row)
    return _key(found, store.videos_of(session, found.golds))


def _key(found: Registered, golds: Sequence[Video]) -> str:
    """Named by everything that it depends on, so that it never goes stale."""
    depends = {
        "model": MODEL_VERSION,
        "procedure": asdict(found.procedure),
        "golds": [[video.features_key, gold.spans] for gold, video in zip(found.golds, golds, strict=True)],
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


class Evaluations:
    """Scores videos of one installation."""

    def __init__(
        self,
        database: Database,
        artifacts: Artifacts,
        *,
        references_kept: int,
        coverage: float = 0.9,
    ) -> None:
        self._database, self._artifacts = database, artifacts
        self._references = References(database, artifacts, kept=references_kept)
        self._coverage = coverage

    def features(self, video: Video) -> Features:
        """The stored features of a video."""
        with self._artifacts.open(video.features_key) as file:
            return unpack_features(file)

    def forget(self, procedure_id: str) -> None:
        """Drop what this process has in memory of a procedure's golds."""
        self._references.forget(procedure_id)

    def outliers(self, session: Session, found: Registered) -> list[str]:
        """Ids of golds that lie far from the others; none while the golds have not been fitted here."""
        golds = store.videos_of(session, found.golds)
        fitted = self._references.peek(found, golds)
        marks = [each.partition(":") for each in fitted.warnings] if fitted else []
        return [found.golds[int(number)].id for kind, _, number in marks if kind == "gold_outlier"]

    def warm(self, principal: Principal, procedure_id: str) -> None:
        """Fit the reference of a procedure's current golds before somebody waits for it. Without golds, nothing."""
        with self._database.read() as session:
            found = registered(session, records.get(session, ProcedureRow, procedure_id, principal))
            golds = store.videos_of(session, found.golds)
        if golds:
            self._references.get(found, golds, self.features)

    def score(self, asked: Asked) -> Scored:
        """Read and compute; nothing is written.

        Raises:  NotFound; Conflict without golds; EncoderMismatch.
        """
        started_s = time.perf_counter()
        case = self._read(asked)
        trainee = self.features(case.trainee)
        loaded_s = time.perf_counter()
        reference = self._references.get(case.registered, case.golds, self.features)
        ready_s = time.perf_counter()
        try:
            evaluation = evaluate(reference, trainee, policy=case.policy)
        except ValueError as err:
            raise Conflict(f"Video {case.trainee.id} cannot be scored: {err}") from err
        path_s = path_in_seconds(evaluation, reference, trainee)
        done_s = time.perf_counter()
        timings_ms = {
            "load_ms": 1000 * (loaded_s - started_s),
            "reference_ms": 1000 * (ready_s - loaded_s),
            "evaluate_ms": 1000 * (done_s - ready_s),
        }
        return Scored(asked, case, reference, evaluation, path_s, timings_ms)

    def _read(self, asked: Asked) -> _Case:
        principal = asked.principal
        with self._database.read() as session:
            found = registered(session, records.get(session, ProcedureRow, asked.procedure_id, principal))
            trainee = records.get(session, Video, asked.video_id, principal)
            if not found.golds:
                raise Conflict(f"Procedure {asked.procedure_id} has no gold run yet: attach one, then score.")
            golds = store.videos_of(session, found.golds)
            label = max(found.row.clearance, trainee.clearance)
            policy = Policy(coverage=self._coverage, calibration=calibration(session, principal.tenant, label))
        if trainee.encoder != golds[0].encoder:
            raise EncoderMismatch(
                f"Video {trainee.id} was embedded by {trainee.encoder}, the golds by {golds[0].encoder}: "
                "ingest one of them again.",
                encoder=trainee.encoder,
                expected=golds[0].encoder,
            )
        return _Case(found, golds, trainee, policy)

    def write(self, session: Session, scored: Scored, *, created_by: str | None = None) -> EvaluationRow:
        """The record, inside the caller's transaction.

        Raises:  NotFound when procedure or video have gone since they were read.
        """
        started_s = time.perf_counter()
        asked, found = scored.asked, scored.case.registered
        procedure = records.get(session, ProcedureRow, found.row.id, asked.principal)
        video = records.get(session, Video, scored.case.trainee.id, asked.principal)
        evaluation = scored.evaluation
        row = EvaluationRow(
            id=new_id("eval"),
            tenant=asked.principal.tenant,
            clearance=max(procedure.clearance, video.clearance),
            created_at=utc_now(),
            created_by=created_by or asked.principal.subject,
            procedure_id=procedure.id,
            procedure_version=found.version,
            video_id=video.id,
            operator=asked.operator,
            verdict=evaluation.verdict,
            reviewed_verdict=None,
            score=evaluation.score,
            raw_score=evaluation.raw_score,
            encoder=evaluation.encoder,
            model_version=MODEL_VERSION,
            document=document(scored),
            timings_ms={},
        )
        timings_ms = {**scored.timings_ms, "store_ms": 1000 * (time.perf_counter() - started_s)}
        row.timings_ms = {name: round(value, 2) for name, value in timings_ms.items()}
        row.timings_ms["total_ms"] = round(sum(timings_ms.values()), 2)
        session.add(row)
        session.flush()
        return row


def path_in_seconds(evaluation: Evaluation, reference: Reference, trainee: Features) -> list[tuple[float, float]]:
    """The trace's pairs of frames as pairs of seconds, in the reference gold and in the trainee's video."""
    edges = reference.golds[evaluation.trace.gold_index].rows.edges
    gold_s, trainee_s = (edges[1:] + edges[:-1]) / 2, moments_s(trainee)
    return [(round(float(gold_s[i]), 2), round(float(trainee_s[j]), 2)) for i, j in evaluation.trace.path]


def document(scored: Scored) -> dict[str, Any]:
    """The whole of an evaluation as JSON, with the names that were true when it was made."""
    found, evaluation = scored.case.registered, scored.evaluation
    votes = zip(found.golds, evaluation.gold_votes, strict=True)
    return described(
        evaluation,
        found.procedure,
        gold_video_id=found.golds[evaluation.trace.gold_index].video_id,
        gold_spans=scored.reference.spans(evaluation.trace.gold_index),
        gold_duration_s=scored.case.golds[evaluation.trace.gold_index].duration_s,
        level=scored.case.policy.coverage,
    ) | {
        "golds": [{"gold_id": gold.id, "video_id": gold.video_id, "vote": vote} for gold, vote in votes],
        "trainee_duration_s": scored.case.trainee.duration_s,
        "path_s": [list(pair) for pair in scored.path_s],
    }


def described(
    evaluation: Evaluation,
    procedure: Procedure,
    *,
    gold_video_id: str,
    gold_spans: Sequence[Span],
    gold_duration_s: float,
    level: float,
) -> dict[str, Any]:
    """What an evaluation says of one procedure, as JSON."""
    steps = {step.id: step for step in procedure.steps}
    low, high = evaluation.interval
    return {
        "procedure_title": asdict(procedure.title),
        "reasons": list(evaluation.reasons),
        "interval": {"low": low, "high": high, "level": level, "calibrated": evaluation.calibrated},
        "steps": [_step(result, steps[result.step_id]) for result in evaluation.steps],
        "deviations": [_deviation(index, each, steps) for index, each in enumerate(evaluation.deviations)],
        "trace": {
            "gold_video_id": gold_video_id,
            "path": [list(pair) for pair in evaluation.trace.path],
            "cost": [round(cost, 4) for cost in evaluation.trace.cost],
        },
        "gold_spans": [_span(span) for span in gold_spans],
        "gold_duration_s": gold_duration_s,
    }


def _step(result: StepResult, step: Step) -> dict[str, Any]:
    return {
        "step_id": result.step_id,
        "name": asdict(step.name),
        "status": result.status,
        "quality": result.quality,
        "spans": [_span(span) for span in result.spans],
        "duration_s": result.duration_s,
        "gold_duration_s": result.gold_duration_s,
    }


def _deviation(index: int, deviation: Deviation, steps: dict[str, Step]) -> dict[str, Any]:
    step = steps.get(deviation.step_id) if deviation.step_id else None
    return {
        "index": index,
        **asdict(deviation),
        "step_name": asdict(step.name) if step else None,
        "action": asdict(step.action if step else Text("")),
    }


def _span(span: Span) -> dict[str, Any]:
    return {"id": span.step_id, "start_s": span.start_s, "end_s": span.end_s}
