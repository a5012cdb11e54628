// The console: what an operator does every day, over the same public API that any program uses. No framework, nothing fetched from outside.
import { assistantPages } from "/console/assistant.js";
import { jobsPage } from "/console/jobs.js";
import { modelsPage } from "/console/models.js";
import { particlesPage } from "/console/particles.js";
import { recommendPage } from "/console/recommend.js";
import { TEXTS } from "/console/texts.js";

const $ = (id) => document.getElementById(id);
let language = localStorage.getItem("genba.language") ?? (navigator.language.startsWith("ja") ? "ja" : "en");
let key = sessionStorage.getItem("genba.key");
let tab = "score";

const t = (name) => TEXTS[language][name] ?? name;
const say = (text) => text?.[language] || text?.en || text?.ja || "–";
const seconds = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(1)} s`);
const chance = (p) => (p === null ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));
const when = (iso) => (iso ? new Date(iso).toLocaleString(language) : t("never"));

/** An element; children may be nodes, strings or arrays of them. Text is never parsed as HTML. */
function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(node.dataset, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

const field = (label, input, help = null) => el("label", {}, label, input, help && el("span", { className: "help" }, help));

function table(columns, rows) {
  if (rows.length === 0) return el("p", { className: "help" }, t("none"));
  const head = el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column))));
  return el("table", {}, head, el("tbody", {}, rows));
}

const row = (cells, properties = {}) => el("tr", properties, cells.map((cell) => el("td", {}, cell ?? "–")));

class Refused extends Error {
  constructor(status, problem) {
    const faults = (problem.errors ?? []).map((fault) => `\n• ${fault.field}: ${fault.message}`).join("");
    const id = problem.request_id ? `\n${t("requestId")}: ${problem.request_id}` : "";
    super(`${problem.title ?? status} ${problem.detail ?? ""}${faults}${id}`);
    this.status = status;
  }
}

async function call(path, { method = "GET", body, headers = {}, signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: { authorization: `Bearer ${key}`, ...headers }, signal });
  } catch {
    throw new Error(t("unreachable"));
  }
  if (answer.ok) return answer;
  throw new Refused(answer.status, await answer.json().catch(() => ({})));
}

const get = async (path) => (await call(path)).json();

async function post(path, document, { once = false, version = null } = {}) {
  const headers = { "content-type": "application/json", ...(once ? { "idempotency-key": crypto.randomUUID() } : {}), ...(version === null ? {} : { "if-match": `"${version}"` }) };
  const answer = await call(path, { method: "POST", body: JSON.stringify(document), headers });
  return answer.status === 204 ? null : answer.json();
}

/** Upload with a progress bar: fetch cannot tell how much has been sent, XMLHttpRequest can. */
function upload(file, progress) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("title", file.name);
    form.append("file", file);
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/sop/videos");
    request.setRequestHeader("authorization", `Bearer ${key}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => { progress.max = event.total; progress.value = event.loaded; };
    request.upload.onload = () => progress.removeAttribute("value");
    request.onerror = () => reject(new Error(t("unreachable")));
    request.onload = () => (request.status < 300 ? resolve(request.response) : reject(new Refused(request.status, request.response ?? {})));
    request.send(form);
  });
}

function show(text, bad = false) {
  $("message").hidden = !text;
  $("message").textContent = text ?? "";
  $("message").className = bad ? "bad" : "";
}

/** Run what a person asked for; a failure is shown, a key that is no longer good leads back to the door. */
async function attempt(work, button = null) {
  show(null);
  if (button) button.disabled = true;
  try {
    return await work();
  } catch (failure) {
    if (failure.status === 401) signOut();
    show(failure.message, true);
  } finally {
    if (button) button.disabled = false;
  }
}

const onsubmit = (work) => (event) => {
  event.preventDefault();
  attempt(() => work(event.target), event.target.querySelector("button"));
};

// --- pages -----------------------------------------------------------------------------------------------------------

async function scorePage() {
  const procedures = (await get("/v1/sop/procedures")).items;
  const choose = el("select", { name: "procedure", required: true }, procedures.map((p) => el("option", { value: p.id }, `${say(p.title)} (${t("version")} ${p.version})`)));
  const file = el("input", { type: "file", name: "video", accept: "video/*,.mkv,.ts", required: true });
  const operator = el("input", { name: "operator", maxLength: 120 });
  const progress = el("progress", { hidden: true });
  const result = el("section", { id: "result" });
  const form = el("form", { id: "score", onsubmit: onsubmit(async () => {
    progress.hidden = false;
    try {
      const video = await upload(file.files[0], progress);
      const asked = { procedure_id: choose.value, video_id: video.id, ...(operator.value ? { operator: operator.value } : {}) };
      result.replaceChildren(...verdictOf(await post("/v1/sop/evaluations", asked, { once: true }), file.files[0]));
    } finally {
      progress.hidden = true;
    }
  }) }, field(t("procedure"), choose), field(t("trainee"), file), field(t("operator"), operator), el("button", { className: "primary", type: "submit" }, t("score")), progress);
  return [form, result];
}

