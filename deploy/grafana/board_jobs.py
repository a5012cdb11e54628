"""Do jobs move: what waits and for how long, who works on it, what was lost or given up."""

from __future__ import annotations

from deploy.grafana.panels import WINDOW, board, figure, lines, quantiles, row
from grafana_foundation_sdk.builders.dashboard import Dashboard


def build() -> Dashboard:
    """Genba · Jobs."""
    page = board(
        "genba-jobs",
        "Genba · Jobs",
        "Queues, workers and the API of svc-training. Figures of queues come from the job table.",
    )
    page.with_row(row("Now"))
    page.with_panel(
        figure(
            "Waiting", "Jobs that wait for a worker, all queues.", "sum(max by (queue) (genba_training_queued_jobs))"
        )
    )
    page.with_panel(
        figure(
            "Oldest waits",
            "How long the job that is due longest has waited. Alert: 15 minutes.",
            "max(genba_training_oldest_queued_age_seconds)",
            unit="s",
            bad_from=900,
        )
    )
    page.with_panel(figure("Running", "Jobs that a worker holds.", "sum(max by (queue) (genba_training_running_jobs))"))
    page.with_panel(
        figure(
            "Dead letters",
            "Jobs out of attempts. Look at `genba jobs list --status dead`, mend the cause, requeue.",
            "sum(max by (queue) (genba_training_dead_jobs))",
            bad_from=1,
        )
    )
    page.with_panel(
        figure(
            "Sweepers that lead",
            "One process keeps the queue true. None: lost wake-ups stay lost.",
            "sum(genba_training_sweeper_leads)",
            bad_below=1,
        )
    )
    page.with_panel(
        figure(
            "Workers that take jobs",
            "All queues together.",
            "count(max by (instance) (genba_worker_taking) == 1) or vector(0)",
            bad_below=1,
        )
    )
    _running(page)
    _queues(page)
    _workers(page)
    _api(page)
    return page


def _running(page: Dashboard) -> None:
    page.with_row(row("What runs"))
    page.with_panel(
        lines(
            "Progress",
            "Of the newest running job of each recipe.",
            {"{{recipe}}": "max by (recipe) (genba_training_running_progress)"},
            unit="percentunit",
        )
    )
    page.with_panel(
        lines(
            "Loss",
            "What training jobs said last. The rest of their figures: genba_training_running_value, by name.",
            {"{{recipe}}": 'max by (recipe) (genba_training_running_value{name="loss"})'},
        )
    )


def _queues(page: Dashboard) -> None:
    page.with_row(row("Queues"))
    page.with_panel(
        lines(
            "Waiting and running",
            "By queue. Waiting that grows while all slots are busy: add workers.",
            {
                "waiting {{queue}}": "max by (queue) (genba_training_queued_jobs)",
                "running {{queue}}": "max by (queue) (genba_training_running_jobs)",
            },
        )
    )
    page.with_panel(
        lines(
            "Oldest due job",
            "How long the job that is due longest has waited, by queue.",
            {"{{queue}}": "max by (queue) (genba_training_oldest_queued_age_seconds)"},
            unit="s",
        )
    )
    page.with_panel(
        lines(
            "Given up and fallen silent",
            "Dead letters, and running jobs that lost their worker within the hour.",
            {
                "dead {{queue}}": "max by (queue) (genba_training_dead_jobs)",
                "fallen silent": "sum(increase(genba_training_leases_expired_total[1h]))",
            },
        )
    )


def _workers(page: Dashboard) -> None:
    page.with_row(row("Workers"))
    page.with_panel(
        lines(
            "Slots",
            "Jobs in hand and jobs that could be, over all workers.",
            {"busy": "sum(genba_worker_busy_slots)", "slots": "sum(genba_worker_slots)"},
        )
    )
    page.with_panel(
        lines(
            "Takes from",
            "Workers that take jobs, by queue. A queue with jobs and without a worker pages after five minutes.",
            {"{{queue}}": "sum by (queue) (genba_worker_taking)"},
        )
    )
    page.with_panel(
        lines(
            "CPU of jobs",
            "Cores in use by the children that run jobs, by worker.",
            {"{{instance}}": f"sum by (instance) (rate(genba_worker_children_cpu_seconds_total[{WINDOW}]))"},
        )
    )
    page.with_panel(
        lines(
            "Memory of jobs",
            "Resident memory of the children that run jobs, by worker.",
            {"{{instance}}": "sum by (instance) (genba_worker_children_resident_memory_bytes)"},
            unit="bytes",
        )
    )
    page.with_panel(
        lines(
            "GPU busy",
            "Share of time in which a GPU worked. Empty where workers have none.",
            {"{{instance}} {{gpu}}": "max by (instance, gpu) (genba_worker_gpu_busy_ratio)"},
            unit="percentunit",
        )
    )
    page.with_panel(
        lines(
            "GPU memory",
            "Share of a GPU's memory in use, by whomever.",
            {
                "{{instance}} {{gpu}}": "max by (instance, gpu) (genba_worker_gpu_memory_used_bytes / genba_worker_gpu_memory_bytes)"
            },
            unit="percentunit",
        )
    )


def _api(page: Dashboard) -> None:
    page.with_row(row("The API of jobs"))
    page.with_panel(
        lines(
            "Requests",
            "Answered requests a second by route template.",
            {"{{route}}": f"sum by (route) (rate(genba_training_requests_total[{WINDOW}]))"},
            unit="reqps",
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "Errors",
            "5xx a second by route template and status.",
            {
                "{{route}} {{status}}": f'sum by (route, status) (rate(genba_training_requests_total{{status=~"5.."}}[{WINDOW}]))'
            },
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Duration, p95",
            "By route template. Event streams count with all the time they are open.",
            quantiles("genba_training_request_seconds", by="route"),
            unit="s",
        )
    )
