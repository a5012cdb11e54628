// The assistant and its queue: a question with what the gate decided and what the answer rests on, and the questions that
// wait for a person, with the time by which somebody should have decided. Whoever asked may not decide.

/** ``kit`` is what console.js shares: el, t, table, row, field, get, post, attempt, show, when, onsubmit. */
export function assistantPages(kit) {
  const { el, t, table, row, field, get, post, attempt, show, when, onsubmit } = kit;
  const verdict = (decision) => el("span", { className: colour(decision) }, t(`decision_${decision}`));

  async function ask() {
    const text = el("textarea", { name: "question", required: true, className: "short" });
    const said = el("section", { id: "answer" });
    const form = el("form", { id: "ask", onsubmit: onsubmit(async () => {
      said.replaceChildren(...answerOf(await post("/v1/llm/think", { text: text.value })));
    }) }, field(t("question"), text, t("questionHelp")), el("button", { className: "primary" }, t("ask")));
    return [form, said];
  }

  function answerOf({ answer, model, decision, citations }) {
    const rests = citations.map((c) => row([c.number, c.title, c.text]));
    return [
      el("p", { className: "verdict" }, verdict(decision.decision), el("small", {}, ` ${(100 * decision.confidence).toFixed(0)} % · ${t("domain")} ${decision.domain} · ${t("model")} ${model}`)),
      answer ? el("p", { className: "said" }, answer) : el("p", {}, t(`because_${decision.decision}`), decision.escalation_target ? ` → ${decision.escalation_target}` : ""),
      ...(rests.length ? [el("h3", {}, t("restsOn")), table(["", t("title"), t("passage")], rests)] : []),
      el("details", {}, el("summary", {}, t("whyDecided")), table([t("stage"), t("decision"), t("codes")], decision.evidence.map((e) => row([e.stage, verdict(e.decision), e.codes.join(", ")]))),
        el("p", { className: "help" }, `${t("rule")} ${decision.policy_ref} · ${t("auditEntry")} ${decision.audit_id}`)),
    ];
  }

  async function escalations() {
    const list = el("section", { id: "escalation-list" });
    const shown = el("section", { id: "escalation" });
    const learnt = el("section", { id: "review-state" });
    const state = el("select", { id: "escalation-state", title: t("status"), onchange: () => attempt(look) },
      ["open", "assigned", "decided", ""].map((s) => el("option", { value: s }, t(s ? `escalation_${s}` : "anyState"))));
    async function look() {
      const { items } = await get(`/v1/llm/escalations?limit=50${state.value ? `&status=${state.value}` : ""}`);
      list.replaceChildren(table([t("when"), t("askedBy"), t("goesTo"), t("status"), t("dueBy"), t("assignee")], items.map((each) => row([
        el("button", { type: "button", data: { escalation: each.id }, onclick: (event) => attempt(() => open(each.id, shown, look), event.target) }, when(each.created_at)),
        each.created_by, each.target, each.outcome ? verdict(each.outcome) : t(`escalation_${each.status}`),
        el("span", { className: each.overdue ? "bad" : "" }, when(each.due_at)), each.assignee,
      ]))));
    }
    await Promise.all([look(), fromPeople(learnt)]);
    return [state, list, shown, learnt];
  }

  /** What people have decided of the gate that decides now, and the job that lets it learn from it. */
  async function fromPeople(into) {
    const { review } = await get("/v1/llm/quality");
    const learn = el("button", { type: "button", data: { act: "learn" }, disabled: review.rows < review.needed, onclick: (event) => attempt(async () => {
      const job = await post("/v1/jobs", { recipe: "llm.gate_review", params: {} }, { once: true });
      show(`${t("jobStarted")} ${job.id}`);
    }, event.target) }, t("learnFromPeople"));
    into.replaceChildren(el("h2", {}, t("fromPeople")), el("p", {}, `${review.rows} / ${review.needed} ${t("decisionsOfPeople")} · ${t("spotChecks")} ${review.spot_checks}`
      + (review.false_allow_share === null ? "" : ` · ${t("wronglyAllowed")} ${(100 * review.false_allow_share).toFixed(1)} %`)),
    el("p", { className: "help" }, `${t("model")} ${review.model_version} · ${t("answersFrom")} ${review.allow_from.toFixed(3)} · ${t("atMostAllowed")} ${(100 * review.bound).toFixed(0)} %`), el("p", {}, learn));
  }

  async function open(id, into, changed) {
    const path = `/v1/llm/escalations/${id}`;
    const found = await get(path);
    const reason = el("input", { id: "why", maxLength: 2000, required: true });
    const again = async () => Promise.all([changed(), open(id, into, changed)]);
    const decide = (outcome) => el("button", { type: "button", data: { outcome }, onclick: (event) => attempt(async () => {
      if (reason.value.trim().length < 3) {
        reason.focus();
        return show(t("reasonNeeded"), true);
      }
      await post(`${path}/decision`, { outcome, reason: reason.value });
      await again();
    }, event.target) }, t(`decide_${outcome}`));
    const take = el("button", { type: "button", data: { act: "take" }, onclick: (event) => attempt(async () => { await post(`${path}/assign`, {}); await again(); }, event.target) }, t("take"));
    into.replaceChildren(
      el("h2", {}, t(found.decision.decision === "ALLOW" ? "spotCheck" : "question")), el("p", { className: "said" }, found.text ?? t("textGone")),
      el("p", { className: "help" }, `${t("domain")} ${found.decision.domain} · ${t("codes")} ${found.decision.reasons.join(", ")} · ${t("rule")} ${found.decision.policy_ref} · ${t("auditEntry")} ${found.decision.audit_id}`),
      ...(found.status === "decided"
        ? [el("p", {}, verdict(found.outcome), ` ${found.decided_by} · ${when(found.decided_at)}: ${found.reason}`)]
        : [el("p", {}, take), field(t("reason"), reason, t("decideHelp")), el("p", {}, decide("ALLOW"), " ", decide("DENY"), " ", decide("REFUSE"))]),
    );
  }

  return { ask, escalations };
}

const colour = (decision) => ({ ALLOW: "good", ESCALATE: "major", DENY: "bad", REFUSE: "bad" })[decision] ?? "";
