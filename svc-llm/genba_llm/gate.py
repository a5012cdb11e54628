"""The gate: every stage looks at a request, the highest decision counts, and whatever goes wrong goes to a person.

``Gate.decide`` never raises for anything a user can write and never answers ALLOW for something that it did not look
at: a stage that fails or runs out of time counts as ESCALATE. Rules, classifier and fusion are passed in, so that each
can be replaced while requests are in flight, and be measured alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from genba_llm.classifier import Classifier, champion
from genba_llm.fusion import Fusion, Signals, default_fusion, signals_of
from genba_llm.normalise import Normalised, normalise
from genba_llm.personal_data import find_personal_data
from genba_llm.policy import Facts, Policy, Rules, Ruling
from genba_llm.verdict import (
    ACTIONS,
    DOMAINS,
    Action,
    Asker,
    Decision,
    Domain,
    Evidence,
    GateDecision,
    GateRequest,
    Language,
    Stage,
)
from genba_shared.clearance import Clearance

T = TypeVar("T")
_Model = tuple[Classifier, Fusion]
MAX_TEXT_CHARS = 100_000


class Reasoner(Protocol):
    """A language model that scores the four decisions: ``one_forward.OneForward``, or whoever answers like it."""

    version: str

    def probs(self, text: str, *, domain: Domain, action: Action) -> npt.NDArray[np.float64]:
        """(4,) probabilities of ALLOW, ESCALATE, DENY, REFUSE."""
        ...


@dataclass
class _Look:
    """What has been found of one request so far."""

    deadline_s: float
    evidence: list[Evidence]
    failed: bool = False

    def stage(self, name: Stage, work: Callable[[], tuple[T, Evidence]]) -> T | None:
        """Run one stage: its result, or None and an ESCALATE on record if it failed or came too late."""
        if self.failed and time.monotonic() >= self.deadline_s:
            return None
        began = time.perf_counter()
        try:
            value, found = work()
        except Exception as error:  # noqa: BLE001  # fail closed: whatever a stage trips over, a person looks
            self._fail(name, f"error_{type(error).__name__.lower()}", began)
            return None
        if time.monotonic() > self.deadline_s:
            self._fail(name, "timeout", began, at_least=found.decision)
            return None
        self.evidence.append(replace(found, elapsed_ms=(time.perf_counter() - began) * 1e3))
        return value

    def _fail(self, name: Stage, code: str, began: float, *, at_least: Decision = Decision.ESCALATE) -> None:
        self.failed = True
        took_ms = (time.perf_counter() - began) * 1e3
        self.evidence.append(Evidence(name, max(at_least, Decision.ESCALATE), (f"{name}_{code}",), {}, took_ms))


class Gate:
    """The five stages in one place. Thread-safe as far as its parts are; holds no state of a request."""

    def __init__(
        self,
        policy: Policy | None = None,
        classifier: Classifier | None = None,
        *,
        fusion: Fusion | None = None,
        reasoner: Reasoner | None = None,
        time_limit_s: float = 5.0,
    ) -> None:
        """Parts that are not given are those that ship; there is no reasoner unless one is given."""
        self.policy = policy or Policy()
        self._model = (classifier or champion(), fusion or default_fusion())
        self.reasoner = reasoner
        self.time_limit_s = time_limit_s
        self._model[0].logits("準備")  # loads the dictionary now and not under the first request's clock
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="gate-reasoner") if reasoner else None

    @property
    def classifier(self) -> Classifier:
        return self._model[0]

    @property
    def fusion(self) -> Fusion:
        return self._model[1]

    @property
    def model(self) -> _Model:
        """Classifier and fusion that decide now, as one pair."""
        return self._model

    def use(self, classifier: Classifier, fusion: Fusion) -> None:
        """Let another champion decide from the next request on; those in flight keep the pair that they took."""
        self._model = (classifier, fusion)

    @property
    def model_version(self) -> str:
        """What the answer names: classifier, fusion, and the reasoner where there is one."""
        return self._version_of(self._model)

    def _version_of(self, model: _Model) -> str:
        parts = [model[0].version, model[1].version]
        return "+".join([*parts, self.reasoner.version] if self.reasoner else parts)

    def decide(self, request: GateRequest) -> GateDecision:
        """Decide one request. Raises: ValueError for an action or domain that does not exist, or an over-long text."""
        _check(request)
        look, model, rules = _Look(time.monotonic() + self.time_limit_s, []), self._model, self.policy.in_force
        plain = look.stage("normalise", lambda: _normalise(request.text))
        if plain is None:
            return self._conclude(request, look, model, rules, None, None, None)
        domain = _domain(request, plain, rules)
        kinds = look.stage("personal_data", lambda: _personal_data(plain))
        ruling = look.stage("policy", lambda: _rule(request, plain, rules, kinds or frozenset()))
        signals = look.stage("classifier", lambda: _classify(plain, model[0]))
        if signals is not None and self.reasoner is not None:
            reasoned = look.stage("reasoning", lambda: self._reason(plain, domain, request.action, look.deadline_s))
            signals = replace(signals, reasoned=reasoned, reasoner=self.reasoner.version)
        probs = look.stage("fusion", lambda: _fuse(signals, model[1])) if signals is not None else None
        return self._conclude(request, look, model, rules, plain, ruling, probs)

    def _reason(
        self, plain: Normalised, domain: Domain, action: Action, deadline_s: float
    ) -> tuple[npt.NDArray[np.float64], Evidence]:
        """The model's own scores, on a thread: it may take longer than there is, and then nobody waits for it."""
        if self._pool is None or self.reasoner is None:
            raise RuntimeError("no reasoner")
        future = self._pool.submit(self.reasoner.probs, plain.prompt, domain=domain, action=action)
        try:
            probs = future.result(timeout=max(0.0, deadline_s - time.monotonic()))
        except FutureTimeout:
            future.cancel()
            raise
        if probs.shape != (4,) or not np.isfinite(probs).all():
            raise ValueError("the reasoner's scores are no four probabilities")
        decision = Decision(int(probs.argmax()))
        scores = {each.label: float(probs[each]) for each in Decision}
        return probs, Evidence("reasoning", Decision.ALLOW, (f"reasoning_{decision.label}",), scores)

    def _conclude(
        self,
        request: GateRequest,
        look: _Look,
        model: _Model,
        rules: Rules,
        plain: Normalised | None,
        ruling: Ruling | None,
        probs: npt.NDArray[np.float64] | None,
    ) -> GateDecision:
        evidence = sorted(look.evidence, key=lambda each: -each.decision)
        decision = evidence[0].decision if evidence else Decision.ESCALATE
        domain = _domain(request, plain, rules) if plain else request.domain or "general"
        reasons = [code for each in evidence if each.decision > Decision.ALLOW for code in each.codes]
        reasons += [f"trick_{name}" for name in plain.tricks] if plain else []
        by_rule = ruling is not None and ruling.decision == decision
        return GateDecision(
            decision=decision,
            confidence=_confidence(decision, probs, by_rule=by_rule and decision > Decision.ALLOW),
            domain=domain,
            policy_ref=_reference(rules, ruling, decision, failed=look.failed),
            escalation_target=rules.escalation_target(domain) if decision is Decision.ESCALATE else None,
            reasons=tuple(dict.fromkeys(reasons)),
            evidence=tuple(look.evidence),
            model_version=self._version_of(model),
            policy=rules.fingerprint,
            identity=rules.identity.reference,
            classification=_classification(request, rules),
            language=request.language or (plain.language if plain else "ja"),
        )


