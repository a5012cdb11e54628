// The record that proves what was decided: whether it holds, who asked what kind of thing, a proof to take away, a report for a period.

/** ``kit`` is what console.js shares. */
export function auditPage(kit) {
  const { el, t, table, row, field, get, save, leaf, attempt, show, when, onsubmit } = kit;
  const DECISIONS = ["ALLOW", "ESCALATE", "DENY", "REFUSE"];
  const COLOURS = { ALLOW: "good", ESCALATE: "major", DENY: "bad", REFUSE: "bad" };

  async function page() {
    const state = el("section", { id: "log-state" });
    const verify = el("button", { type: "button", className: "primary", data: { act: "verify" }, onclick: (event) => attempt(() => check(state), event.target) }, t("verifyLog"));
    return [el("h2", {}, t("doesItHold")), el("p", {}, verify, " ", el("span", { className: "help" }, t("verifyHelp"))), state, ...report(), ...(await decisions())];
  }

  async function check(into) {
    const found = await get("/v1/llm/verify");
    into.replaceChildren(
      el("p", { className: `verdict ${found.intact ? "good" : "bad"}` }, t(found.intact ? "logHolds" : "logBroken"), el("small", {}, ` ${found.entries.toLocaleString(kit.language())} ${t("entries")} · ${t("sealedEntries")} ${found.sealed.toLocaleString(kit.language())}`)),
      ...(found.intact ? [] : [el("p", { className: "bad" }, `${t("auditEntry")} ${found.broken_at ?? "–"}: ${found.reason ?? ""}`)]),
      el("details", {}, el("summary", {}, t("checkpoint")), el("p", { className: "help" }, t("checkpointHelp")), el("pre", {}, found.checkpoint ?? "–"), el("p", { className: "help" }, t("logKey")), el("pre", {}, found.key)),
    );
  }

  function report() {
    const day = (back) => { const at = new Date(); at.setDate(at.getDate() - back); return `${at.getFullYear()}-${String(at.getMonth() + 1).padStart(2, "0")}-${String(at.getDate()).padStart(2, "0")}`; };
    const first = el("input", { type: "date", name: "first", required: true, value: day(30) });
    const last = el("input", { type: "date", name: "last", required: true, value: day(0) });
    /** The reader's days, the last one included. */
    const period = () => {
      const end = new Date(`${last.value}T00:00:00`);
      end.setDate(end.getDate() + 1);
      return new URLSearchParams({ start: new Date(`${first.value}T00:00:00`).toISOString(), end: end.toISOString(), lang: kit.language() });
    };
    const csv = el("button", { type: "button", data: { act: "csv" }, onclick: (event) => form.reportValidity() && attempt(() => save(`/v1/llm/report?${period()}&format=csv`, `genba-${first.value}-${last.value}.csv`), event.target) }, t("csv"));
    const form = el("form", { id: "compliance", onsubmit: onsubmit(() => leaf(`/v1/llm/report?${period()}&format=html`)) }, el("h2", {}, t("complianceReport")), el("div", { className: "beside" }, field(t("firstDay"), first), field(t("lastDay"), last)), el("p", {}, el("button", { className: "primary" }, t("openReport")), " ", csv));
    return [form];
  }

  async function decisions() {
    const which = el("select", { id: "decided-as", title: t("decision"), onchange: () => attempt(look) }, el("option", { value: "" }, t("anyDecision")), DECISIONS.map((each) => el("option", { value: each }, t(`decision_${each}`))));
    const list = el("section", { id: "decisions" });
    const rows = el("tbody", {});
    const more = el("button", { type: "button", onclick: (event) => attempt(() => next(), event.target) }, t("more"));
    let cursor = null;
    async function next() {
      const found = await get(`/v1/llm/audit?limit=50${which.value && `&decision=${which.value}`}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
      cursor = found.next_cursor;
      more.hidden = !cursor;
      rows.append(...found.items.map((each) => row([
        when(each.created_at), each.created_by, each.route, each.domain, el("span", { className: COLOURS[each.decision] }, t(`decision_${each.decision}`)), each.policy_ref, each.reasons.join(", "), each.audit_id,
        el("button", { type: "button", data: { proof: each.id }, onclick: (event) => attempt(async () => { await save(`/v1/llm/proof/${each.id}`, `${each.id}.tlog-proof`); show(t("proofKept")); }, event.target) }, t("proof")),
      ])));
    }
    async function look() {
      cursor = null;
      rows.replaceChildren();
      await next();
      const head = el("thead", {}, el("tr", {}, [t("when"), t("askedBy"), t("action_column"), t("domain"), t("decision"), t("rule"), t("codes"), t("auditEntry"), ""].map((name) => el("th", { scope: "col" }, name))));
      list.replaceChildren(...(rows.childElementCount ? [el("div", { className: "scrolls" }, el("table", {}, head, rows))] : [el("p", { className: "help" }, t("none"))]));
    }
    await look();
    return [el("h2", {}, t("decisions")), which, list, more];
  }

  return page;
}
