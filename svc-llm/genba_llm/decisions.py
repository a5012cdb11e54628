"""Ask the gate and put on record what it said, before anybody hears it.

A decision is one row, its commitments, its place in a person's queue if it is an ESCALATE or a spot check, and one entry of the audit log:
all of it in one transaction or none. If the record cannot be written, there is no answer. Knows no route.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue
from sqlalchemy.orm import Session

from genba_llm.gate import Asker, Decision, Gate, GateDecision, GateRequest
from genba_llm.metrics import LlmMetrics
from genba_llm.review import SPOT_CHECK
from genba_llm.sealed import TextVault, commit
from genba_llm.settings import Settings
from genba_llm.tables import DecisionRow, EscalationRow, SealedText
from genba_llm.verdict import Action, Domain, Evidence, Language
from genba_shared.audit import AuditEntry, NewEntry
from genba_shared.audit_writer import AuditWriter
from genba_shared.clearance import Clearance
from genba_shared.db import utc_now
from genba_shared.ids import new_id
from genba_shared.principal import Principal
from genba_shared.problems import PayloadTooLarge

EVENT_IDS: Mapping[Decision, int] = {
    Decision.ALLOW: 1001,
    Decision.ESCALATE: 1002,
    Decision.DENY: 1003,
    Decision.REFUSE: 1005,
}
ERROR_EVENT_ID = 1004
_QUEUE_GRACE = timedelta(days=30)  # the text that waits for a person goes even if nobody ever decides


@dataclass(frozen=True)
class Asked:
    """One thing to decide."""

    text: str
    route: str
    action: Action = "ask"
    domain: Domain | None = None
    classification: Clearance | None = None  # the policy's own
    compartments: frozenset[str] = frozenset()
    language: Language | None = None
    earlier: tuple[str, ...] = ()  # what the caller said with it: turns before it, names on a mail
    shown: tuple[str, ...] = ()  # what else the model gets to see from the caller: answers that may be forged, a schema
    queue: bool = True  # whether an ESCALATE waits for a person, or the caller sees to it

    @property
    def whole(self) -> str:
        """All that the caller said, as it is judged, committed to and shown to a person."""
        return "\n".join([*self.earlier, self.text])


@dataclass(frozen=True)
class Recorded:
    """A decision that is on record."""

    id: str
    created_at: datetime
    audit_seq: int
    verdict: GateDecision
    escalation_id: str | None = None

    @property
    def allowed(self) -> bool:
        return self.verdict.decision is Decision.ALLOW


@dataclass(frozen=True)
class _Pending:
    """A decision that is about to be written."""

    principal: Principal
    asked: Asked
    verdict: GateDecision
    decision_id: str
    created_at: datetime
    escalation_id: str | None
    salt: bytes
    entry: NewEntry

    @property
    def waits_for(self) -> str | None:
        """What the caller has to wait for: nobody waits for a spot check."""
        return self.escalation_id if self.verdict.decision is Decision.ESCALATE else None


@dataclass(frozen=True)
class Decisions:
    """The gate with its memory."""

    gate: Gate
    writer: AuditWriter
    vault: TextVault
    settings: Settings
    metrics: LlmMetrics

    def judge(self, principal: Principal, asked: Asked) -> GateDecision:
        """What the gate says, off the record. Raises: PayloadTooLarge for a text that is too long."""
        limit, longest = self.settings.max_prompt_chars, max(len(each) for each in (asked.whole, *asked.shown))
        if longest > limit:
            raise PayloadTooLarge(
                f"The text has {longest} characters; {limit} are taken.", limit=limit, unit="characters"
            )
        began = time.perf_counter()
        found = self._judge(principal, asked, asked.text)
        if asked.earlier:  # what is harmless bit by bit may not be as a whole
            together = self._judge(principal, asked, asked.whole)
            found = together if together.decision > found.decision else found
        for each in asked.shown:  # it comes in where it could have left as an answer
            verdict = self._judge(principal, asked, each)
            found = verdict if verdict.keeps_in and verdict.decision > found.decision else found
        self.metrics.decide_seconds.observe(time.perf_counter() - began)
        return found

    def _judge(self, principal: Principal, asked: Asked, text: str) -> GateDecision:
        asker = Asker(principal.clearance, principal.roles, principal.compartments)
        request = GateRequest(
            text, asked.domain, asked.classification, asked.action, asker, asked.language, asked.compartments
        )
        return self.gate.decide(request)

    def decide(self, principal: Principal, asked: Asked) -> Recorded:
        """Ask and record."""
        return self.record(principal, asked, self.judge(principal, asked))

    def escalate(self, principal: Principal, asked: Asked, reason: str, *, event_id: int | None = None) -> Recorded:
        """Record that a person has to look, for a reason that the gate does not know, such as a model that is down."""
        verdict = self.judge(principal, asked)
        decision = max(verdict.decision, Decision.ESCALATE)
        raised = dataclasses.replace(
            verdict,
            decision=decision,
            confidence=0.0,
            escalation_target=verdict.escalation_target or self.gate.policy.escalation_target(verdict.domain),
            reasons=(reason, *verdict.reasons),
            evidence=(*verdict.evidence, Evidence("gate", Decision.ESCALATE, (reason,))),
        )
        return self.record(principal, asked, raised, event_id=event_id)

    def decide_all(self, principal: Principal, asked: Sequence[Asked]) -> list[Recorded]:
        """Ask for several texts and record them together, for the price of one write."""
        pending = [self._pending(principal, each, self.judge(principal, each), None) for each in asked]
        return self._write(pending) if pending else []

    def record(
        self, principal: Principal, asked: Asked, verdict: GateDecision, *, event_id: int | None = None
    ) -> Recorded:
        """Write it down; back when it is durable."""
        return self._write([self._pending(principal, asked, verdict, event_id)])[0]

    def _pending(self, principal: Principal, asked: Asked, verdict: GateDecision, event_id: int | None) -> _Pending:
        decision_id, prompt = new_id("dec"), commit(asked.whole)
        checked = self._is_spot_check(asked, verdict)
        if checked:
            code = f"{SPOT_CHECK}{self.settings.spot_check_one_in}"
            verdict = dataclasses.replace(verdict, reasons=(code, *verdict.reasons))
        detail = self._detail(principal, asked, verdict, prompt.digest, event_id)
        escalates = asked.queue and (verdict.decision is Decision.ESCALATE or checked)
        return _Pending(
            principal,
            asked,
            verdict,
            decision_id,
            utc_now(),
            new_id("esc") if escalates else None,
            prompt.salt,
            NewEntry("llm.decision", principal.subject, decision_id, detail),
        )

    def _is_spot_check(self, asked: Asked, verdict: GateDecision) -> bool:
        one_in = self.settings.spot_check_one_in
        return one_in > 0 and asked.queue and verdict.decision is Decision.ALLOW and secrets.randbelow(one_in) == 0

    def _write(self, pending: Sequence[_Pending]) -> list[Recorded]:
        def also(session: Session, entries: list[AuditEntry]) -> None:
            for each, entry in zip(pending, entries, strict=True):
                session.add(self._row(each, entry.seq))
            session.flush()
            for each in pending:
                session.add(self._sealed(each))
                if each.escalation_id is not None:
                    session.add(self._escalation(each, each.escalation_id))

        written = self.writer.append_all([each.entry for each in pending], also=also)
        for each in pending:
            decided = each.verdict
            self.metrics.decisions.labels(each.asked.route, decided.decision.label, decided.domain).inc()
        return [
            Recorded(each.decision_id, each.created_at, entry.seq, each.verdict, each.waits_for)
            for each, entry in zip(pending, written, strict=True)
        ]

    def _escalation(self, pending: _Pending, escalation_id: str) -> EscalationRow:
        return EscalationRow(
            id=escalation_id,
            tenant=pending.principal.tenant,
            clearance=_label(pending.principal, pending.verdict),
            created_at=pending.created_at,
            created_by=pending.principal.subject,
            decision_id=pending.decision_id,
            target=pending.verdict.escalation_target or "administrator",
            compartments=sorted(pending.asked.compartments),
            status="open",
            due_at=pending.created_at + timedelta(seconds=self.settings.escalation_sla_s),
        )

    def note_answer(
        self, principal: Principal, recorded: Recorded, *, answer: str, hidden: str, facts: Mapping[str, JsonValue]
    ) -> AuditEntry:
        """Put on record what was answered and thought: commitments to both, and the texts only where the policy says so."""
        [written] = self.hand_in_answer(principal, recorded, answer=answer, hidden=hidden, facts=facts).result()
        return written

    def hand_in_answer(
        self, principal: Principal, recorded: Recorded, *, answer: str, hidden: str, facts: Mapping[str, JsonValue]
    ) -> Future[list[AuditEntry]]:
        """The same without waiting for it, for who may not: the record is made a moment later."""
        said, thought = commit(answer), commit(hidden)
        full = self.gate.policy.state.audit_text == "full"
        expires_at = utc_now() + timedelta(days=self.settings.text_retention_days)
        detail: dict[str, JsonValue] = {**facts, "answer": said.digest, "answer_chars": len(answer)}
        if hidden:
            detail["thinking"] = thought.digest
        entry = NewEntry("llm.answer", principal.subject, recorded.id, detail)

        def also(session: Session, _entries: list[AuditEntry]) -> None:
            for kind, text, salt in (("answer", answer, said.salt), ("thinking", hidden, thought.salt)):
                if text:
                    sealed = (
                        self.vault.seal(text, bound_to=f"{recorded.id}/{kind}") if full and kind == "answer" else None
                    )
                    keep = "policy" if sealed else "commitment"
                    session.merge(
                        SealedText(
                            decision_id=recorded.id,
                            kind=kind,
                            salt=salt,
                            sealed=sealed,
                            keep=keep,
                            expires_at=expires_at,
                        )
                    )

        return self.writer.submit([entry], also=also)

    def _detail(
        self, principal: Principal, asked: Asked, verdict: GateDecision, prompt: str, event_id: int | None
    ) -> dict[str, JsonValue]:
        return {
            "event_id": event_id or EVENT_IDS[verdict.decision],
            "decision": verdict.decision.name,
            "confidence": round(verdict.confidence, 6),
            "route": asked.route,
            "action": asked.action,
            "domain": verdict.domain,
            "classification": verdict.classification.label,
            "policy_ref": verdict.policy_ref,
            "policy": verdict.policy,
            "identity": verdict.identity,
            "escalation_target": verdict.escalation_target,
            "reasons": [*verdict.reasons[:32]],
            "model": verdict.model_version,
            "prompt": prompt,
            "prompt_chars": len(asked.whole),
            "tenant": principal.tenant,
        }

    def _row(self, pending: _Pending, audit_seq: int) -> DecisionRow:
        principal, asked, verdict = pending.principal, pending.asked, pending.verdict
        fused = verdict.stage("fusion")
        return DecisionRow(
            id=pending.decision_id,
            tenant=principal.tenant,
            clearance=_label(principal, verdict),
            created_at=pending.created_at,
            created_by=principal.subject,
            route=asked.route,
            action=asked.action,
            domain=verdict.domain,
            language=verdict.language,
            decision=int(verdict.decision),
            confidence=verdict.confidence,
            allow_probability=fused.scores.get("allow") if fused else None,
            policy_ref=verdict.policy_ref[:200],
            escalation_target=verdict.escalation_target,
            reasons=list(verdict.reasons)[:32],
            model_version=verdict.model_version[:200],
            sketch=self.vault.sketch(asked.text),
            audit_seq=audit_seq,
        )

    def _sealed(self, pending: _Pending) -> SealedText:
        full, queued = self.gate.policy.state.audit_text == "full", pending.escalation_id is not None
        keep = "policy" if full else "queue" if queued else "commitment"
        bound_to = f"{pending.decision_id}/prompt"
        held_for = _QUEUE_GRACE if keep == "queue" else timedelta(days=self.settings.text_retention_days)
        return SealedText(
            decision_id=pending.decision_id,
            kind="prompt",
            salt=pending.salt,
            sealed=self.vault.seal(pending.asked.whole, bound_to=bound_to) if full or queued else None,
            keep=keep,
            expires_at=pending.created_at + held_for,
        )


def _label(principal: Principal, verdict: GateDecision) -> int:
    return min(int(principal.clearance), max(int(verdict.classification), 1))
