// Particles on their way in: pictures are sent and decided one particle after another, and found again by words or by what looks alike.
import { particleForm, pictureFiles, thumb } from "/console/pictures.js";

/** ``kit`` is what console.js shares. */
export function classifyPages(kit) {
  const { el, t, table, row, field, get, post, send, save, leaf, begin, attempt, show, onsubmit, may } = kit;
  const say = (text) => text?.[kit.language()] || text?.en || text?.ja || "–";
  const percent = (share) => (share === null || share === undefined ? "" : ` ${(100 * share).toFixed(0)} %`);

  const picture = (particle) => el("div", { className: "thumb" }, thumb(kit, particle.id, particle.recommended_view ?? 0, particle.name));

  // What search says of a query and of a hit comes as codes and English measures.
  const MEASURES = /aspect ratio|circularity|solidity|diameter|th percentile/g;
  const measured = (condition) => condition.replace(MEASURES, (word) => t(`measure_${word}`));
  const shape = (name) => t(`shape_${name.replace(" ", "_")}`);
  const fits = (code) => (code.startsWith("shape:") ? shape(code.slice(6)) : code.startsWith("label:") ? `${t("label")}: ${code.slice(6)}` : t(`matched_${code}`));

  const COLUMNS = ["", "name", "label", "status", "reason", "diameter"];
  const result = (p) => row([
    picture(p), p.name, p.label ? say(p.label.name) + percent(p.confidence) : (p.label_set ?? []).map((each) => say(each.label.name) + percent(each.probability)).join(", "),
    el("span", { className: { confirmed: "good", reviewed: "good", unknown: "major", needs_review: "major", unreadable: "bad" }[p.status] ?? "" }, t(`particle_${p.status}`)),
    p.reasons.map(say).join("; "), p.diameter_um === null ? "–" : `${p.diameter_um.toPrecision(3)} µm`,
  ], { data: { particle: p.id } });

  async function sendPage() {
    // The lane is a matter of masters; where it is lacking, the service says of which labels.
    const lacking = await get("/v1/sem/lane").then(() => null, (refused) => { if (refused.status !== 409) throw refused; return refused.message; });
    const { files, how, groups } = pictureFiles(kit);
    const batch = el("input", { name: "batch", maxLength: 80, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*" });
    const size = el("input", { name: "pixel_size_nm", type: "number", min: 0, step: "any" });
    const progress = el("progress", { hidden: true });
    const said = el("p", { className: "help", id: "sent" });
    const results = el("tbody", {});
    const head = el("thead", {}, el("tr", {}, COLUMNS.map((name) => el("th", { scope: "col" }, name && t(name)))));
    const shown = el("section", { id: "classified", hidden: true }, el("div", { className: "scrolls" }, el("table", {}, head, results)));
    const batches = el("section", { id: "batches" });
    const form = el("form", { id: "classify", onsubmit: onsubmit(async () => {
      const all = groups();
      results.replaceChildren();
      shown.hidden = progress.hidden = false;
      let done = 0, refused = 0;
      try {
        for (const group of all) {
          said.textContent = `${done + refused + 1} / ${all.length}: ${group.name}`;
          try {
            results.append(result(await send("/v1/sem/particles", particleForm(group, { name: group.name, batch: batch.value, pixel_size_nm: size.value }), progress)));
            done += 1;
          } catch (failure) {
            if (failure.status === 401 || failure.status === undefined) throw failure;
            refused += 1; // one bad file does not hold up the others
            results.append(row(["", group.name, "", el("span", { className: "bad" }, t("refused")), failure.message, ""]));
          }
        }
      } finally {
        progress.hidden = true;
        said.textContent = `${done} / ${all.length}` + (refused ? ` · ${t("refused")}: ${refused}` : "");
        await drawBatches(batches);
      }
    }) }, field(t("pictures"), files, t("picturesHelp")), field(t("filesAre"), how), el("div", { className: "beside" }, field(t("batchOptional"), batch), field(t("pixelSize"), size)), el("button", { className: "primary" }, t("classifyThem")), progress, said);
    await drawBatches(batches);
    return [...(lacking ? [begin("noLane", "labels"), el("p", { className: "help" }, lacking)] : [form]), shown, el("h2", {}, t("batches")), batches];
  }

  async function drawBatches(into) {
    const items = await get("/v1/sem/batches");
    into.replaceChildren(table([t("batch"), t("particles"), t("status"), ""], items.map((each) => {
      const path = `/v1/sem/batches/${encodeURIComponent(each.batch)}`;
      const button = (name, work) => el("button", { type: "button", data: { act: name }, onclick: (event) => attempt(work, event.target) }, t(name));
      const waiting = each.by_status.waiting ?? 0;
      return row([each.batch, each.particles, Object.entries(each.by_status).filter(([, n]) => n).map(([name, n]) => `${t(`particle_${name}`)} ${n}`).join(" · "), el("span", {},
        button("openReport", () => leaf(`${path}/report.html?lang=${kit.language()}`)), " ",
        button("pdf", () => save(`${path}/report.pdf?lang=${kit.language()}`, `${each.batch}.pdf`)), " ",
        button("csv", () => save(`/v1/sem/export?format=csv&batch=${encodeURIComponent(each.batch)}`, `${each.batch}.csv`)), " ",
        waiting && may("sem", "write") ? button("classifyWaiting", async () => { const job = await post(`${path}/classify`, {}, { once: true }); show(`${t("jobStarted")} ${job.id}`); }) : "")]);
    })));
  }

  async function find() {
    const text = el("input", { name: "text", required: true, maxLength: 500, placeholder: t("findExample") });
    const found = el("section", { id: "found-particles" });
    const form = el("form", { id: "find-particles", onsubmit: onsubmit(() => look({ text: text.value, k: 30 })) }, field(t("wordsOfParticle"), text, t("findHelp")), el("button", { className: "primary" }, t("findThem")));
    async function look(asked) {
      const { hits, shapes, notice } = await post("/v1/sem/search", asked);
      const rows = hits.map(({ particle, score, matched }) => row([picture(particle), particle.name, particle.label ? say(particle.label.name) : "–", t(`particle_${particle.status}`), matched.map(fits).join(", "), score.toFixed(2),
        el("button", { type: "button", data: { alike: particle.id }, onclick: (event) => attempt(() => look({ particle_id: particle.id, k: 30 }), event.target) }, t("alikeParticles"))]));
      const meant = shapes.map((each) => `${shape(each.concept)}: ${each.conditions.map(measured).join(", ")}`).join(" · ");
      found.replaceChildren(el("p", { className: "help" }, [meant, kit.say(notice ?? "")].filter(Boolean).join(" — ")), table(["", t("name"), t("label"), t("status"), t("matched"), t("likeness"), ""], rows));
    }
    return [form, found];
  }

  return { send: sendPage, find };
}
