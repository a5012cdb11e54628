"""The assistant: what the gate decides, what waits for people, whether the model answers, and what the host watch sees."""

from __future__ import annotations

from deploy.grafana.panels import WINDOW, board, figure, lines, quantiles, row
from grafana_foundation_sdk.builders.dashboard import Dashboard


def build() -> Dashboard:
    """Genba · Assistant."""
    page = board(
        "genba-assistant",
        "Genba · Assistant",
        "Decisions, the queue for people, answers, the audit log and the host of svc-llm.",
    )
    _now(page)
    _decisions(page)
    _answers(page)
    _line(page)
    return page


def _now(page: Dashboard) -> None:
    page.with_row(row("Now"))
    page.with_panel(
        figure(
            "Waiting for a person",
            "Questions that the gate would not decide alone.",
            "max(genba_llm_escalations_waiting)",
        )
    )
    page.with_panel(
        figure(
            "Overdue",
            "Of those, the ones past their time.",
            "max(genba_llm_escalations_overdue)",
            bad_from=1,
        )
    )
    page.with_panel(
        figure(
            "Not on the host's list",
            "Programs, ports and connections; /v1/llm/host names them.",
            "sum(max by (kind) (genba_llm_host_violations))",
            bad_from=1,
        )
    )
    page.with_panel(
        figure(
            "Connections refused",
            "By the egress guard, in the last hour.",
            "sum(increase(genba_llm_egress_refused_total[1h]))",
            bad_from=1,
        )
    )


def _decisions(page: Dashboard) -> None:
    page.with_row(row("Decisions"))
    page.with_panel(
        lines(
            "Decisions",
            "A second, by what was decided.",
            {"{{decision}}": f"sum by (decision) (rate(genba_llm_decisions_total[{WINDOW}]))"},
            unit="reqps",
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "Not allowed, by domain",
            "A second.",
            {"{{domain}}": f'sum by (domain) (rate(genba_llm_decisions_total{{decision!="allow"}}[{WINDOW}]))'},
            unit="reqps",
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "Time to decide",
            "Quantiles. The record is not in it: it waits for the disk.",
            quantiles("genba_llm_decide_seconds"),
            unit="s",
        )
    )
    page.with_panel(
        lines(
            "Decided by people",
            "A second, by outcome: what the gate's confidence is held against.",
            {"{{outcome}}": f"sum by (outcome) (rate(genba_llm_overrides_total[{WINDOW}]))"},
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Spot checks",
            "A second, by what the person says: all but allow should not have been answered.",
            {"{{outcome}}": f"sum by (outcome) (rate(genba_llm_spot_checks_total[{WINDOW}]))"},
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Threshold and temperature",
            "The least P(ALLOW) that is answered, and what people's decisions made of the gate's confidence.",
            {"answers from": "max(genba_llm_allow_from)", "temperature": "max(genba_llm_review_temperature)"},
        )
    )
    page.with_panel(
        lines(
            "Decisions to learn from",
            "Of people, on the gate that decides now; llm.gate_review needs 30.",
            {"decisions": "max(genba_llm_review_rows)"},
        )
    )


def _answers(page: Dashboard) -> None:
    page.with_row(row("Answers"))
    page.with_panel(
        lines(
            "Answers",
            "A second, by how they ended; content_filter were cut off by the gate.",
            {"{{finish}}": f"sum by (finish) (rate(genba_llm_answers_total[{WINDOW}]))"},
            unit="reqps",
            stacked=True,
        )
    )
    page.with_panel(
        lines(
            "First piece",
            "From the decision to allow until the model's first piece.",
            quantiles("genba_llm_first_piece_seconds"),
            unit="s",
        )
    )
    page.with_panel(
        lines(
            "Model failures",
            "A second, by kind; each is an escalation.",
            {"{{kind}}": f"sum by (kind) (rate(genba_llm_backend_failures_total[{WINDOW}]))"},
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Tokens",
            "A second, as the model counts them.",
            {"{{kind}}": f"sum by (kind) (rate(genba_llm_tokens_total[{WINDOW}]))"},
        )
    )
    page.with_panel(
        lines(
            "Cut off",
            "Answers a second that the gate stopped while they were written.",
            {"{{decision}}": f"sum by (decision) (rate(genba_llm_cut_answers_total[{WINDOW}]))"},
            unit="reqps",
        )
    )
    page.with_panel(
        lines(
            "Entries per commit of the audit log",
            "Group commit: under load one sync of the disk carries many.",
            quantiles("genba_llm_audit_batch_entries"),
        )
    )
    page.with_panel(
        lines(
            "Audit entries that a sink did not take",
            "A second, by sink (syslog, Windows Event Log); the log itself has them.",
            {"{{sink}}": f"sum by (sink) (rate(genba_llm_audit_sink_failures_total[{WINDOW}]))"},
        )
    )


def _line(page: Dashboard) -> None:
    page.with_row(row("The training line"))
    page.with_panel(
        lines(
            "Progress",
            "Of the newest running job of each recipe, collect to evaluate.",
            {"{{recipe}}": 'max by (recipe) (genba_training_running_progress{recipe=~"llm[.].*"})'},
            unit="percentunit",
        )
    )
    page.with_panel(
        lines(
            "Loss",
            "Nats a token of the step said last; pet is how unsteady the hidden states are.",
            {"{{name}}": 'max by (name) (genba_training_running_value{recipe="llm.so8t",name=~"loss|pet"})'},
        )
    )
    page.with_panel(
        lines(
            "Gradient norm",
            "Before the clip.",
            {"norm": 'max(genba_training_running_value{recipe="llm.so8t",name="grad_norm"})'},
        )
    )
    page.with_panel(
        lines(
            "Versions",
            "The version that serves.",
            {"{{model}} {{alias}}": 'max by (model, alias) (genba_training_model_alias_version{model=~"llm[.].*"})'},
        )
    )
