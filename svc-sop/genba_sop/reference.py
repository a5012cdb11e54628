"""A procedure's golds, prepared once: where each step lies in each gold and what golds look like against each other.

Everything that depends only on the procedure and its golds is computed in ``fit`` and kept, as bytes without pickle.
Knows nothing of trainees, thresholds or scores.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from genba_sop.decoding import Chart
from genba_sop.features import Features
from genba_sop.gold_scene import RECENT_STEPS, GoldScene, Laid, filmstrip, fit_scene, rows_by_step
from genba_sop.hurried import LEFT_OUT
from genba_sop.manner import LEAST_CELL_SPREAD, LEAST_RESIDUAL_SPREAD, Spread, manner, spread_of
from genba_sop.mirroring import mirrored
from genba_sop.nulls import Null, fit_null
from genba_sop.observation import GoldRun, Mask, Observation, before, chart_of, mean_over_golds, observe, penalties_at
from genba_sop.performances import Holds, holds_of, idling, pauses, stillness, stretches_s
from genba_sop.procedure import Procedure, Span, Step, Text
from genba_sop.rows import Grid, Rows, local_spread, rows_of
from genba_sop.segmentation import EXTRA, labels_of, propose, runs_of, spans_of

Floats = npt.NDArray[np.float64]

FORMAT = 12
PLAINLY_LAID = 0.75  # correlation of places, from which on nobody needs to look in the mirror
LEAST_MIRRORED, MIRRORED_BETTER = 0.65, 0.1  # there, at least; and so much better than as it is
UNLIKE, UNLIKE_GOLDS = 0.9, 1.3  # typical best match by typical pair; and by the worst among golds: another procedure?
UNLIKE_LEAST = 0.1
UNLIKE_ONE, UNLIKE_ELSEWHERE = (
    0.58,
    0.5,
)  # typical best match with the only gold by how far two of its moments are from each other; and in another place
OUTLIER = 1.5  # a gold this many times as far from the others as they are among themselves
MOSTLY = 0.5
STRANGE = 0.5  # share of a gold's steps that each of the others leaves out for the better part: it shows something else


@dataclass(frozen=True)
class Gold:
    """A gold run as registered: its features, and the steps' spans where somebody has marked them."""

    features: Features
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Reference:
    """A procedure with its golds, ready to evaluate against.

    golds: G runs with a step for each row; all vote. Of those that show something else, see ``STRANGE``, nothing else is learnt:
    T are left.   local_scale: (L,) spread of the grid's channels;
    recent_s: see ``Grid``.       durations_s: (T, S) seconds of each step, nan where a gold does not show it.
    skipped, residual: (P, S) and local: (P, S, 48), as in ``Observation``, for the P = T·(T − 1) gold–gold comparisons.
    tempo: (P, S) log of the step's share of the time in the one gold against the other.
    distance: (P,), contrast: (P,).   extra_s: (n,) seconds of what one gold does and the others do not, by gold and step.
    misplaced_s: (n,) seconds for which one gold seems to the others to do a step where it does not, by gold and step.
    stillness: motion under which a gold is still, as a share of its busy level; idle_s: (n,)
    lengths of what would count as idling in one gold against the others, by gold and step.
    manner: (n, 2) item and action of every gold's steps against the other golds, see ``manner``.
    scene: the golds' pictures, None where they do not show one place.
    warnings: what the author should look at, machine-readable: "gold_outlier:2", "step_not_shown:1:torque", "steps_proposed".
    """

    procedure: Procedure
    encoder: str
    golds: tuple[GoldRun, ...]
    local_scale: Floats
    durations_s: Floats
    skipped: Floats
    residual: Floats
    local: Floats
    tempo: Floats
    distance: Floats
    contrast: Floats
    extra_s: Floats
    misplaced_s: Floats
    manner: Floats
    recent_s: float
    stillness: float
    idle_s: Floats
    warnings: tuple[str, ...]
    scene: GoldScene | None = None

    @cached_property
    def step_ids(self) -> tuple[str, ...]:
        """The ids of the S steps, in the procedure's order."""
        return tuple(step.id for step in self.procedure.steps)

    @cached_property
    def expected_s(self) -> Floats:
        """(S,) seconds that golds take for each step, typically; nan for one that none shows."""
        return np.exp(_mean_known(np.log(self.durations_s)))

    @cached_property
    def mean_s(self) -> Floats:
        """(S,) seconds that golds take for each step, on average; 0 for one that none shows."""
        return np.nan_to_num(_mean_known(self.durations_s))

    @cached_property
    def usually_skipped(self) -> Floats:
        """(S,) share of each step that golds skip of each other, on average; 0 where nothing compares."""
        return np.nan_to_num(_mean_known(self.skipped))

    @cached_property
    def order(self) -> Mask:
        """(S, S) whether the row's step must come before the column's."""
        return before(self.procedure)

    @cached_property
    def action_spread(self) -> Spread:
        """Residuals of whole frames among golds."""
        return spread_of(self.residual, least=LEAST_RESIDUAL_SPREAD)

    @cached_property
    def item_spread(self) -> Spread:
        """Residuals of the grid's cells among golds."""
        return spread_of(self.local, least=LEAST_CELL_SPREAD)

    @cached_property
    def tempo_null(self) -> Null | None:
        """How the steps' durations differ between golds."""
        return fit_null(self.tempo, least_spread=0.1)

    @cached_property
    def holds(self) -> tuple[Holds, ...]:
        """Where the golds hold still."""
        return tuple(holds_of(gold, self.stillness) for gold in self.golds)

    @cached_property
    def variety(self) -> Floats:
        """(G,) how far two moments of each gold are from each other, typically; cosine distance."""
        rows = [gold.rows.values[::2] for gold in self.golds]
        return np.array([float(np.median(1.0 - own @ own.T)) for own in rows])

    @cached_property
    def shown(self) -> tuple[int, ...]:
        """How often the golds show each step, the most that one of them does."""
        seen = [Counter(run.label for run in runs_of(gold.labels)) for gold in self.golds]
        return tuple(max(count[step] for count in seen) for step in range(len(self.step_ids)))

    @cached_property
    def sequences(self) -> tuple[tuple[int, ...], ...]:
        """For each gold its steps in the order in which they are begun."""
        return tuple(
            tuple(dict.fromkeys(run.label for run in runs_of(gold.labels) if run.label >= 0)) for gold in self.golds
        )

    @cached_property
    def histories(self) -> tuple[tuple[frozenset[int], ...], ...]:
        """By step, for every gold that shows it, the steps that were begun before."""
        return tuple(
            tuple(frozenset(steps[: steps.index(step)]) for steps in self.sequences if step in steps)
            for step in range(len(self.step_ids))
        )

    @cached_property
    def transitions(self) -> frozenset[tuple[int | None, int | None]]:
        """The steps that golds begin one right after the other; None before the first and after the last."""
        return frozenset(pair for steps in self.sequences for pair in pairwise((None, *steps, None)))

    @cached_property
    def _charts(self) -> dict[float, Chart]:
        return {}

    def chart(self, frame_s: float) -> Chart:
        """The golds laid out for the decoder, at a trainee's frame rate; kept, for rates hardly differ."""
        rate = round(frame_s, 3)
        if rate not in self._charts:
            self._charts[rate] = chart_of(self.golds, self.order, penalties_at(rate))
        return self._charts[rate]

    def observe(self, trainee: Features) -> tuple[Rows, Observation]:
        """Measure a trainee's video against the golds.

        Raises: ValueError for features of another encoder, without frames or with nan.
        """
        if trainee.encoder != self.encoder:
            raise ValueError(f"The golds' features are of {self.encoder}, the trainee's of {trainee.encoder}.")
        rows = rows_of(trainee, Grid(self.local_scale, self.recent_s))
        stopped = pauses(rows, self.holds, self.stillness)
        return rows, observe(rows, self.golds, order=self.order, chart=self.chart(rows.frame_s), pauses=stopped)

    def lay(self, trainee: Features, rows: Rows) -> Laid | None:
        """Lay a trainee's pictures over the golds'; None without pictures of one place."""
        return None if self.scene is None else self.scene.lay(filmstrip(trainee, rows))

    def turned_back(self, trainee: Features, rows: Rows, laid: Laid | None) -> Features | None:
        """The trainee's features turned back, where the place plainly shows that the camera mirrored it; else None."""
        fits = 0.0 if laid is None else laid.sight.view.correlation
        if self.scene is None or fits >= PLAINLY_LAID or (other := mirrored(trainee)) is None:
            return None
        again = self.lay(other, rows)
        plainly = again is not None and again.sight.view.correlation >= max(LEAST_MIRRORED, fits + MIRRORED_BETTER)
        return other if plainly else None

    def likeness(self, seen: Observation, laid: Laid | None) -> float:
        """How far a video shows this procedure at all: 1 where it resembles the golds about as they do each other, towards 0 the
        less it does. One gold says nothing of how golds differ: there the video is to resemble it clearly more than two of the
        gold's own moments resemble each other, and more clearly in another place.
        """
        if len(self.golds) > 1:
            usual = float(self.contrast.max()) if self.contrast.size else UNLIKE
            limit, off = min(UNLIKE, UNLIKE_GOLDS * usual + UNLIKE_LEAST), float(np.median(seen.contrast))
        else:
            elsewhere = self.scene is not None and laid is None
            limit = UNLIKE_ELSEWHERE if elsewhere else UNLIKE_ONE
            off = seen.between[0].match / max(float(self.variety[0]), 1e-6)
        return max(0.0, min(1.0, (1.0 - off) / (1.0 - limit)))

    def spans(self, gold: int) -> tuple[Span, ...]:
        """Where the steps lie in one gold, as annotated, transferred or proposed."""
        run = self.golds[gold]
        return spans_of(run.labels, self.step_ids, run.rows.edges)

    def to_bytes(self) -> bytes:
        """Everything, as an npz archive with a JSON header and no pickle."""
        arrays: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in _TABLES}
        for g, gold in enumerate(self.golds):
            arrays |= {f"gold{g}_{name}": getattr(gold.rows, name) for name in _ROWS} | {f"gold{g}_labels": gold.labels}
        header = {
            "format": FORMAT,
            "procedure": asdict(self.procedure),
            "encoder": self.encoder,
            "golds": len(self.golds),
            "recent_s": self.recent_s,
            "stillness": self.stillness,
            "warnings": self.warnings,
        }
        if self.scene is not None:
            arrays |= self.scene.to_arrays()
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Reference:
        """Read what ``to_bytes`` wrote.

        Raises: ValueError for anything else, or for another format version.
        """
        arrays, header = _read(data)
        if header.get("format") != FORMAT:
            raise ValueError(f"The reference is of format {header.get('format')}; this version reads {FORMAT}.")
        try:
            golds = tuple(
                GoldRun(Rows(*(arrays[f"gold{g}_{name}"] for name in _ROWS)), arrays[f"gold{g}_labels"])
                for g in range(header["golds"])
            )
            return Reference(
                procedure=_procedure(header["procedure"]),
                encoder=header["encoder"],
                golds=golds,
                recent_s=header["recent_s"],
                stillness=header["stillness"],
                warnings=tuple(header["warnings"]),
                scene=GoldScene.from_arrays(arrays),
                **{name: arrays[name] for name in _TABLES},
            )
        except (KeyError, TypeError) as err:
            raise ValueError("These bytes are not a reference: something is missing.") from err


