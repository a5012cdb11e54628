"""The recommender: does it answer, how fast, and with a model that loads."""

from __future__ import annotations

from deploy.grafana.panels import WINDOW, board, figure, lines, quantiles, row
from grafana_foundation_sdk.builders.dashboard import Dashboard


def build() -> Dashboard:
    """Genba · Recommender."""
    page = board(
        "genba-recommender",
        "Genba · Recommender",
        "Rate, errors and duration of svc-recommend by route, and its model.",
    )
    _now(page)
    _lists_events_experiments(page)
    _rate_errors_duration(page)
    return page


def _now(page: Dashboard) -> None:
    page.with_row(row("Now"))
    page.with_panel(
        figure(
            "Ready",
            "1 while the gateway finds an instance that is ready.",
            'min(genba_gateway_service_ready{service="recommend"})',
            bad_below=1,
        )
    )
    page.with_panel(
        figure(
            "Checks that fail",
            "Of all instances; /ready names them. A model that does not load is one, and the version before goes on.",
            "count(genba_recommend_check_passes == 0) or vector(0)",
            bad_from=1,
        )
    )
    page.with_panel(figure("Requests in work", "Over all instances.", "sum(genba_recommend_requests_in_flight)"))
    page.with_panel(
        figure("Version that serves", "0: none; lists fall back.", "max(genba_recommend_model_version)", bad_below=1)
    )
    page.with_panel(
        figure(
            "Items without a vector",
            "They cannot be on a personal list until they are embedded; a refresh does that.",
            "max(genba_recommend_items_without_vector)",
            bad_from=1,
        )
    )


def _lists_events_experiments(page: Dashboard) -> None:
    page.with_row(row("Lists, events, experiments"))
    page.with_panel(
        lines(
            "Lists by source",
            "Lists a second by what made them: personal is what the model is for.",
            {"{{source}}": f"sum by (source) (rate(genba_recommend_lists_total[{WINDOW}]))"},
            unit="reqps",
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "Events",
            "Rows a second by what became of them.",
            {"{{outcome}}": f"sum by (outcome) (rate(genba_recommend_events_total[{WINDOW}]))"},
        )
    )
    page.with_panel(
        lines(
            "Pictures",
            "Pictures of items sent a second, by what became of them then: those that wait have no encoder, or come many at once.",
            {"{{state}}": f"sum by (state) (rate(genba_recommend_pictures_total[{WINDOW}]))"},
        )
    )
    page.with_panel(
        lines(
            "Shown lists to be noted",
            "Waiting to be written, and dropped a second because too many waited.",
            {
                "waiting": "sum(genba_recommend_exposures_waiting)",
                "dropped": f"sum(rate(genba_recommend_exposures_dropped_total[{WINDOW}]))",
            },
        )
    )
    page.with_panel(
        lines(
            "Taking up news",
            "Time to take up what others wrote, twice a second.",
            quantiles("genba_recommend_follow_seconds"),
            unit="s",
        )
    )
    page.with_panel(
        lines(
            "Catalogue, users, experiments",
            "Items, those on personal lists of the last week, users in memory, running experiments.",
            {
                "items": "max(genba_recommend_items)",
                "items on lists": "max(genba_recommend_items_shown)",
                "users in memory": "max(genba_recommend_users_cached)",
                "experiments": "max(genba_recommend_experiments_running)",
            },
        )
    )


def _rate_errors_duration(page: Dashboard) -> None:
    page.with_row(row("Rate, errors, duration"))
    page.with_panel(
        lines(
            "Requests",
            "Answered requests a second by route template.",
            {"{{route}}": f"sum by (route) (rate(genba_recommend_requests_total[{WINDOW}]))"},
            unit="reqps",
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "Errors",
            "5xx a second by route template and status.",
            {
                "{{route}} {{status}}": f'sum by (route, status) (rate(genba_recommend_requests_total{{status=~"5.."}}[{WINDOW}]))'
            },
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Duration, p95",
            "By route template. The aim for a list: p99 at most 15 ms at 100 requests a second.",
            quantiles("genba_recommend_request_seconds", by="route"),
            unit="s",
        )
    )
    page.with_panel(
        lines(
            "Duration, all routes", "Quantiles over all routes.", quantiles("genba_recommend_request_seconds"), unit="s"
        )
    )
    page.with_panel(
        lines(
            "Memory",
            "Resident memory by instance: the model and its index live in it.",
            {"{{instance}}": "sum by (instance) (genba_recommend_process_resident_memory_bytes)"},
            unit="bytes",
        )
    )
    page.with_panel(
        lines(
            "CPU",
            "Cores in use by instance.",
            {"{{instance}}": f"sum by (instance) (rate(genba_recommend_process_cpu_seconds_total[{WINDOW}]))"},
        )
    )
