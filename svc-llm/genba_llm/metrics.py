"""What svc-llm measures. Labels are decisions, domains and routes, never texts or ids."""

from __future__ import annotations

from genba_shared.telemetry import Metrics

_FAST_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class LlmMetrics:
    """The metrics of one application."""

    def __init__(self, metrics: Metrics) -> None:
        self.decisions = metrics.counter("decisions", "Decisions of the gate.", ["route", "decision", "domain"])
        self.decide_seconds = metrics.histogram(
            "decide_seconds", "Time for the gate to decide.", buckets=_FAST_BUCKETS_S
        )
        self.answers = metrics.counter("answers", "Answers by how they ended.", ["finish"])
        self.first_piece_seconds = metrics.histogram(
            "first_piece_seconds", "Time from a decision to allow until the model's first piece."
        )
        self.tokens = metrics.counter("tokens", "Tokens as the model counts them.", ["kind"])
        self.cut_answers = metrics.counter(
            "cut_answers", "Answers that the gate cut off while they were written.", ["decision"]
        )
        self.backend_failures = metrics.counter("backend_failures", "Generations that the model failed.", ["kind"])
        self.escalations_waiting = metrics.gauge("escalations_waiting", "Questions that wait for a person.")
        self.escalations_overdue = metrics.gauge("escalations_overdue", "Of those, the ones past their time.")
        self.overrides = metrics.counter("overrides", "Escalations that people decided.", ["outcome"])
        self.spot_checks = metrics.counter(
            "spot_checks", "Allowed requests that a person looked at, by what the person says.", ["outcome"]
        )
        self.review_rows = metrics.gauge(
            "review_rows", "Decisions of people from which llm.gate_review can learn about the gate that decides now."
        )
        self.review_temperature = metrics.gauge(
            "review_temperature", "What divides the gate's log-odds since people's decisions were taken in; 1 before."
        )
        self.allow_from = metrics.gauge("allow_from", "The least probability of ALLOW with which the gate answers.")
        self.audit_batch_entries = metrics.histogram(
            "audit_batch_entries",
            "Entries that one commit of the audit log held.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
        )
        self.audit_sink_failures = metrics.counter(
            "audit_sink_failures",
            "Entries of the audit log that syslog or the Windows Event Log did not take; the log itself has them.",
            ["sink"],
        )
        self.egress_refused = metrics.counter("egress_refused", "Connections that the egress guard refused.")
        self.host_violations = metrics.gauge(
            "host_violations", "Programs, ports and connections on this host that are not on the list.", ["kind"]
        )
        self.policy_revision = metrics.gauge("policy_revision", "Revision in force.", ["kind"])
        for kind in ("process", "port", "connection"):
            self.host_violations.labels(kind).set(0)