def _mean_known(table: Floats) -> Floats:
    """(S,) mean of the rows of (n, S) that are not nan; nan without any."""
    known = np.isfinite(table)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, table, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _read(data: bytes) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """The arrays and the header of ``Reference.to_bytes``."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        return arrays, json.loads(arrays["header"].tobytes())
    except (AttributeError, KeyError, OSError, TypeError, EOFError, ValueError, zipfile.BadZipFile) as err:
        raise ValueError("These bytes are not a reference.") from err


_TABLES = (
    "local_scale",
    "durations_s",
    "skipped",
    "residual",
    "local",
    "tempo",
    "distance",
    "contrast",
    "extra_s",
    "misplaced_s",
    "manner",
    "idle_s",
)
_ROWS = ("values", "local", "recent", "motion", "edges")


def fit(procedure: Procedure, golds: Sequence[Gold]) -> Reference:
    """Prepare a procedure's golds.

    Golds without spans get them from the golds that have some, by alignment; when no gold has any, the first is cut into
    as many stretches as there are steps, by change points.

    Raises: ValueError without golds or steps, for golds of different encoders, or for a span of an unknown step.
    """
    if not golds:
        raise ValueError("A reference needs at least one gold.")
    if not procedure.steps:
        raise ValueError("The procedure has no steps.")
    encoders = sorted({gold.features.encoder for gold in golds})
    if len(encoders) > 1:
        raise ValueError(f"The golds' features are of different encoders: {', '.join(encoders)}.")
    length_s = float(np.mean([gold.features.duration_s for gold in golds]))
    grid = Grid(local_spread([gold.features for gold in golds]), RECENT_STEPS * length_s / len(procedure.steps))
    runs, warnings = _label(procedure, golds, grid)
    share = float(np.median([stillness(run.rows) for run in runs]))
    seen = _against_each_other(runs, before(procedure), share)
    outliers, strange = _outliers(seen), _strange(seen)
    typical = [g for g in range(len(runs)) if g not in strange]
    known = tuple(runs[g] for g in typical)
    if strange:
        seen = _against_each_other(known, before(procedure), share)
    tables = _compare(known, seen, steps=len(procedure.steps), share=share)
    scene = fit_scene(
        [filmstrip(golds[g].features, runs[g].rows) for g in typical],
        [rows_by_step(run.labels, len(procedure.steps)) for run in known],
        [_manner_against(seen, g) for g in range(len(seen))],
    )
    return Reference(
        procedure=procedure,
        encoder=encoders[0],
        golds=runs,
        local_scale=grid.spread,
        recent_s=grid.recent_s,
        durations_s=_durations(known, len(procedure.steps)),
        stillness=share,
        scene=scene,
        warnings=(
            *warnings,
            *(f"gold_outlier:{g}" for g in sorted({*outliers, *strange})),
            *_not_shown(runs, procedure),
        ),
        **tables,
    )


def _label(procedure: Procedure, golds: Sequence[Gold], grid: Grid) -> tuple[tuple[GoldRun, ...], list[str]]:
    """Every gold with its steps: as annotated, else transferred, else proposed for the first."""
    step_ids = [step.id for step in procedure.steps]
    spans = [gold.spans for gold in golds]
    warnings = []
    if not any(spans):
        spans[0] = propose(golds[0].features, step_ids)
        warnings.append("steps_proposed")
    rows = [rows_of(gold.features, grid) for gold in golds]
    known: dict[int, GoldRun] = {}
    for g, marked in enumerate(spans):
        if marked:
            known[g] = GoldRun(rows[g], labels_of(marked, step_ids, (rows[g].edges[1:] + rows[g].edges[:-1]) / 2))
    order = before(procedure)
    teachers = tuple(known.values())
    for g in range(len(golds)):
        if g not in known:
            labels = observe(rows[g], teachers, order=order).labels
            known[g] = GoldRun(rows[g], np.where(labels == EXTRA, -1, labels))
            warnings.append(f"steps_transferred:{g}")
    return tuple(known[g] for g in range(len(golds))), warnings


def _against_each_other(runs: Sequence[GoldRun], order: Mask, share: float) -> list[Observation]:
    """Observe every gold against all the others; nothing with one gold."""
    holds = [holds_of(run, share) for run in runs]
    seen = []
    for g, run in enumerate(runs if len(runs) > 1 else []):
        stopped = pauses(run.rows, [*holds[:g], *holds[g + 1 :]], share)
        seen.append(observe(run.rows, [*runs[:g], *runs[g + 1 :]], order=order, pauses=stopped))
    return seen


def _compare(runs: Sequence[GoldRun], seen: Sequence[Observation], *, steps: int, share: float) -> dict[str, Floats]:
    """What the golds show of each other, by ``Reference``'s names."""
    durations = _durations(runs, steps)
    tempo = [
        relative_tempo(durations[g], durations[other])
        for g in range(len(runs))
        for other in range(len(runs))
        if other != g
    ]
    return {
        "skipped": _stacked([o.skipped for o in seen], (0, steps)),
        "residual": _stacked([o.residual for o in seen], (0, steps)),
        "local": _stacked([o.local for o in seen], (0, steps, 48)),
        "distance": _stacked([o.distance for o in seen], (0,)),
        "contrast": _stacked([o.contrast for o in seen], (0,)),
        "tempo": np.array(tempo).reshape(-1, steps),
        "idle_s": _stacked([_idle(o, runs, g, share) for g, o in enumerate(seen)], (0,)),
        "manner": _stacked([_manner_null(seen, g) for g in range(len(seen))], (0, 2)),
        "misplaced_s": _stacked([_misplaced(o, run, steps) for o, run in zip(seen, runs, strict=bool(seen))], (0,)),
        "extra_s": _stacked([_extra(o, run.rows, steps) for o, run in zip(seen, runs, strict=bool(seen))], (0,)),
    }


