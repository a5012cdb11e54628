"""Experiments on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genba_recommend.counterfactuals import Outcome, Policy
from genba_recommend.discovering import When
from genba_recommend.schemas import Wire
from genba_shared.patterns import pattern
from genba_shared.wire import Real, Whole

ArmName = Annotated[
    str,
    Field(
        pattern=pattern(
            r"^[a-z0-9][a-z0-9_-]{0,39}$",
            "must be 1 to 40 of a to z, digits, _ and -, beginning with a letter or digit",
        )
    ),
]


class ArmIn(Wire):
    """One way of making lists."""

    name: ArmName
    weight: Annotated[Real, Field(gt=0, le=1000)] = 1.0
    version: Annotated[Whole, Field(ge=1, le=2**31 - 1)] | None = Field(
        default=None, description="Of the model; the one that serves when absent."
    )
    lists: Literal["personal", "trending", "popular"] = "personal"
    diversity: Annotated[Real, Field(ge=0, le=1)] | None = None
    explore: Annotated[Real, Field(ge=0, le=0.5)] | None = None
    discover: When | None = None


class ExperimentIn(Wire):
    """An experiment to start; the first arm is the control."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\u0000]*$")]
    arms: Annotated[list[ArmIn], Field(min_length=2, max_length=10)]
    share: Annotated[Real, Field(gt=0, le=1)] = Field(default=1.0, description="Of the users that take part.")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if len({arm.name for arm in self.arms}) < len(self.arms):
            raise ValueError("two arms have the same name")
        return self


class PromoteIn(Wire):
    """The arm whose version shall serve everybody."""

    arm: ArmName
    reason: Annotated[str, Field(max_length=500, pattern=r"^[^\u0000]*$")] = ""


class Out(BaseModel):
    """An answer."""

    model_config = ConfigDict(from_attributes=True)


class ArmSpec(Out):
    """An arm as it was started."""

    name: str
    weight: float
    version: int | None
    lists: str
    diversity: float | None
    explore: float | None
    discover: When | None


class ExperimentOut(Out):
    """An experiment."""

    id: str
    name: str
    status: Literal["running", "stopped"]
    share: float
    arms: list[ArmSpec]
    started_at: datetime
    stopped_at: datetime | None
    created_by: str
    outcome: dict[str, Any] | None


class ExperimentPage(Out):
    """Experiments, the newest first."""

    experiments: list[ExperimentOut]


class ArmOut(Out):
    """What happened in one arm. Values by metric; one that nothing is known of is absent."""

    name: str
    users: int
    lists: int
    items_shown: int
    values: dict[str, float]


class DifferenceOut(Out):
    """An arm less the control; null where too little is known."""

    control: float | None
    arm: float | None
    difference: float | None
    relative: float | None
    low: float | None = Field(description="95 % interval for one look that was planned.")
    high: float | None
    always_low: float | None = Field(description="95 % interval that holds at every look together.")
    always_high: float | None
    p_value: float | None
    always_p_value: float | None
    verdict: Literal["better", "worse", "undecided", "too_few_users"] = Field(
        description="By the interval that always holds."
    )


class ResultsOut(Out):
    """What came of an experiment so far."""

    experiment: ExperimentOut
    arms: list[ArmOut]
    against_control: dict[str, dict[str, DifferenceOut]] = Field(description="By arm, then by metric.")
    sample_ratio_p: float = Field(description="Far below .01, users do not fall into the arms as they should.")


class PromotedOut(Out):
    """The version that serves now."""

    experiment: ExperimentOut
    model: str
    model_version: int
    generation: int


class EstimateOut(Out):
    """A rate a place with its 95 % interval; places of one user are not taken to be independent."""

    value: float
    low: float
    high: float


class OffPolicyOut(Out):
    """What a place left to chance would have earned under a version, beside what it earned."""

    model: str
    model_version: int
    outcome: Outcome
    policy: Policy
    days: int
    lists: int
    users: int
    places: int
    older: int = Field(description="Lists left out because the version is newer: it may have learnt from them.")
    unknown: int = Field(description="Lists left out of users or items that the version knew nothing of.")
    shown: EstimateOut = Field(description="What the places earned as they were filled.")
    ips: EstimateOut = Field(description="Inverse propensity score.")
    snips: EstimateOut = Field(description="The same, self-normalised.")
    doubly_robust: EstimateOut = Field(
        description="The one to read: a model of the items' rates, corrected by the log."
    )
    gain: EstimateOut = Field(description="Doubly robust, less what the places earned.")
    effective_places: float = Field(description="How many places filled by the version would say as much.")
    mean_weight: float = Field(description="Near 1; far from it, the logged chances are not those of the log.")