def _rule(request: GateRequest, plain: Normalised, rules: Rules, kinds: frozenset[str]) -> tuple[Ruling, Evidence]:
    facts = Facts(
        action=request.action,
        asker=request.asker,
        classification=_classification(request, rules),
        domain=_domain(request, plain, rules),
        compartments=request.compartments,
        topics=rules.topics_in([plain.text, *(view.text for view in plain.views)]),
        personal_data=kinds,
    )
    ruling = rules.rule(facts)
    codes = tuple(f"rule_{name}" for name in ruling.rules) if ruling.decision else ()
    return ruling, Evidence("policy", ruling.decision, codes)


def _classification(request: GateRequest, rules: Rules) -> Clearance:
    return rules.default_classification if request.classification is None else request.classification


def _domain(request: GateRequest, plain: Normalised, rules: Rules) -> Domain:
    return request.domain or rules.domain_of(plain.text)


def _classify(plain: Normalised, classifier: Classifier) -> tuple[Signals, Evidence]:
    signals = signals_of(plain, classifier)
    probs = signals.classifier_probs
    decision = Decision(int(probs.argmax()))
    scores = {each.label: float(probs[each]) for each in Decision}
    return signals, Evidence("classifier", Decision.ALLOW, (f"classifier_{decision.label}",), scores)


def _fuse(signals: Signals, fusion: Fusion) -> tuple[npt.NDArray[np.float64], Evidence]:
    fused = fusion.decide(signals)
    scores = {each.label: float(fused.probs[each]) for each in Decision}
    codes = (f"content_{fused.decision.label}",) if fused.decision else ()
    if fused.abstained:
        codes = ("content_uncertain",)
    return fused.probs, Evidence("fusion", fused.decision, codes, scores)


def _check(request: GateRequest) -> None:
    if request.action not in ACTIONS:
        raise ValueError(f"{request.action!r} is no action; use one of {', '.join(ACTIONS)}.")
    if request.domain is not None and request.domain not in DOMAINS:
        raise ValueError(f"{request.domain!r} is no domain; use one of {', '.join(DOMAINS)}.")
    if len(request.text) > MAX_TEXT_CHARS:
        raise ValueError(f"The text has {len(request.text)} characters; the gate reads {MAX_TEXT_CHARS}.")


def _normalise(text: str) -> tuple[Normalised, Evidence]:
    plain = normalise(text)
    return plain, Evidence("normalise", Decision.ALLOW, plain.tricks, {"views": float(len(plain.views))})


def _personal_data(plain: Normalised) -> tuple[frozenset[str], Evidence]:
    readings = (plain.text, *(view.text for view in plain.views))
    kinds = frozenset(found.kind for text in readings for found in find_personal_data(text))
    return kinds, Evidence("personal_data", Decision.ALLOW, tuple(sorted(f"has_{kind}" for kind in kinds)))


def _confidence(decision: Decision, probs: npt.NDArray[np.float64] | None, *, by_rule: bool) -> float:
    """How likely it is that the request may be answered (for ALLOW) or may not (for the rest); 1 where a rule says so."""
    if by_rule:
        return 1.0
    if probs is None:
        return 0.0
    allow = float(probs[Decision.ALLOW])
    return allow if decision is Decision.ALLOW else 1.0 - allow


def _reference(rules: Rules, ruling: Ruling | None, decision: Decision, *, failed: bool) -> str:
    if ruling is not None and (ruling.decision == decision):
        return ruling.policy_ref
    return f"{rules.state.reference}/{'fail_closed' if failed else f'content_{decision.label}'}"


__all__ = [
    "Action",
    "Asker",
    "Decision",
    "Domain",
    "Evidence",
    "Gate",
    "GateDecision",
    "GateRequest",
    "Language",
    "Reasoner",
    "Stage",
]
