"""Particles: what is decided, what waits for people and why, and whether what is confirmed holds its promise."""

from __future__ import annotations

from deploy.grafana.panels import WINDOW, board, figure, lines, quantiles, row
from grafana_foundation_sdk.builders.dashboard import Dashboard


def build() -> Dashboard:
    """Genba · Particles."""
    page = board(
        "genba-particles",
        "Genba · Particles",
        "What svc-sem decides, the queue of its reviewers, and rate, errors and duration by route.",
    )
    _now(page)
    _particles_and_reviews(page)
    _rate_errors_duration(page)
    return page


def _now(page: Dashboard) -> None:
    page.with_row(row("Now"))
    page.with_panel(
        figure(
            "Ready",
            "1 while the gateway finds an instance that is ready.",
            'min(genba_gateway_service_ready{service="sem"})',
            bad_below=1,
        )
    )
    page.with_panel(
        figure(
            "Checks that fail",
            "Of all instances; /ready names them. A lane that does not load is one, and the version before goes on.",
            "count(genba_sem_check_passes == 0) or vector(0)",
            bad_from=1,
        )
    )
    page.with_panel(figure("Requests in work", "Over all instances.", "sum(genba_sem_requests_in_flight)"))
    page.with_panel(figure("Waiting for a reviewer", "Particles in the queue.", "max(genba_sem_queue_particles)"))
    page.with_panel(
        figure(
            "Promises broken",
            "Tenants whose audits say, at 5 % risk, that more is confirmed wrongly than promised.",
            "max(genba_sem_promises_broken)",
            bad_from=1,
        )
    )


def _particles_and_reviews(page: Dashboard) -> None:
    page.with_row(row("Particles and reviews"))
    page.with_panel(
        lines(
            "Taken",
            "Particles a second that were sent, by what they were held for; batches count under particles held.",
            {"{{status}}": f"sum by (status) (rate(genba_sem_particles_total[{WINDOW}]))"},
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "Particles held",
            "By status. What is unknown and grows may be a kind that has no label yet.",
            {"{{status}}": "max by (status) (genba_sem_particles_held)"},
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "Why particles wait",
            "By reason; a particle may have several.",
            {"{{reason}}": "max by (reason) (genba_sem_queue_reasons) > 0"},
        )
    )
    page.with_panel(
        lines(
            "Words of reviewers",
            "Growth an hour, by where they were said.",
            {"{{source}}": "max by (source) (delta(genba_sem_reviews[1h]))"},
        )
    )
    page.with_panel(
        lines(
            "Audits of what was confirmed",
            "The newest automatic confirmations that a reviewer looked at, drawn at random: right and wrong.",
            {"{{outcome}}": "max by (outcome) (genba_sem_audited)"},
        )
    )


def _rate_errors_duration(page: Dashboard) -> None:
    page.with_row(row("Rate, errors, duration"))
    page.with_panel(
        lines(
            "Requests",
            "Answered requests a second by route template.",
            {"{{route}}": f"sum by (route) (rate(genba_sem_requests_total[{WINDOW}]))"},
            unit="reqps",
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "Errors",
            "5xx a second by route template and status.",
            {
                "{{route}} {{status}}": f'sum by (route, status) (rate(genba_sem_requests_total{{status=~"5.."}}[{WINDOW}]))'
            },
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Duration, p95",
            "By route template. A particle of six views takes a quarter of a CPU second.",
            quantiles("genba_sem_request_seconds", by="route"),
            unit="s",
        )
    )
    page.with_panel(
        lines(
            "Memory",
            "Resident memory by instance.",
            {"{{instance}}": "sum by (instance) (genba_sem_process_resident_memory_bytes)"},
            unit="bytes",
        )
    )
    page.with_panel(
        lines(
            "CPU",
            "Cores in use by instance.",
            {"{{instance}}": f"sum by (instance) (rate(genba_sem_process_cpu_seconds_total[{WINDOW}]))"},
        )
    )
