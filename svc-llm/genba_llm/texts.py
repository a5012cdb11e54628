"""What the service says to people when it does not answer, in both languages."""

from __future__ import annotations

from genba_llm.decisions import Recorded
from genba_llm.gate import Decision

_SAID = {
    Decision.ESCALATE: {
        "ja": "この質問は担当者（{target}）の確認が必要です。受付番号: {id}",
        "en": "This question has to be looked at by a person ({target}). Reference: {id}",
    },
    Decision.DENY: {
        "ja": "この質問には、あなたの権限ではお答えできません（{policy}）。受付番号: {id}",
        "en": "You are not cleared for an answer to this ({policy}). Reference: {id}",
    },
    Decision.REFUSE: {
        "ja": "この質問にはお答えできません（{policy}）。受付番号: {id}",
        "en": "This cannot be answered ({policy}). Reference: {id}",
    },
}


def refusal(recorded: Recorded) -> str:
    """Why there is no answer, in the language of the question."""
    verdict = recorded.verdict
    said = _SAID[verdict.decision][verdict.language]
    return said.format(target=verdict.escalation_target or "administrator", policy=verdict.policy_ref, id=recorded.id)