def _manner_against(seen: Sequence[Observation], gold: int) -> Floats:
    """(S, 2) item and action of one gold's steps, standardised by the comparisons of the other golds; nan where not done."""
    others = [o for g, o in enumerate(seen) if g != gold]
    own = seen[gold]
    measured = manner(
        mean_over_golds(own.residual, own.votes),
        mean_over_golds(own.local, own.votes),
        spread_of(np.concatenate([o.residual for o in others]), least=LEAST_RESIDUAL_SPREAD),
        spread_of(np.concatenate([o.local for o in others]), least=LEAST_CELL_SPREAD),
    )
    return np.stack([measured.item, measured.action], axis=1)


def _manner_null(seen: Sequence[Observation], gold: int) -> Floats:
    """(≤ S, 2) the rows of ``_manner_against`` that are known."""
    table = _manner_against(seen, gold)
    return table[np.isfinite(table).all(axis=1)]


def _stacked(parts: Sequence[Floats], empty: tuple[int, ...]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(empty)


def _idle(seen: Observation, runs: Sequence[GoldRun], gold: int, share: float) -> Floats:
    """Lengths of one gold's idling against the others, filled up with zeros to one value a step."""
    holds = [holds_of(run, share) for run in (*runs[:gold], *runs[gold + 1 :])]
    lengths = stretches_s(idling(runs[gold].rows, seen, holds, share), runs[gold].rows)
    return np.asarray(np.r_[lengths, np.zeros(max(0, seen.skipped.shape[1] - len(lengths)))])


def _extra(seen: Observation, rows: Rows, steps: int) -> Floats:
    """Lengths of the extra runs of one gold against the others, filled up with zeros to one value a step."""
    lengths = [rows.edges[run.last + 1] - rows.edges[run.first] for run in runs_of(seen.labels) if run.label == EXTRA]
    return np.array(lengths + [0.0] * max(0, steps - len(lengths)))


def _misplaced(seen: Observation, run: GoldRun, steps: int) -> Floats:
    """Lengths of the runs of a step that one gold mostly does not do there, filled up with zeros to one value a step."""
    edges = run.rows.edges
    lengths = [
        float(edges[each.last + 1] - edges[each.first])
        for each in runs_of(seen.labels)
        if each.label >= 0 and (run.labels[each.first : each.last + 1] == each.label).mean() < MOSTLY
    ]
    return np.array(lengths + [0.0] * max(0, steps - len(lengths)))


def _durations(runs: Sequence[GoldRun], steps: int) -> Floats:
    table = np.stack([step_durations_s(run.labels, run.rows, steps) for run in runs])
    return np.where(table > 0, table, np.nan)


def step_durations_s(labels: npt.NDArray[np.int64], rows: Rows, steps: int) -> Floats:
    """(S,) seconds in each step."""
    inside = labels >= 0
    return np.bincount(labels[inside], np.diff(rows.edges)[inside], steps).astype(np.float64)


def relative_tempo(durations_s: Floats, expected_s: Floats) -> Floats:
    """(S,) log ratio of durations, less the run's own median ratio: a person who is quick throughout is not too fast in every step."""
    with np.errstate(divide="ignore"):
        ratio = np.log(durations_s) - np.log(expected_s)
    known = np.isfinite(ratio)
    return np.where(known, ratio - np.median(ratio[known]) if known.any() else np.nan, np.nan)


def _outliers(seen: Sequence[Observation]) -> list[int]:
    """Golds that lie much further from the others than these from each other; needs three."""
    if len(seen) < 3:
        return []
    own = np.array([np.median(o.distance) for o in seen])  # of each gold as the trainee
    return [g for g in range(len(seen)) if own[g] > OUTLIER * np.median(np.delete(own, g))]


def _strange(seen: Sequence[Observation]) -> list[int]:
    """Golds most of whose steps none of the others does; fewer than half, and needs three.

    What such a gold and the others skip of each other is no measure of what a good run may skip: with it in the null no step of a
    trainee's would ever be missing.
    """
    count = len(seen)
    skipped = [np.nan_to_num(np.insert(o.skipped, g, 0.0, axis=0)) for g, o in enumerate(seen)]
    left_out = np.array([(each >= LEFT_OUT).mean(axis=1) for each in skipped]).reshape(count, count)  # (trainee, gold)
    found = [g for g in range(count) if count > 2 and np.delete(left_out[:, g], g).min() >= STRANGE]
    return found if 2 * len(found) < count else []


def _not_shown(runs: Sequence[GoldRun], procedure: Procedure) -> list[str]:
    return [
        f"step_not_shown:{g}:{step.id}"
        for g, run in enumerate(runs)
        for at, step in enumerate(procedure.steps)
        if not (run.labels == at).any()
    ]


def _procedure(record: dict[str, Any]) -> Procedure:
    steps = tuple(
        Step(**{**step, "name": Text(**step["name"]), "action": Text(**step["action"]), "after": tuple(step["after"])})
        for step in record["steps"]
    )
    return Procedure(record["id"], record["version"], Text(**record["title"]), steps)
