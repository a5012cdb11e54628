"""Read a procedure as a person writes it (``steps.yaml`` or JSON, one shape) and find where it contradicts itself.

Turns the author's ``order: ordered | any`` into the partial order of ``procedure.Step.after``. Every fault names its
field, and all
faults are found at once. Knows nothing of the database or of HTTP beyond the ``Invalid`` problem that it raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from genba_shared import yaml_files
from genba_shared.patterns import pattern
from genba_shared.problems import Invalid, fault, fault_in
from genba_shared.wire import Flag, Real
from genba_sop.order import preconditions
from genba_sop.procedure import Procedure, Severity, Span, Step, Text

MAX_STEPS: Final = 200
MAX_GOLDS: Final = 30
MAX_STEPS_FILE_BYTES: Final = 1 << 20
GOLD_END_TOLERANCE_S: Final = 0.5  # containers round durations; an author who writes the full second is right

Floats = npt.NDArray[np.float64]
_Written = TypeVar("_Written")
WITHOUT_NUL: Final = r"^[^\x00]*$"  # Postgres stores no U+0000
StepId = Annotated[
    str,
    StringConstraints(
        pattern=pattern(
            r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
            "must be 1 to 64 of A to Z, a to z, digits and _ . -, beginning with a letter or digit",
        )
    ),
]
Seconds = Annotated[Real, Field(ge=0, le=7200)]
Fault = dict[str, Any]  # {"field": "steps[2].after", "message": "…"}: a member of the Invalid problem


class Authored(BaseModel):
    """What an author may write; a misspelt key is an error, not a silence."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class AuthoredText(Authored):
    """A text in English, Japanese or both."""

    en: Annotated[str, StringConstraints(max_length=500, pattern=WITHOUT_NUL)] = ""
    ja: Annotated[str, StringConstraints(max_length=500, pattern=WITHOUT_NUL)] = ""


def _bare_text(value: object) -> object:
    return {"en": value} if isinstance(value, str) else value


TextField = Annotated[AuthoredText, BeforeValidator(_bare_text, json_schema_input_type=AuthoredText | str)]


class AuthoredStep(Authored):
    """One step, in the order in which the gold run shows it."""

    id: StepId
    name: TextField = Field(default_factory=AuthoredText)
    order: Literal["ordered", "any"] = Field(
        "ordered", description="any: free within its block of neighbouring 'any' steps"
    )
    after: list[StepId] | None = Field(
        None, max_length=MAX_STEPS, description="Replaces the preconditions that `order` gives."
    )
    optional: Flag = False
    critical: Flag = False
    min_s: Seconds | None = None
    max_s: Seconds | None = None
    tool: Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=WITHOUT_NUL)] | None = None
    weight: Annotated[Real, Field(gt=0, le=1000)] = 1.0
    severity: Severity | None = Field(None, description="critical when the step is critical, else major")
    action: TextField = Field(default_factory=AuthoredText, description="What to do about a deviation in this step.")


class AuthoredSpan(Authored):
    """Where a step lies in a gold video."""

    id: StepId
    start_s: Seconds
    end_s: Seconds


class AuthoredGold(Authored):
    """A gold run: its video (a path in a file, a video id over HTTP); without steps they are proposed by change
    points.
    """

    video: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    steps: list[AuthoredSpan] | None = Field(None, max_length=2 * MAX_STEPS)


EXAMPLE: Final[dict[str, Any]] = {
    "title": {"en": "Oil change", "ja": "オイル交換"},
    "steps": [
        {"id": "gloves", "name": {"en": "Put on gloves", "ja": "手袋を着ける"}},
        {"id": "drain", "name": {"en": "Drain the oil", "ja": "オイルを抜く"}, "tool": "wrench", "max_s": 120},
        {"id": "refill", "name": {"en": "Refill", "ja": "補充する"}, "critical": True, "after": ["drain"]},
    ],
}


