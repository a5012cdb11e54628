"""The few kinds of panel that Genba's dashboards are made of, so that a dashboard reads as a list of questions.

Knows no metric. Every panel has a description: what it shows and when to worry.
"""

from __future__ import annotations

from collections.abc import Mapping

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

SOURCE = models.DataSourceRef(type_val="prometheus", uid="prometheus")  # provisioning/datasources/genba.yml
WINDOW = "$__rate_interval"

Queries = Mapping[str, str]  # legend -> PromQL


def board(uid: str, title: str, description: str) -> builders.Dashboard:
    """An empty dashboard; links lead to its siblings, and firing alerts are marked on every time axis."""
    return (
        builders.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["genba"])
        .readonly()
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            builders.DashboardLink("Genba")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["genba"])
            .as_dropdown(as_dropdown=True)
        )
    )


def row(title: str) -> builders.Row:
    """A heading."""
    return builders.Row(title)


def lines(
    title: str, description: str, queries: Queries, *, unit: str = "short", stacked: bool = False
) -> timeseries.Panel:
    """Figures over time, a third of the width. ``unit`` is one of Grafana's: ``s``, ``bytes``, ``percentunit``, ``reqps``."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .height(8)
        .span(8)
        .fill_opacity(20 if stacked else 0)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
        )
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    for number, (legend, expression) in enumerate(queries.items()):
        panel.with_target(_query(expression, legend, number))
    return panel


def figure(
    title: str,
    description: str,
    expression: str,
    *,
    legend: str = "",
    unit: str = "short",
    bad_from: float | None = None,
    bad_below: float | None = None,
    decimals: int = 0,
) -> stat.Panel:
    """One number as it stands, a sixth of the width; red from ``bad_from`` on, or below ``bad_below``."""
    steps = [models.Threshold(value=None, color="red" if bad_below is not None else "green")]
    if bad_below is not None:
        steps.append(models.Threshold(value=bad_below, color="green"))
    if bad_from is not None:
        steps.append(models.Threshold(value=bad_from, color="red"))
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(SOURCE)
        .unit(unit)
        .decimals(decimals)
        .height(4)
        .span(4)
        .thresholds(builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .color_mode(common.BigValueColorMode.VALUE)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.NONE)
        .with_target(_query(expression, legend, 0).instant())
    )


def quantiles(metric: str, *, by: str = "", where: str = "") -> dict[str, str]:
    """p50, p95 and p99 of a histogram in seconds, over everything or ``by`` a label (p95 only)."""
    if by:
        return {
            f"{{{{{by}}}}}": f"histogram_quantile(0.95, sum by (le, {by}) (rate({metric}_bucket{where}[{WINDOW}])))"
        }
    return {
        f"p{100 * quantile:g}": f"histogram_quantile({quantile}, sum by (le) (rate({metric}_bucket{where}[{WINDOW}])))"
        for quantile in (0.5, 0.95, 0.99)
    }


def _query(expression: str, legend: str, number: int) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expression).ref_id(chr(ord("A") + number)).datasource(SOURCE)
    return query.legend_format(legend or "__auto")
