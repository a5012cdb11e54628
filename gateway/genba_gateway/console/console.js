// The console: what an operator does every day, over the same public API that any program uses. No framework, nothing fetched from outside.
import { assistantPages } from "/console/assistant.js";
import { auditPage } from "/console/audit.js";
import { classifyPages } from "/console/classify.js";
import { inJapanese } from "/console/details.js";
import { documentsPage } from "/console/documents.js";
import { jobsPage } from "/console/jobs.js";
import { labelsPage } from "/console/labels.js";
import { modelsPage } from "/console/models.js";
import { particlesPage } from "/console/particles.js";
import { faultSaid, said, TITLES_JA } from "/console/problems.js";
import { recommendPage } from "/console/recommend.js";
import { sopPages } from "/console/sop.js";
import { TEXTS } from "/console/texts.js";

const $ = (id) => document.getElementById(id);
let language = localStorage.getItem("genba.language") ?? (navigator.language.startsWith("ja") ? "ja" : "en");
let key = sessionStorage.getItem("genba.key");
let tab = location.hash.slice(1);
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
    this.faults = problem.errors ?? [];
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

/** 32 hex digits that nobody had before. ``crypto.randomUUID`` is there over https and on localhost alone. */
const unique = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Send a document. ``once``: safe to repeat. ``version``: what was seen of it, so that nobody is overwritten. */
async function change(method, path, document, { once = false, version = null } = {}) {
  const headers = { "content-type": "application/json", ...(once ? { "idempotency-key": unique() } : {}), ...(version === null ? {} : { "if-match": `"${version}"` }) };
  const answer = await call(path, { method, body: JSON.stringify(document), headers });
  return answer.status === 204 ? null : answer.json();
}

const post = (path, document, options) => change("POST", path, document, options);

function show(text, bad = false) {
  $("message").hidden = !text;
  $("message").textContent = text ?? "";
  $("message").className = bad ? "bad" : "";
}

/** Send a form or a file with a progress bar: fetch cannot tell how much has been sent, XMLHttpRequest can. */
function send(path, body, progress, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries({ authorization: `Bearer ${key}`, ...headers })) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => { progress.max = event.total; progress.value = event.loaded; };
    request.upload.onload = () => progress.removeAttribute("value");
    request.onerror = () => reject(new Error(t("unreachable")));
    request.onload = () => (request.status < 300 ? resolve(request.response) : reject(new Refused(request.status, request.response ?? {})));
    request.send(body);
  });
}

/** Keep an answer as a file. */
async function save(path, name) {
  const link = el("a", { href: URL.createObjectURL(await (await call(path)).blob()), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Open an answer in a tab of its own; an address could not send the key. */
async function leaf(path) {
  window.open(URL.createObjectURL(await (await call(path)).blob()), "_blank", "noopener");
}

/** What stands where there is nothing yet: a word, and the way to where it is made. */
const begin = (text, name) => el("p", { className: "begin" }, t(text), " ", ...(allowed(name) ? [el("button", { type: "button", data: { begin: name }, onclick: () => open(name) }, `${t(`tab_${name}`)} →`)] : []));

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

/** Whether one of the caller's scopes grants ``service:verb``, as genba_shared.principal reads them. */
function may(service, verb) {
  const byVerb = verb === "read" && !["audit", "keys"].includes(service) && scopes.includes("*:read");
  return byVerb || ["*", `${service}:*`, `${service}:${verb}`].some((scope) => scopes.includes(scope));
}

const KIT = { el, t, say, explain, explainFault, table, row, field, get, post, call, change, unique, send, save, leaf, begin, attempt, show, when, onsubmit, open, may, language: () => language, sure: (text) => confirm(text) };
const assistant = assistantPages(KIT);
const classify = classifyPages(KIT);
const sop = sopPages(KIT);
// Each page: its group, what draws it, and the scope without which it would only show a refusal.
const PAGES = {
  score: ["sop", sop.score, "sop:write"], procedures: ["sop", sop.procedures, "sop:read"], evaluations: ["sop", sop.evaluations, "sop:read"], clips: ["sop", sop.clips, "sop:read"],
  ask: ["llm", assistant.ask, "llm:write"], documents: ["llm", documentsPage(KIT), "llm:read"], escalations: ["llm", assistant.escalations, "llm:review"], audit: ["llm", auditPage(KIT), "audit:read"],
  classify: ["sem", classify.send, "sem:write"], particles: ["sem", particlesPage(KIT), "sem:read"], labels: ["sem", labelsPage(KIT), "sem:read"], find: ["sem", classify.find, "sem:read"],
  recommend: ["recommend", recommendPage(KIT), "recommend:read"],
  jobs: ["operation", jobsPage(KIT), "jobs:read"], models: ["operation", modelsPage(KIT), "models:read"], keys: ["operation", keysPage, "keys:admin"], system: ["operation", systemPage, null],
};
const allowed = (name) => name in PAGES && (PAGES[name][2] === null || may(...PAGES[name][2].split(":")));

let opened = 0;

/** Show a page, at once without what the one before showed. One that comes late, after another was chosen, is not shown.
 * A button of the menu also takes away the page that it stands for: what is begun on it would be lost when the new one comes. */
async function open(name) {
  const heading = () => el("h1", {}, t(`tab_${name}`));
  if (name !== tab) $("page").replaceChildren(heading());
  tab = name;
  if (location.hash !== `#${name}`) history[location.hash ? "pushState" : "replaceState"](null, "", `#${name}`);
  const turn = ++opened;
  for (const button of document.querySelectorAll("#tabs button")) button.ariaCurrent = button.dataset.tab === name ? "page" : null;
  await attempt(async () => {
    const page = await PAGES[name][1]();
    if (turn === opened) $("page").replaceChildren(heading(), ...page);
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

function menu() {
  const groups = [...new Set(Object.values(PAGES).map(([group]) => group))];
  return groups.map((group) => [group, Object.keys(PAGES).filter((name) => PAGES[name][0] === group && allowed(name))]).filter(([, names]) => names.length > 0).map(([group, names]) =>
    el("section", {}, el("h2", {}, t(`group_${group}`)), names.map((name) => el("button", { type: "button", data: { tab: name }, onclick: () => { tab = ""; return open(name); } }, t(`tab_${name}`)))));
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
    $("tabs").replaceChildren(...menu());
    await open(allowed(tab) ? tab : Object.keys(PAGES).find(allowed));
  });
}

$("language").addEventListener("click", () => {
  language = language === "ja" ? "en" : "ja";
  localStorage.setItem("genba.language", language);
  draw();
});
$("sign-out").addEventListener("click", signOut);
window.addEventListener("popstate", () => {
  const name = location.hash.slice(1);
  if (key && name !== tab && allowed(name)) open(name);
});
draw();
