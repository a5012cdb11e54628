// The labels of svc-sem and their masters. Whatever changes a label names the version that was seen here and leaves its reason in the
// history; no particle is touched by a new name.
import { particleForm, pictureFiles, thumb } from "/console/pictures.js";

/** ``kit`` is what console.js shares. */
export function labelsPage(kit) {
  const { el, t, table, row, field, get, post, call, change, send, attempt, show, when, onsubmit, may } = kit;
  const say = (text) => text?.[kit.language()] || text?.en || text?.ja || "–";
  const words = (text) => text.split(/[,、]/).map((each) => each.trim()).filter(Boolean);
  const path = (id) => `/v1/sem/labels/${id}`;
  const named = (each) => (each.status === "active" ? say(each.name) : `${say(each.name)} (${t(`label_${each.status}`)})`);

  async function page() {
    const list = el("section", { id: "label-list" });
    const shown = el("section", { id: "label-shown" });
    async function look() {
      const { items } = await get("/v1/sem/labels?limit=200");
      list.replaceChildren(items.length === 0 ? el("p", { className: "begin" }, t("noLabels")) : table([t("label"), t("masters"), t("particles"), t("definition_label"), t("status")], items.map((each) => row([
        el("button", { type: "button", data: { label: each.id }, onclick: (event) => attempt(() => open(each.id, shown, look), event.target) }, say(each.name)),
        each.masters, each.particles, say(each.definition), t(`label_${each.status}`),
      ]))));
    }
    await look();
    return [list, shown, ...(may("sem", "write") ? newLabel(shown, look) : [])];
  }

  /** Names in both languages; what else is said of a label, in the reader's, beside what the other language says already. */
  function body(label = null) {
    const lang = kit.language();
    const input = (name, value, most) => el("input", { name, value, maxLength: most });
    const en = input("en", label?.name.en ?? "", 120), ja = input("ja", label?.name.ja ?? "", 120);
    const definition = input("definition", label?.definition[lang] ?? "", 2000);
    const synonyms = input("synonyms", (label?.synonyms[lang] ?? []).join(", "), 2000);
    const both = (known, value) => ({ en: known?.en, ja: known?.ja, [lang]: value });
    return {
      fields: [el("div", { className: "beside" }, field(t("nameEn"), en), field(t("nameJa"), ja)), field(t("definition_label"), definition, t("definitionHelp")), field(t("synonyms"), synonyms, t("synonymsHelp"))],
      read: () => ({ name: { en: en.value.trim(), ja: ja.value.trim() }, definition: both(label?.definition, definition.value.trim()), synonyms: both(label?.synonyms, words(synonyms.value)) }),
    };
  }

  function newLabel(shown, look) {
    const { fields, read } = body();
    const form = el("form", { id: "new-label", onsubmit: onsubmit(async () => {
      const made = await post("/v1/sem/labels", read(), { once: true });
      form.reset();
      await look();
      await open(made.id, shown, look);
      shown.scrollIntoView({ block: "start" });
    }) }, el("h2", {}, t("newLabel")), ...fields, el("button", { className: "primary" }, t("create")));
    return [form];
  }

  async function open(id, into, changed) {
    const [label, { items: masters }, history, { items: others }] = await Promise.all([
      get(`${path(id)}?merged=show`), get(`/v1/sem/masters?label_id=${id}&limit=200`), get(`${path(id)}/history`), get("/v1/sem/labels?status=active&limit=200"),
    ]);
    const again = async () => { await Promise.all([changed(), open(id, into, changed)]); };
    const events = history.toReversed().map((each) => row([when(each.created_at), t(`label_${each.event}`), say(each.name), each.created_by, each.reason]));
    into.replaceChildren(
      el("h2", {}, named(label)), el("p", { className: "help" }, say(label.definition)),
      el("h3", {}, `${t("masters")} (${masters.length})`), mastersOf(masters, again),
      ...(may("sem", "write") ? [...(label.status === "active" ? [addMasters(label, again)] : []), revise(label, again), fate(label, others, again)] : []),
      el("h3", {}, t("history")), table([t("when"), t("what"), t("name"), t("by"), t("reason")], events),
    );
  }

  function mastersOf(masters, again) {
    if (masters.length === 0) return el("p", { className: "help" }, t("noMastersHere"));
    return el("div", { className: "shots" }, masters.map((master) => {
      const out = el("button", { type: "button", data: { master: master.id }, onclick: (event) => kit.sure(t("takeOutSure")) && attempt(async () => { await call(`/v1/sem/masters/${master.id}`, { method: "DELETE" }); await again(); }, event.target) }, t("takeOut"));
      return el("span", { className: "shot" }, thumb(kit, master.particle_id, 0, t("master")), ...(may("sem", "write") ? [out] : []));
    }));
  }

  function addMasters(label, again) {
    const { files, how, groups } = pictureFiles(kit);
    const progress = el("progress", { hidden: true });
    return el("form", { id: "new-masters", onsubmit: onsubmit(async () => {
      progress.hidden = false;
      try {
        for (const group of groups()) await send("/v1/sem/particles", particleForm(group, { name: group.name, master_of: label.id }), progress);
      } finally {
        progress.hidden = true;
        await again();
      }
      show(t("mastersKept"));
    }) }, field(t("masterFiles"), files, t("mastersHelp")), field(t("filesAre"), how), el("button", { className: "primary" }, t("addMasters")), progress);
  }

  function revise(label, again) {
    const { fields, read } = body(label);
    const reason = el("input", { name: "reason", maxLength: 500 });
    return el("details", {}, el("summary", {}, t("reviseLabel")), el("form", { id: "revise-label", onsubmit: onsubmit(async () => {
      await change("PUT", path(label.id), { ...read(), reason: reason.value }, { version: label.version });
      await again();
    }) }, ...fields, field(t("reason"), reason, t("renameHelp")), el("button", { className: "primary" }, t("save"))));
  }

  /** Merge, retire, restore: each with its reason. Splitting a label needs its masters dealt out, which the API takes. */
  function fate(label, others, again) {
    const reason = el("input", { name: "why", required: true, maxLength: 500 });
    const into = el("select", { name: "into" }, others.filter((each) => each.id !== label.id).map((each) => el("option", { value: each.id }, say(each.name))));
    const act = (verb, more = () => ({})) => el("button", { type: "button", data: { act: verb }, onclick: (event) => reason.reportValidity() && attempt(async () => {
      await post(`${path(label.id)}/${verb}`, { ...more(), reason: reason.value }, { version: label.version });
      await again();
    }, event.target) }, t(`${verb}Label`));
    const acts = label.status === "active"
      ? [...(into.options.length ? [field(t("mergeInto"), into), act("merge", () => ({ into: into.value }))] : []), act("retire")]
      : label.status === "split" ? [] : [act("restore")];
    return acts.length === 0 ? "" : el("details", {}, el("summary", {}, t("labelsFate")), el("form", { id: "label-fate" }, field(t("reason"), reason), el("div", { className: "beside" }, acts)));
  }

  return page;
}