class AuthoredProcedure(Authored):
    """A procedure as written: the steps in the order of the gold run."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    title: TextField
    steps: list[AuthoredStep] = Field(min_length=1, max_length=MAX_STEPS)
    golds: list[AuthoredGold] = Field(default_factory=list, max_length=MAX_GOLDS)


def invalid(what: str, faults: Sequence[Fault]) -> Invalid:
    """The problem that lists every fault and says the first in its detail."""
    first = faults[0]
    more = f" ({len(faults) - 1} more in errors)" if len(faults) > 1 else ""
    return Invalid(f"{what}: {first['field']}: {first['message']}{more}", errors=list(faults))


def read_steps_file(path: Path) -> AuthoredProcedure:
    """Read ``steps.yaml`` (JSON is YAML too).

    Raises:  Invalid naming the field, or the line for what is not YAML.   OSError when the file cannot be read.
    """
    document = _read(path)
    if not isinstance(document, Mapping):
        raise Invalid(f"{path.name} must be a mapping with title and steps.")
    return _validated(_PROCEDURE, document, path)


def read_spans_file(path: Path) -> list[AuthoredSpan]:
    """Read where the steps of one gold lie, a list of ``{id, start_s, end_s}`` in YAML or JSON. Raises as ``read_steps_file``."""
    return _validated(_SPANS, _read(path), path)


_PROCEDURE: Final = TypeAdapter(AuthoredProcedure)
_SPANS: Final = TypeAdapter(list[AuthoredSpan])


def _read(path: Path) -> object:
    if path.stat().st_size > MAX_STEPS_FILE_BYTES:
        raise Invalid(f"{path.name} is larger than {MAX_STEPS_FILE_BYTES} bytes; a steps file is a page of text.")
    try:
        return yaml_files.load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as err:
        raise Invalid(f"{path.name} is not readable as YAML: {yaml_files.fault(err)}") from err


def _validated(adapter: TypeAdapter[_Written], document: object, path: Path) -> _Written:
    try:
        return adapter.validate_python(document)
    except ValidationError as err:
        raise invalid(path.name, [fault_in(e, _dotted(e["loc"])) for e in err.errors()]) from err


def _dotted(location: Sequence[int | str]) -> str:
    """('steps', 2, 'after') → steps[2].after."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).lstrip(".") or "(document)"


def parse(authored: AuthoredProcedure, *, procedure_id: str, version: int = 1, field: str = "") -> Procedure:
    """The frozen procedure of what an author wrote.

    Raises:  Invalid naming every contradicting field (duplicate or unknown id, cycle, min over max, critical and
    optional).
    """
    if faults := contradictions(authored, field=field):
        raise invalid("The procedure contradicts itself", faults)
    preconditions = default_preconditions(authored.steps)
    steps = tuple(
        Step(
            id=step.id,
            name=_text(step.name, fallback=step.id),
            after=tuple(dict.fromkeys(step.after)) if step.after is not None else preconditions[index],
            critical=step.critical,
            optional=step.optional,
            min_s=step.min_s,
            max_s=step.max_s,
            tool=step.tool,
            weight=step.weight,
            severity=step.severity or ("critical" if step.critical else "major"),
            action=_text(step.action, fallback=""),
        )
        for index, step in enumerate(authored.steps)
    )
    return Procedure(id=procedure_id, version=version, title=_text(authored.title, fallback=procedure_id), steps=steps)


def _text(text: AuthoredText, *, fallback: str) -> Text:
    return Text(en=text.en or text.ja or fallback, ja=text.ja)


def default_preconditions(steps: Sequence[AuthoredStep]) -> list[tuple[str, ...]]:
    """What each step waits for when ``after`` is not written: the block before its own.

    A block is one ordered step, or a run of neighbouring 'any' steps. Where a block holds optional steps, the block
    before it counts
    as well, so that leaving an optional step out does not cut the chain.
    """
    blocks: list[list[int]] = []
    for index, step in enumerate(steps):
        if blocks and step.order == "any" and steps[blocks[-1][-1]].order == "any":
            blocks[-1].append(index)
        else:
            blocks.append([index])
    waits: dict[int, tuple[str, ...]] = {}
    before: tuple[str, ...] = ()
    for block in blocks:
        waits.update(dict.fromkeys(block, before))
        own = tuple(steps[index].id for index in block)
        before = own + (before if all(steps[index].optional for index in block) else ())
    return [waits[index] for index in range(len(steps))]


