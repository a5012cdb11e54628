// The review queue of svc-sem: bundles of look-alikes and single particles, each with its pictures, why it waits and what it may be.
// A reviewer confirms or corrects; the version that was seen here goes along, so two reviewers do not undo each other.
import { thumb } from "/console/pictures.js";

/** ``kit`` is what console.js shares: el, t, row, table, field, get, post, call, attempt, show, language. */
export function particlesPage(kit) {
  const { el, t, row, table, field, get, post, begin, attempt, show } = kit;
  const say = (text) => text?.[kit.language()] || text?.en || text?.ja || "–";
  const percent = (share) => (share === null ? "" : ` ${(100 * share).toFixed(0)} %`);
  const NONE = "";
  let labels = [];

  async function page() {
    const state = el("p", { id: "review-state" });
    const bundles = el("section", { id: "bundles" });
    const singles = el("section", { id: "singles" });
    const shown = el("section", { id: "review" });
    async function look() {
      const [progress, open, waiting] = await Promise.all([get("/v1/sem/reviews/progress"), get("/v1/sem/reviews/bundles?status=open&limit=50"), get("/v1/sem/reviews?limit=50")]);
      labels = (await get("/v1/sem/labels?status=active&limit=200")).items;
      state.textContent = stateOf(progress);
      bundles.replaceChildren(table([t("particles"), t("mayBe"), t("shared"), t("likeness")], open.items.map((bundle) => row([
        el("button", { type: "button", data: { bundle: bundle.id }, onclick: (event) => attempt(() => openBundle(bundle.id, shown, look), event.target) }, String(bundle.size)),
        mayBe(bundle.labels), bundle.tags.join(", "), bundle.cohesion.toFixed(2),
      ]))));
      singles.replaceChildren(table([t("particle"), t("mayBe"), t("reason"), t("reviewers")], waiting.items.map((item) => row([
        el("button", { type: "button", data: { particle: item.id }, onclick: (event) => attempt(() => openOne(item, shown, look), event.target) }, item.name),
        mayBe(item.label_set), item.reasons.map(say).join("; "), `${item.reviewers.length} / ${item.reviewers_needed}`,
      ]))));
    }
    await look();
    if (labels.length === 0) return [begin("noLane", "labels")];
    const build = el("button", { type: "button", data: { act: "bundle" }, onclick: (event) => attempt(async () => { await post("/v1/sem/reviews/bundles", { least: 2 }); await look(); }, event.target) }, t("bundleQueue"));
    return [state, shown, el("h2", {}, t("bundles")), el("p", {}, build, " ", el("span", { className: "help" }, t("bundlesHelp"))), bundles, el("h2", {}, t("oneByOne")), singles];
  }

  function stateOf({ waiting, reviewed, confirmed, lane }) {
    const lacking = lane === null ? t("noMasters") : lane.reviews_needed ? `${t("reviewsLacking")} ${lane.reviews_needed}` : t("confirmsAlone");
    return `${t("waitingNow")} ${waiting} · ${t("reviewedSoFar")} ${reviewed} · ${t("confirmedAlone")} ${confirmed} · ${lacking}`;
  }

  const mayBe = (scored) => scored.map((each) => say(each.label.name) + percent(each.probability)).join(", ");

  const picture = (particle, view) => thumb(kit, particle.id, view, particle.name);

  function choice(likely) {
    const select = el("select", { id: "label" }, labels.map((label) => el("option", { value: label.id }, say(label.name))), el("option", { value: NONE }, t("noneOfThem")));
    if (likely) select.value = likely;
    return select;
  }

  async function openBundle(id, into, changed) {
    const bundle = await get(`/v1/sem/reviews/bundles/${id}`);
    const began = performance.now();
    const select = choice(bundle.labels[0]?.label.id);
    const note = el("input", { id: "note", maxLength: 500 });
    const edge = new Set(bundle.edge.map((each) => each.id));
    const members = [...new Map([...bundle.edge, ...bundle.representatives].map((each) => [each.id, each])).values()];
    const figure = (each) => el("label", { className: "shot", data: { member: each.id } }, picture(each, 0),
      el("span", {}, el("input", { type: "checkbox", value: each.id }), ` ${t("notOne")}`), el("span", { className: "help" }, edge.has(each.id) ? t("atEdge") : "", " ", each.reasons.map(say).join("; ")));
    const done = async (verb, body) => {
      const answer = await post(`/v1/sem/reviews/bundles/${id}/${verb}`, body, { version: bundle.version });
      into.replaceChildren();
      await changed();
      return answer;
    };
    const confirm = el("button", { type: "button", className: "primary", data: { act: "confirm" }, onclick: (event) => attempt(async () => {
      const without = [...into.querySelectorAll("input[type=checkbox]:checked")].map((box) => box.value);
      const answer = await done("confirm", { label_id: select.value || null, without, note: note.value, seconds: (performance.now() - began) / 1000 });
      show(`${t("settled")} ${answer.settled}; ${t("waitForAnother")} ${answer.waiting_for_another}`);
    }, event.target) }, `${t("confirmAll")} (${bundle.size})`);
    const split = el("button", { type: "button", data: { act: "split" }, onclick: (event) => attempt(() => done("split", { parts: 2 }), event.target) }, t("splitInTwo"));
    into.replaceChildren(
      el("h2", {}, t("bundleOf"), ` ${bundle.size} `, el("small", {}, bundle.tags.join(", "))),
      el("p", { className: "help" }, `${t("inContention")}: ${mayBe(bundle.labels)}`),
      el("div", { className: "shots" }, members.map(figure)),
      el("h3", {}, t("nearestMasters")), el("div", { className: "shots" }, bundle.nearest_masters.map((master) => el("span", { className: "shot" }, picture({ id: master, name: t("master") }, 0)))),
      field(t("label"), select), field(t("note"), note), el("p", {}, confirm, " ", split),
    );
  }

  async function openOne(item, into, changed) {
    const particle = await get(`/v1/sem/particles/${item.id}`);
    const began = performance.now();
    const select = choice(particle.label?.id ?? item.label_set[0]?.label.id);
    const note = el("input", { id: "note", maxLength: 500 });
    const confirm = el("button", { type: "button", className: "primary", data: { act: "confirm" }, onclick: (event) => attempt(async () => {
      const body = { particle_id: item.id, label_id: select.value || null, note: note.value, seconds: (performance.now() - began) / 1000 };
      const { settled } = await post("/v1/sem/reviews", body, { version: particle.version });
      into.replaceChildren();
      await changed();
      show(`${item.name}: ${t(settled ? "isSettled" : "waitForAnother")}`);
    }, event.target) }, t("confirm"));
    const views = particle.views.map((view, at) => el("span", { className: "shot", data: { view: String(at) } }, picture(particle, at), el("span", { className: "help" }, viewWords(particle, view, at))));
    into.replaceChildren(
      el("h2", {}, item.name, " ", el("small", {}, item.reasons.map(say).join("; "))),
      el("p", { className: "help" }, `${t("mayBe")}: ${mayBe(item.label_set)}`),
      el("div", { className: "shots" }, views),
      el("h3", {}, t("nearestMasters")), el("div", { className: "shots" }, particle.nearest.slice(0, 3).map((near) => el("span", { className: "shot" },
        picture({ id: near.particle_id, name: t("master") }, 0), el("span", { className: "help" }, `${say(near.label.name)} ${near.cosine.toFixed(2)}`)))),
      field(t("label"), select), field(t("note"), note), el("p", {}, confirm),
    );
  }

  function viewWords(particle, view, at) {
    const said = view.quality ? [`${t("quality")} ${view.quality.score.toFixed(2)}`, ...view.quality.reasons.map(say)] : [];
    if (view.label) said.push(`${say(view.label.name)}${percent(view.confidence)}`);
    if (at === particle.recommended_view) said.push(t("showsMost"));
    return said.join(" · ");
  }

  return page;
}
