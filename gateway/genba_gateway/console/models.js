// Models: which version serves, which is tried beside it, and the moves between them. Every move carries a reason and the
// generation that was seen here, so two people who move an alias at the same time do not undo each other.

/** ``kit`` is what console.js shares: el, t, table, row, get, post, attempt, show, when, field. */
export function modelsPage(kit) {
  const { el, t, table, row, get, post, attempt, show, when, field } = kit;

  async function page() {
    const list = el("section", { id: "model-list" });
    const shown = el("section", { id: "model" });
    async function look() {
      const { models } = await get("/v1/models");
      list.replaceChildren(table([t("model"), t("champion"), t("since"), t("challenger"), t("rollbackTo"), t("newest")], models.map((model) => row([
        el("button", { type: "button", data: { model: model.name }, onclick: (event) => attempt(() => open(model.name, shown, look), event.target) }, model.name),
        model.champion.number, model.champion.number && when(model.champion.moved_at), model.challenger.number, model.previous, model.newest,
      ]))));
    }
    await look();
    return [list, shown];
  }

  async function open(name, into, changed) {
    const path = `/v1/models/${encodeURIComponent(name)}`;
    const [model, { versions }, { moves }] = await Promise.all([get(path), get(`${path}/versions?limit=50`), get(`${path}/history?limit=20`)]);
    const reason = el("input", { id: "reason", maxLength: 500, required: true });
    const move = (label, verb, body) => el("button", { type: "button", data: { move: label, number: String(body.number ?? "") }, onclick: (event) => attempt(async () => {
      if (!reason.value.trim()) {
        reason.focus();
        return show(t("reasonNeeded"), true);
      }
      await post(`${path}/${verb}`, { ...body, reason: reason.value });
      await Promise.all([changed(), open(name, into, changed)]);
      show(`${name}: ${t("moved")}`);
    }, event.target) }, t(label));
    const rows = versions.map((version) => row([
      version.number, version.aliases.map((alias) => t(alias)).join(", "), el("span", { className: version.status === "gate_failed" ? "bad" : "" }, t(`version_${version.status}`)),
      t(`outcome_${version.outcome}`), metricsOf(version), when(version.created_at),
      el("span", {},
        version.status === "registered" && version.number !== model.champion.number ? move("promote", "promote", { number: version.number, generation: model.champion.generation }) : "",
        version.status === "registered" && !version.aliases.length ? move("tryBeside", "promote", { number: version.number, alias: "challenger", generation: model.challenger.generation }) : ""),
    ], { data: { version: String(version.number) } }));
    into.replaceChildren(
      el("h2", {}, name), field(t("reason"), reason, t("reasonHelp")),
      el("p", {}, model.previous ? [move("rollback", "rollback", { generation: model.champion.generation }), ` → ${model.previous} `] : [], model.challenger.number ? move("endTrial", "clear", { generation: model.challenger.generation }) : null),
      table([t("version"), t("servesAs"), t("status"), t("outcome"), t("metrics"), t("when"), ""], rows),
      el("h3", {}, t("history")),
      table([t("when"), t("alias"), t("move"), t("from"), t("to"), t("by"), t("reason")], moves.map((m) => row([when(m.at), t(m.alias), t(`move_${m.kind}`), m.from_number, m.to_number, m.by, m.reason]))),
    );
  }

  function metricsOf(version) {
    const missed = version.gates.filter((gate) => !gate.passed).map((gate) => el("div", { className: "bad" }, gate.reason));
    const values = Object.entries(version.metrics).map(([name, value]) => `${name} ${value === null ? "–" : Number(value.toPrecision(4))}`).join(" · ");
    return el("div", {}, values, missed);
  }

  return page;
}
