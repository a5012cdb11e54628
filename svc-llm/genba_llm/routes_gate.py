"""``/v1/llm/triage``, ``/think``, ``/moderations``, ``/guardrail``: what the gate says, and answers that are not streamed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter

from genba_llm.assistant import whole
from genba_llm.decisions import Asked
from genba_llm.gate import Decision
from genba_llm.generation import Message, Options
from genba_llm.schemas import About, DecisionOut, ThinkIn, ThinkOut, TriageIn
from genba_llm.schemas_openai import GuardrailIn, GuardrailOut, ModerationIn, ModerationOut, ModerationResult
from genba_llm.service import Here
from genba_llm.texts import refusal
from genba_llm.verdict import Action
from genba_llm.wire_out import citations, decision_out
from genba_shared.clearance import Clearance
from genba_shared.dependencies import require
from genba_shared.ids import new_id
from genba_shared.principal import Principal
from genba_shared.service import problem_responses

router = APIRouter(prefix="/v1/llm", tags=["llm"])

Reader = Annotated[Principal, require("llm:read")]
Writer = Annotated[Principal, require("llm:write")]
LITELLM_SUFFIX = "/beta/litellm_basic_guardrail_api"  # what LiteLLM puts behind the address that it is given


def asked_of(about: About, text: str, *, route: str, action: Action = "ask", queue: bool = True) -> Asked:
    """What the gate is to decide."""
    return Asked(
        text,
        route,
        action,
        about.domain,
        None if about.classification is None else Clearance[about.classification.upper()],
        frozenset(about.compartments),
        about.language,
        queue=queue,
    )


@router.post("/triage", responses=problem_responses(413))
def triage(body: TriageIn, here: Here, principal: Writer) -> DecisionOut:
    """Decide whether a text may be answered: ALLOW, ESCALATE to a person, DENY to this caller, or REFUSE to everybody."""
    asked = asked_of(body, body.text, route="triage", action=body.action, queue=body.queue)
    return decision_out(here.decisions.decide(principal, asked))


@router.post("/think", responses=problem_responses(413, 502))
def think(body: ThinkIn, here: Here, principal: Writer) -> ThinkOut:
    """Answer with hidden thinking: only the final text leaves, and the audit log commits to the rest."""
    asked = asked_of(body, body.text, route="think")
    recorded = here.decisions.decide(principal, asked)
    if not recorded.allowed:
        return ThinkOut(
            answer=None,
            model=here.assistant.speakers.choose(documents=False).model,
            decision=decision_out(recorded),
            citations=[],
            finish=None,
            thinking_audit_id=None,
        )
    options = Options(
        max_tokens=min(body.max_tokens, here.settings.max_answer_tokens),
        temperature=body.temperature,
        seed=body.seed,
        think=True,
    )
    passages = here.assistant.passages(principal, body.text) if body.documents else []
    backend = here.assistant.speakers.choose(documents=bool(passages))
    turns = [Message("user", body.text)]
    released, written = here.assistant.answer(
        principal, recorded, turns, options, mode="final_only", passages=passages, asked=asked, backend=backend
    )
    text, _ = whole(released, written)
    if not written.answered and written.cut_by is None:
        recorded = here.decisions.escalate(principal, asked, "no_final_answer")
    said = text.strip() if written.answered and written.cut_by is None else None
    return ThinkOut(
        answer=said,
        model=backend.model,
        decision=decision_out(recorded),
        citations=citations(passages) if said else [],
        finish=written.finish,
        thinking_audit_id=written.audit_seq,
    )


@router.post("/moderations", responses=problem_responses(413))
def moderate(body: ModerationIn, here: Here, principal: Writer) -> ModerationOut:
    """OpenAI's moderation: flagged is what would not be answered at once. Nothing waits for a person."""
    results = []
    asked = [Asked(text or " ", "moderations", queue=False) for text in body.texts()]
    for recorded in here.decisions.decide_all(principal, asked):
        verdict = recorded.verdict
        fused = verdict.stage("fusion")
        scores = {each.label: float(fused.scores.get(each.label, 0.0)) if fused else 0.0 for each in Decision}
        results.append(
            ModerationResult(
                flagged=not recorded.allowed,
                categories={each.label: each is verdict.decision for each in Decision if each is not Decision.ALLOW},
                category_scores={name: score for name, score in scores.items() if name != "allow"},
                genba=decision_out(recorded),
            )
        )
    return ModerationOut(id=new_id("modr"), model=here.gate.model_version, results=results)


@router.post("/guardrail", responses=problem_responses(413))
@router.post(f"/guardrail{LITELLM_SUFFIX}", responses=problem_responses(413), name="guardrail_litellm")
def guardrail(body: GuardrailIn, here: Here, principal: Writer) -> GuardrailOut:
    """LiteLLM's Generic Guardrail API: give it ``…/v1/llm/guardrail`` as ``api_base``."""
    given = body.additional_provider_specific_params or {}
    action: Action = "disclose" if body.input_type == "response" else "ask"
    route = f"guardrail_{body.input_type}"
    found = here.decisions.decide_all(principal, [Asked(text, route, action, queue=False) for text in body.said()])
    if body.images:  # nobody here looks at pictures: a person has to
        asked = Asked(f"[images: {len(body.images)}]", route, action, queue=False)
        found.append(here.decisions.escalate(principal, asked, "image_not_read"))
    threshold = Decision.DENY if given.get("let_escalations_pass") is True else Decision.ESCALATE
    worst = max(found, key=lambda each: each.verdict.decision, default=None)
    if worst is not None and worst.verdict.decision >= threshold:
        return GuardrailOut(action="BLOCKED", blocked_reason=refusal(worst))
    return GuardrailOut(action="NONE")