def contradictions(authored: AuthoredProcedure, *, field: str = "") -> list[Fault]:
    """Every place where the steps contradict each other, each with its field (``steps[2].after``)."""
    if not (authored.title.en or authored.title.ja):
        return [fault(f"{field}title", "Write the title in en, ja or both.")]
    first_at: dict[str, int] = {}
    for index, step in enumerate(authored.steps):
        first_at.setdefault(step.id, index)
    faults: list[Fault] = []
    for index, step in enumerate(authored.steps):
        at = f"{field}steps[{index}]"
        if first_at[step.id] != index:
            faults.append(
                fault(f"{at}.id", f"'{step.id}' is already the id of steps[{first_at[step.id]}]; ids must differ.")
            )
        if step.min_s is not None and step.max_s is not None and step.min_s > step.max_s:
            faults.append(fault(f"{at}.min_s", f"min_s {step.min_s:g} is greater than max_s {step.max_s:g}."))
        if step.critical and step.optional:
            faults.append(fault(f"{at}.optional", f"'{step.id}' cannot be both critical and optional: choose one."))
        faults.extend(_after_faults(step, at=f"{at}.after", first_at=first_at))
    return faults + _order_faults(authored.steps, field=field, first_at=first_at)


def _after_faults(step: AuthoredStep, *, at: str, first_at: Mapping[str, int]) -> list[Fault]:
    faults = []
    for name in step.after or ():
        if name == step.id:
            faults.append(fault(at, f"'{step.id}' cannot come after itself."))
        elif name not in first_at:
            faults.append(fault(at, f"'{name}' is not the id of any step; known are {', '.join(first_at)}."))
    return faults


def _order_faults(steps: Sequence[AuthoredStep], *, field: str, first_at: Mapping[str, int]) -> list[Fault]:
    """Cycles; else steps that must follow one which the gold run shows later."""
    waits = {
        step.id: [n for n in (step.after if step.after is not None else default) if n in first_at and n != step.id]
        for step, default in zip(steps, default_preconditions(steps), strict=True)
    }
    if cycle := _cycle(waits):
        chain = " → ".join(cycle)
        guilty = next((name for name in cycle if steps[first_at[name]].after is not None), cycle[0])
        return [
            fault(f"{field}steps[{first_at[guilty]}].after", f"The steps wait for each other in a circle: {chain}.")
        ]
    return [
        fault(
            f"{field}steps[{index}].after",
            f"'{step.id}' must come after '{name}', but the list is in the order of the gold run and shows '{name}' later.",
        )
        for index, step in enumerate(steps)
        for name in waits[step.id]
        if first_at[name] > index
    ]


def _cycle(waits: Mapping[str, Sequence[str]]) -> list[str] | None:
    """One cycle of the waiting graph, first name repeated at the end; None when there is none. Iterative: chains may
    be long.
    """
    done: set[str] = set()
    for root in waits:
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, bool]] = [(root, False)]
        while stack:
            name, leaving = stack.pop()
            if leaving:
                path.pop()
                on_path.discard(name)
                done.add(name)
            elif name in on_path:
                return [*path[path.index(name) :], name]
            elif name not in done:
                path.append(name)
                on_path.add(name)
                stack.append((name, True))
                stack.extend((before, False) for before in waits[name])
    return None


