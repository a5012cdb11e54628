"""What operators watch of queues and schedules, read from their tables when somebody scrapes. Counts nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from genba_shared.job_upkeep import QueueFigures, RunningFigures
from genba_shared.queue import QUEUES
from genba_shared.registry import ModelFigures
from genba_shared.telemetry import get_logger
from genba_training.schedules import ScheduleFigures
from genba_training.sweeper import Sweeper

_DOCUMENTATION = {
    "queued_jobs": "Jobs that wait for a worker.",
    "oldest_queued_age_seconds": "How long the job that is due longest has waited.",
    "running_jobs": "Jobs that a worker holds.",
    "dead_jobs": "Dead letters: jobs out of attempts, waiting for a person.",
    "attempts": "Attempts of all jobs in the table.",
}

_MOST_NAMES = 16  # of one recipe: names come from the recipe's code, but nobody counts them
_SCHEDULES = "Schedules: enabled, disabled, and failing, which made no job at their last due time."
_OVERDUE = "How late the schedule that is due longest is; more than some seconds when no process sweeps."

log = get_logger(__name__)


class QueueCollector(Collector):
    """``genba_training_…``. A database that is away leaves the figures out; the rest of the scrape stands."""

    def __init__(
        self, read: Callable[[], Sequence[QueueFigures]], read_schedules: Callable[[], ScheduleFigures]
    ) -> None:
        self._read, self._read_schedules = read, read_schedules

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [*(_family(name) for name in _DOCUMENTATION), *_schedule_families(ScheduleFigures())]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        try:
            found = {figures.queue: figures for figures in self._read()}
            schedules = self._read_schedules()
        except Exception as error:  # noqa: BLE001 - whatever the database's driver raises
            log.warning("queue_figures_failed", error=type(error).__name__)
            return []
        families = {name: _family(name) for name in _DOCUMENTATION}
        for queue in sorted({*QUEUES, *found}):
            figures = found.get(queue, QueueFigures(queue, 0, 0.0, 0, 0, 0))
            values = (figures.depth, figures.oldest_age_s, figures.running, figures.dead, figures.attempts)
            for name, value in zip(_DOCUMENTATION, values, strict=True):
                families[name].add_metric([queue], value)
        return [*families.values(), *_schedule_families(schedules)]


class RunningCollector(Collector):
    """What runs: how far it is, and what it measures of itself. Left out while the database is away."""

    def __init__(self, read: Callable[[], Sequence[RunningFigures]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return _running_families(())

    def collect(self) -> Iterable[Metric]:
        try:
            return _running_families(self._read())
        except Exception as error:  # noqa: BLE001 - whatever the database's driver raises
            log.warning("running_figures_failed", error=type(error).__name__)
            return []


class ModelCollector(Collector):
    """``genba_training_model_…``, from the registry's tables; left out while the database is away."""

    def __init__(self, read: Callable[[], ModelFigures]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return _model_families(ModelFigures())

    def collect(self) -> Iterable[Metric]:
        try:
            return _model_families(self._read())
        except Exception as error:  # noqa: BLE001 - whatever the database's driver raises
            log.warning("model_figures_failed", error=type(error).__name__)
            return []


class SweeperCollector(Collector):
    """Whether somebody keeps the queue true, and how often a worker fell silent."""

    def __init__(self, sweeper: Sweeper) -> None:
        self._sweeper = sweeper

    def collect(self) -> Iterable[Metric]:
        leads = GaugeMetricFamily("genba_training_sweeper_leads", "1 in the process whose sweeper keeps the queue.")
        leads.add_metric([], float(self._sweeper.leads))
        expired = CounterMetricFamily(
            "genba_training_leases_expired", "Running jobs whose worker fell silent, found by this process."
        )
        expired.add_metric([], self._sweeper.expired_leases)
        return (leads, expired)


def _family(name: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"genba_training_{name}", _DOCUMENTATION[name], labels=["queue"])


def _running_families(figures: Iterable[RunningFigures]) -> list[Metric]:
    progress = GaugeMetricFamily(
        "genba_training_running_progress", "How far the newest running job of a recipe is, 0 to 1.", labels=["recipe"]
    )
    said = GaugeMetricFamily(
        "genba_training_running_value", "A figure that this job said last, such as its loss.", labels=["recipe", "name"]
    )
    for each in figures:
        progress.add_metric([each.recipe], each.progress)
        for name in sorted(each.values)[:_MOST_NAMES]:
            said.add_metric([each.recipe, name], each.values[name])
    return [progress, said]


def _schedule_families(figures: ScheduleFigures) -> list[GaugeMetricFamily]:
    schedules = GaugeMetricFamily("genba_training_schedules", _SCHEDULES, labels=["state"])
    for state in ("enabled", "disabled", "failing"):
        schedules.add_metric([state], getattr(figures, state))
    return [schedules, GaugeMetricFamily("genba_training_schedule_overdue_seconds", _OVERDUE, value=figures.overdue_s)]


def _model_families(figures: ModelFigures) -> list[Metric]:
    versions = GaugeMetricFamily(
        "genba_training_model_versions", "Versions of a model, by status.", labels=["model", "status"]
    )
    aliases = GaugeMetricFamily(
        "genba_training_model_alias_version", "The version that an alias points to.", labels=["model", "alias"]
    )
    moves = CounterMetricFamily(
        "genba_training_model_moves", "Promotions, rollbacks and clearings.", labels=["model", "alias", "kind"]
    )
    for family, values in ((versions, figures.versions), (aliases, figures.aliases), (moves, figures.moves)):
        for labels, value in values.items():
            family.add_metric(list(labels), value)
    return [versions, aliases, moves]
