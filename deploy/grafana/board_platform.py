"""The first page when something is wrong: is the promise kept, what arrives at the gateway, which service or process ails."""

from __future__ import annotations

from deploy.grafana.panels import WINDOW, board, figure, lines, quantiles, row
from grafana_foundation_sdk.builders.dashboard import Dashboard

SERVICES = ("control", "sop", "recommend", "training", "worker")  # every prefix of metrics that has process figures
BUDGET = 0.001  # of requests may fail: rules/gateway.yml


def build() -> Dashboard:
    """Genba · Platform."""
    page = board(
        "genba-platform", "Genba · Platform", "The gateway's promise, its traffic, the services and their processes."
    )
    page.with_row(row("The promise: 99.9 % of requests without a 5xx"))
    page.with_panel(
        figure(
            "Answered, last hour",
            "Share of requests to /v1 without a 5xx. Below 99.9 % the month's budget shrinks.",
            "1 - genba:gateway_errors:ratio_rate1h",
            unit="percentunit",
            bad_below=1 - BUDGET,
            decimals=3,
        )
    )
    page.with_panel(
        figure(
            "Answered, three days",
            "The same over three days.",
            "1 - genba:gateway_errors:ratio_rate3d",
            unit="percentunit",
            bad_below=1 - BUDGET,
            decimals=3,
        )
    )
    page.with_panel(
        figure(
            "Alerts",
            "Alerts that fire now; Prometheus lists them at /alerts.",
            'count(ALERTS{alertname=~"Genba.+",alertstate="firing"}) or vector(0)',
            bad_from=1,
        )
    )
    page.with_panel(
        figure(
            "Services not ready",
            "Services of which the gateway finds no ready instance.",
            "count(min by (service) (genba_gateway_service_ready) == 0) or vector(0)",
            bad_from=1,
        )
    )
    page.with_panel(
        figure(
            "Processes down",
            "Processes that do not answer Prometheus.",
            'count(up{job="genba"} == 0) or vector(0)',
            bad_from=1,
        )
    )
    page.with_panel(
        figure(
            "Requests in work",
            "At all gateways, now.",
            "sum(genba_gateway_requests_in_flight)",
        )
    )
    _gateway(page)
    _services(page)
    _processes(page)
    return page


def _gateway(page: Dashboard) -> None:
    page.with_row(row("Gateway: rate, errors, duration, saturation"))
    page.with_panel(
        lines(
            "Requests",
            "Answered requests a second by route.",
            {"{{route}}": f"sum by (route) (rate(genba_gateway_requests_total[{WINDOW}]))"},
            unit="reqps",
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "Errors",
            "5xx a second by route and status. Any that lasts is worth a look; alerts weigh them against the budget.",
            {
                "{{route}} {{status}}": f'sum by (route, status) (rate(genba_gateway_requests_total{{status=~"5.."}}[{WINDOW}]))'
            },
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Duration",
            "From a request's head to the end of its answer. Streams of job events count with all the time they are open.",
            quantiles("genba_gateway_request_seconds"),
            unit="s",
        )
    )
    page.with_panel(
        lines(
            "Burn",
            "How many times faster than allowed the error budget burns. Alerts: 14.4 over 1 h, 6 over 6 h, 1 over 3 d.",
            {
                window: f"genba:gateway_errors:ratio_rate{window} / {BUDGET}"
                for window in ("5m", "30m", "1h", "6h", "3d")
            },
        )
    )
    page.with_panel(
        lines(
            "Turned away",
            "Requests a second that were shed, limited or refused for their credentials. Shed means: too little capacity.",
            {
                "shed: {{reason}}": f"sum by (reason) (rate(genba_gateway_shed_total[{WINDOW}]))",
                "rate limit": f"sum(rate(genba_gateway_limited_total[{WINDOW}]))",
                "credentials": f"sum(rate(genba_gateway_refused_credentials_total[{WINDOW}]))",
            },
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Saturation",
            "Requests in work and waiting for their turn, by gateway. Waiting above zero for long means: add a gateway.",
            {
                "in work {{instance}}": "sum by (instance) (genba_gateway_requests_in_flight)",
                "waiting {{instance}}": "sum by (instance) (genba_gateway_waiting_requests)",
            },
        )
    )


def _services(page: Dashboard) -> None:
    page.with_row(row("Services"))
    page.with_panel(
        lines(
            "Ready",
            "1 while the gateway finds an instance that says that it is ready.",
            {"{{service}}": "min by (service) (genba_gateway_service_ready)"},
        )
    )
    page.with_panel(
        lines(
            "Attempts at services",
            "What the gateway's attempts came to, a second. Only ok is good news.",
            {
                "{{service}} {{outcome}}": f"sum by (service, outcome) (rate(genba_gateway_upstream_attempts_total[{WINDOW}]))"
            },
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Instances left alone",
            "Instances that the gateway ejected after failures in a row, and retries a second.",
            {
                "ejected {{service}}": "sum by (service) (genba_gateway_upstream_ejected)",
                "retries {{service}}": f"sum by (service) (rate(genba_gateway_upstream_retries_total[{WINDOW}]))",
            },
        )
    )
    page.with_panel(
        lines(
            "svc-sop: requests",
            "Answered requests a second by route template.",
            {"{{route}}": f"sum by (route) (rate(genba_sop_requests_total[{WINDOW}]))"},
            unit="reqps",
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "svc-sop: duration, p95",
            "By route template. Uploads and evaluations work on video and take as long as that takes.",
            quantiles("genba_sop_request_seconds", by="route"),
            unit="s",
        )
    )
    page.with_panel(
        lines(
            "svc-sop: pools",
            "Places of the decoding and scoring pools that are taken, running and waiting.",
            {
                "extract": "sum(genba_sop_extract_places)",
                "evaluate": "sum(genba_sop_evaluate_places)",
            },
        )
    )


def _processes(page: Dashboard) -> None:
    page.with_row(row("Processes"))
    page.with_panel(
        lines(
            "CPU",
            "Cores in use by process. In embedded mode all services share one process and show the same line.",
            {
                f"{service} {{{{instance}}}}": f"sum by (instance) (rate(genba_{service}_process_cpu_seconds_total[{WINDOW}]))"
                for service in SERVICES
            },
        )
    )
    page.with_panel(
        lines(
            "Memory",
            "Resident memory by process; that of a worker's children is on the jobs' page.",
            {
                f"{service} {{{{instance}}}}": f"sum by (instance) (genba_{service}_process_resident_memory_bytes)"
                for service in SERVICES
            },
            unit="bytes",
        )
    )
    page.with_panel(
        lines(
            "File descriptors",
            "Share of the open files that a process may have. Near 1 it stops taking connections.",
            {
                f"{service} {{{{instance}}}}": f"max by (instance) (genba_{service}_process_open_fds / genba_{service}_process_max_fds)"
                for service in SERVICES
            },
            unit="percentunit",
        )
    )
    page.with_panel(
        lines(
            "Event loop",
            "How late the gateway's event loop last was. Above some milliseconds it has too much to do.",
            {"{{instance}}": "max by (instance) (genba_gateway_loop_lag_seconds)"},
            unit="s",
        )
    )
    page.with_panel(
        figure(
            "Last backup",
            "Age of the last `genba backup create`; nothing where none was ever made. An alert comes after two days.",
            "time() - max(genba_gateway_last_backup_timestamp_seconds > 0)",
            unit="s",
            bad_from=2 * 86_400,
        )
    )
