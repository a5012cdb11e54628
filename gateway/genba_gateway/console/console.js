// The console: what an operator does every day, over the same public API that any program uses. No framework, nothing fetched from outside.
import { assistantPages } from "/console/assistant.js";
import { inJapanese } from "/console/details.js";
import { jobsPage } from "/console/jobs.js";
import { modelsPage } from "/console/models.js";
import { particlesPage } from "/console/particles.js";
import { faultSaid, said, TITLES_JA } from "/console/problems.js";
import { recommendPage } from "/console/recommend.js";
import { sopPages } from "/console/sop.js";
import { TEXTS } from "/console/texts.js";

const $ = (id) => document.getElementById(id);
let language = localStorage.getItem("genba.language") ?? (navigator.language.startsWith("ja") ? "ja" : "en");
let key = sessionStorage.getItem("genba.key");
let tab = "score";
let scopes = [];

const t = (name) => TEXTS[language][name] ?? name;
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
  return el("div", { className: "scrolls" }, el("table", {}, head, el("tbody", {}, rows)));
}

const row = (cells, properties = {}) => el("tr", properties, cells.map((cell) => el("td", { className: String(cell ?? "").length > 24 && !(cell instanceof Node) ? "long" : "" }, cell ?? "–")));

/** What a service says, in the reader's language where it is translated. */
const say = (text) => (language === "ja" && text && inJapanese(text)) || text;

/** What a problem says beside its title: in Japanese what was translated word for word, else what its kind and members say. */
const explain = (problem) => (language === "ja" && (inJapanese(problem.detail ?? "") ?? said(problem))) || (problem.detail ?? "");
const explainFault = (fault) => (language === "ja" && faultSaid(fault)) || say(fault.message);

class Refused extends Error {
  constructor(status, problem) {
    const faults = (problem.errors ?? []).map((fault) => `\n• ${fault.field}: ${explainFault(fault)}`).join("");
    const id = problem.request_id ? `\n${t("requestId")}: ${problem.request_id}` : "";
    const title = (language === "ja" && TITLES_JA[String(problem.type).split(":").at(-1)]) || problem.title || status;
    super(`${title} ${explain(problem)}${faults}${id}`);
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

async function keysPage() {
  const { keys } = await get("/v1/keys");
  const made = el("p", { id: "made-key" });
  const name = el("input", { name: "name", required: true, maxLength: 200 });
  const role = el("select", { name: "role" }, ["viewer", "operator", "reviewer", "engineer", "auditor", "admin"].map((r) => el("option", { value: r }, t(`role_${r}`))));
  const clearance = el("select", { name: "clearance" }, ["internal", "public", "confidential", "secret"].map((c) => el("option", { value: c }, t(`clearance_${c}`))));
  const form = el("form", { id: "new-key", onsubmit: onsubmit(async () => {
    const answer = await post("/v1/keys", { name: name.value, role: role.value, clearance: clearance.value });
    await open("keys");
    $("made-key").replaceChildren(t("shownOnce"), " ", el("code", {}, answer.key));
  }) }, el("h2", {}, t("newKey")), field(t("name"), name), field(t("role"), role), field(t("clearance"), clearance), el("button", { className: "primary" }, t("create")));
  const act = (k, name, work) => el("button", { type: "button", data: { act: name }, onclick: (event) => confirm(`${k.name}: ${t(`${name}Sure`)}`) && attempt(work, event.target) }, t(name));
  const revoke = (k) => act(k, "revoke", async () => { await call(`/v1/keys/${k.id}`, { method: "DELETE" }); await open("keys"); });
  const rotate = (k) => act(k, "rotate", async () => {
    const answer = await post(`/v1/keys/${k.id}/rotate`, {});
    await open("keys");
    $("made-key").replaceChildren(t("shownOnce"), " ", el("code", {}, answer.key));
  });
  const rows = keys.map((k) => row([
    k.name, t(`role_${k.role}`), t(`clearance_${k.clearance}`), t(`state_${k.state}`), when(k.expires_at),
    k.state === "active" ? [rotate(k), " ", revoke(k)] : k.state === "rotated" ? revoke(k) : "",
  ]));
  return [made, table([t("name"), t("role"), t("clearance"), t("state"), t("expires"), ""], rows), form];
}

async function systemPage() {
  const answer = await fetch("/ready").catch(() => { throw new Error(t("unreachable")); });
  if (answer.status === 404) return [el("p", { className: "help" }, t("readyElsewhere")), el("p", {}, el("a", { href: "/docs" }, "/docs"))];
  const state = await answer.json();
  const wrong = state.reasons ?? {};
  const checks = [...new Set([...(state.checks ?? []), ...Object.keys(wrong)])].map((name) => row([name, wrong[name] ?? t("ready")]));
  return [el("p", { className: `verdict ${answer.ok ? "good" : "bad"}` }, t(answer.ok ? "ready" : "notReady")), table([t("check"), t("status")], checks), el("p", {}, el("a", { href: "/docs" }, "/docs"), " · ", el("a", { href: "/metrics" }, "/metrics"))];
}

const KIT = { el, t, say, explain, table, row, field, get, post, call, attempt, show, when, onsubmit, open, refused: (status, problem) => new Refused(status, problem), language: () => language, key: () => key, may: (service, verb) => ["*", `${service}:*`, `${service}:${verb}`].some((scope) => scopes.includes(scope)) };
const assistant = assistantPages(KIT);
const sop = sopPages(KIT);
const PAGES = { score: sop.score, procedures: sop.procedures, evaluations: sop.evaluations, clips: sop.clips, ask: assistant.ask, escalations: assistant.escalations, particles: particlesPage(KIT), recommend: recommendPage(KIT), jobs: jobsPage(KIT), models: modelsPage(KIT), keys: keysPage, system: systemPage };

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
    scopes = me.scopes;
    $("who").textContent = [me.subject, me.roles.map((role) => t(`role_${role}`)).join(", "), t(`clearance_${me.clearance}`)].join(" · ");
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