function verdictOf(evaluation, file = null) {
  const { low, high, calibrated } = evaluation.interval;
  const player = file && el("video", { controls: true, src: URL.createObjectURL(file), preload: "metadata" });
  const seek = (time) => ({ data: { seek: String(time) }, onclick: () => { if (player) { player.currentTime = time; player.play(); } } });
  const deviations = evaluation.deviations.map((d) =>
    row([t(`kind_${d.kind}`), say(d.step_name), seconds(d.start_s), seconds(d.end_s), el("span", { className: d.severity }, t(`severity_${d.severity}`)), chance(d.p_value), say(d.action)], seek(d.start_s)));
  const steps = evaluation.steps.map((s) =>
    row([say(s.name), t(`status_${s.status}`), s.quality.toFixed(2), seconds(s.duration_s), seconds(s.gold_duration_s)], s.spans.length ? seek(s.spans[0].start_s) : {}));
  return [
    el("p", { className: `verdict ${evaluation.verdict}` }, t(`verdict_${evaluation.verdict}`), el("small", {}, ` ${evaluation.score.toFixed(1)} ${t("ofHundred")} · ${t("interval")} ${low.toFixed(0)}–${high.toFixed(0)} (${t(calibrated ? "calibrated" : "uncalibrated")}) · ${t("encoder")} ${evaluation.encoder}`)),
    ...evaluation.reasons.filter((code) => !code.includes(":")).map((code) => el("p", {}, t(`reason_${code}`))),
    el("div", { className: "result" }, el("div", {}, player, el("p", {}, el("button", { type: "button", onclick: (e) => attempt(() => openReport(evaluation.id), e.target) }, t("openReport")))), el("div", {}, el("h2", {}, t("steps")), table([t("step"), t("status"), t("quality"), t("duration"), t("goldDuration")], steps))),
    el("h2", {}, t("deviations")),
    deviations.length ? table([t("deviation"), t("step"), t("from"), t("to"), t("severity"), t("pValue"), t("action")], deviations) : el("p", {}, t("noDeviations")),
  ];
}

async function openReport(id) {
  const page = await (await call(`/v1/sop/evaluations/${id}/report?lang=${language}`)).blob();
  window.open(URL.createObjectURL(page), "_blank", "noopener");
}

async function proceduresPage() {
  const procedures = (await get("/v1/sop/procedures")).items;
  const definition = el("textarea", { name: "definition", required: true, spellcheck: false });
  const form = el("form", { id: "new-procedure", onsubmit: onsubmit(async () => {
    await post("/v1/sop/procedures", JSON.parse(definition.value));
    await open("procedures");
    show(t("created"));
  }) }, el("h2", {}, t("newProcedure")), field(t("definition"), definition, t("procedureHelp")), el("button", { className: "primary" }, t("create")));
  const rows = procedures.map((p) => row([say(p.title), p.version, p.step_count, p.gold_count, when(p.created_at), goldForm(p)]));
  return [el("h2", {}, t("procedures")), table([t("title"), t("version"), t("steps"), t("golds"), t("when"), t("addGold")], rows), form];
}

function goldForm(procedure) {
  const progress = el("progress", { hidden: true });
  const input = el("input", { type: "file", accept: "video/*,.mkv,.ts", title: t("addGoldHelp"), onchange: () => attempt(async () => {
    progress.hidden = false;
    try {
      const video = await upload(input.files[0], progress);
      await post(`/v1/sop/procedures/${procedure.id}/golds`, { video_id: video.id });
      await open("procedures");
    } finally {
      progress.hidden = true;
    }
  }) });
  return el("div", {}, input, progress);
}