def gold_spans(
    procedure: Procedure, spans: Sequence[AuthoredSpan], *, duration_s: float, seen_s: Floats, field: str
) -> tuple[Span, ...]:
    """The spans of one gold, in time order.

    A gold run shows every step that is not optional, none before what it has to come after; its spans do not overlap, lie inside
    the video, and are long enough for each step to be seen.

    Args:    seen_s: (T,) the moments at which the video is looked at, see ``rows.moments_s``.

    Raises:  Invalid naming every fault.
    """
    ordered = sorted(range(len(spans)), key=lambda i: (spans[i].start_s, spans[i].end_s))
    faults = _misplaced(procedure, spans, duration_s=duration_s, field=field) + _overlaps(spans, ordered, field=field)
    if not faults:
        faults = _unseen(spans, seen_s, field=field) + _out_of_order(procedure, spans, ordered, field=field)
    shown = {span.id for span in spans}
    absent = [step.id for step in procedure.steps if not step.optional and step.id not in shown]
    if absent:
        faults.append(
            fault(field, f"a gold run shows every step that is not optional; without a span: {', '.join(absent)}.")
        )
    if faults:
        raise invalid("The gold's steps do not fit", faults)
    return tuple(Span(spans[i].id, spans[i].start_s, min(spans[i].end_s, duration_s)) for i in ordered)


def _misplaced(procedure: Procedure, spans: Sequence[AuthoredSpan], *, duration_s: float, field: str) -> list[Fault]:
    """Spans of unknown steps, that end before they start, or that lie outside the video."""
    known = {step.id for step in procedure.steps}
    faults: list[Fault] = []
    for index, span in enumerate(spans):
        at = f"{field}[{index}]"
        if span.id not in known:
            faults.append(
                fault(f"{at}.id", f"'{span.id}' is not a step of procedure {procedure.id} version {procedure.version}.")
            )
        if span.start_s >= span.end_s:
            faults.append(fault(f"{at}.end_s", f"end_s {span.end_s:g} must be greater than start_s {span.start_s:g}."))
        elif span.end_s > duration_s + GOLD_END_TOLERANCE_S:
            faults.append(fault(f"{at}.end_s", f"end_s {span.end_s:g} lies beyond the video's {duration_s:.2f} s."))
        elif span.start_s >= duration_s:
            faults.append(
                fault(f"{at}.start_s", f"start_s {span.start_s:g} lies beyond the video's {duration_s:.2f} s.")
            )
    return faults


def _overlaps(spans: Sequence[AuthoredSpan], ordered: Sequence[int], *, field: str) -> list[Fault]:
    """Spans that begin before the one before them ends."""
    return [
        fault(f"{field}[{right}].start_s", f"overlaps '{spans[left].id}', which ends at {spans[left].end_s:g} s.")
        for left, right in pairwise(ordered)
        if spans[right].start_s < spans[left].end_s - 1e-6
    ]


def _out_of_order(
    procedure: Procedure, spans: Sequence[AuthoredSpan], ordered: Sequence[int], *, field: str
) -> list[Fault]:
    """Steps that are begun before what they have to come after: as the standard, such a gold would fail itself."""
    first: dict[str, int] = {}
    for place, index in enumerate(ordered):
        first.setdefault(spans[index].id, place)
    return [
        fault(
            f"{field}[{ordered[first[step]]}].start_s",
            f"'{step}' is begun before '{late[0]}', which must come first: mend the times, or the steps' order.",
        )
        for step, before in preconditions(procedure).items()
        if step in first
        and (late := [s.id for s in procedure.steps if s.id in before and first.get(s.id, -1) > first[step]])
    ]


def _unseen(spans: Sequence[AuthoredSpan], seen_s: Floats, *, field: str) -> list[Fault]:
    """Steps none of whose spans holds a moment at which the video is looked at: nobody could be found to do them."""
    seen = {span.id for span in spans if ((seen_s >= span.start_s) & (seen_s < span.end_s)).any()}
    apart_s = float(seen_s[-1] - seen_s[0]) / max(1, len(seen_s) - 1)
    return [
        fault(
            f"{field}[{index}].end_s",
            f"'{span.id}' is too short to be seen: this video is looked at every {apart_s:.2g} s, and never within that time.",
        )
        for index, span in enumerate(spans)
        if span.id not in seen
    ]