async function evaluationsPage(cursor = null) {
  const page = await get(`/v1/sop/evaluations?limit=50${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
  const shown = el("section", { id: "result" });
  const rows = page.items.map((e) => {
    const verdict = e.reviewed_verdict ?? e.verdict;
    const link = el("button", { type: "button", onclick: (event) => attempt(async () => shown.replaceChildren(...verdictOf(await get(`/v1/sop/evaluations/${e.id}`))), event.target) }, e.score.toFixed(1));
    return row([when(e.created_at), e.operator, link, el("span", { className: verdict }, t(`verdict_${verdict}`)), e.encoder]);
  });
  const more = page.next_cursor && el("button", { type: "button", onclick: (event) => attempt(async () => event.target.replaceWith(...(await evaluationsPage(page.next_cursor))), event.target) }, t("more"));
  return [table([t("when"), t("operator"), t("score_column"), t("verdict"), t("encoder")], rows), ...(more ? [more] : []), shown];
}

async function keysPage() {
  const { keys } = await get("/v1/keys");
  const made = el("p", { id: "made-key" });
  const name = el("input", { name: "name", required: true, maxLength: 200 });
  const role = el("select", { name: "role" }, ["viewer", "operator", "reviewer", "engineer", "auditor", "admin"].map((r) => el("option", {}, r)));
  const clearance = el("select", { name: "clearance" }, ["internal", "public", "confidential", "secret"].map((c) => el("option", {}, c)));
  const form = el("form", { id: "new-key", onsubmit: onsubmit(async () => {
    const answer = await post("/v1/keys", { name: name.value, role: role.value, clearance: clearance.value });
    await open("keys");
    $("made-key").replaceChildren(t("shownOnce"), " ", el("code", {}, answer.key));
  }) }, el("h2", {}, t("newKey")), field(t("name"), name), field(t("role"), role), field(t("clearance"), clearance), el("button", { className: "primary" }, t("create")));
  const rows = keys.map((k) => row([
    k.name, k.role, k.clearance, t(`state_${k.state}`), when(k.expires_at),
    k.state === "active" ? el("button", { type: "button", onclick: (event) => attempt(async () => { await call(`/v1/keys/${k.id}`, { method: "DELETE" }); await open("keys"); }, event.target) }, t("revoke")) : "",
  ]));
  return [made, table([t("name"), t("role"), t("clearance"), t("state"), t("expires"), ""], rows), form];
}

async function systemPage() {
  const answer = await fetch("/ready");
  const state = await answer.json();
  const wrong = state.reasons ?? {};
  const checks = [...new Set([...(state.checks ?? []), ...Object.keys(wrong)])].map((name) => row([name, wrong[name] ?? t("ready")]));
  return [el("p", { className: `verdict ${answer.ok ? "good" : "bad"}` }, t(answer.ok ? "ready" : "notReady")), table([t("check"), t("status")], checks), el("p", {}, el("a", { href: "/docs" }, "/docs"), " · ", el("a", { href: "/metrics" }, "/metrics"))];
}

const KIT = { el, t, table, row, field, get, post, call, attempt, show, when, onsubmit, language: () => language };
const assistant = assistantPages(KIT);
const PAGES = { score: scorePage, procedures: proceduresPage, evaluations: evaluationsPage, ask: assistant.ask, escalations: assistant.escalations, particles: particlesPage(KIT), recommend: recommendPage(KIT), jobs: jobsPage(KIT), models: modelsPage(KIT), keys: keysPage, system: systemPage };

let opened = 0;

/** Show a tab. One that comes late, after another was chosen, is not shown. */
async function open(name) {
  tab = name;
  const turn = ++opened;
  for (const button of $("tabs").children) button.setAttribute("aria-selected", String(button.dataset.tab === name));
  await attempt(async () => {
    const page = await PAGES[name]();
    if (turn === opened) $("page").replaceChildren(...page);
  });
}

function signOut() {
  key = null;
  sessionStorage.removeItem("genba.key");
  draw();
}

function door() {
  const input = el("input", { type: "password", name: "key", required: true, autocomplete: "off" });
  return el("form", { id: "sign-in", onsubmit: onsubmit(async () => {
    key = input.value.trim();
    await get("/v1/whoami");
    sessionStorage.setItem("genba.key", key);
    await draw();
  }) }, field(t("apiKey"), input, t("signInHelp")), el("button", { className: "primary" }, t("signIn")));
}

async function draw() {
  document.documentElement.lang = language;
  $("language").textContent = t("language");
  $("sign-out").textContent = t("signOut");
  $("sign-out").hidden = !key;
  $("who").textContent = "";
  $("tabs").replaceChildren();
  if (!key) return $("page").replaceChildren(door());
  await attempt(async () => {
    const me = await get("/v1/whoami");
    $("who").textContent = `${me.subject} · ${me.roles.join(", ")} · ${me.clearance}`;
    const names = Object.keys(PAGES).filter((name) => name !== "keys" || me.roles.includes("admin"));
    $("tabs").replaceChildren(...names.map((name) => el("button", { type: "button", role: "tab", data: { tab: name }, onclick: () => open(name) }, t(`tab_${name}`))));
    await open(tab);
  });
}

$("language").addEventListener("click", () => {
  language = language === "ja" ? "en" : "ja";
  localStorage.setItem("genba.language", language);
  draw();
});
$("sign-out").addEventListener("click", signOut);
draw();
