// Jobs as they run: the list looks again every few seconds, the chosen job is followed live over server-sent events.
// fetch instead of EventSource, which cannot send the key; the id of the last event carries over a broken connection.
import { formOf, RECIPES_JA } from "/console/recipes.js";

const STATES = ["queued", "running", "succeeded", "failed", "dead", "cancelled"];
const LOOK_EVERY_MS = 3000;
const RECONNECT_MS = 1000;
const KEPT_LINES = 500;
const KEPT_LOSSES = 400;
const SVG = "http://www.w3.org/2000/svg";

/** ``kit`` is what console.js shares. */
export function jobsPage(kit) {
  const { el, t, say, explain, table, row, field, get, post, call, change, save, attempt, show, when, onsubmit, may } = kit;
  let following = null;

  /** Why a job failed or is to be tried again; what it does while it runs, whatever an attempt before failed with. */
  const saysOf = (job) => (job.error && job.status !== "running" ? explain(job.error) : say(job.message));

  async function page() {
    following?.abort();
    const list = el("section", { id: "job-list" });
    const shown = el("section", { id: "job" });
    const state = el("select", { id: "job-state", title: t("status"), onchange: () => attempt(look) }, el("option", { value: "" }, t("anyState")), STATES.map((s) => el("option", { value: s }, t(`job_${s}`))));
    async function look() {
      const { jobs } = await get(`/v1/jobs?limit=50${state.value ? `&status=${state.value}` : ""}`);
      list.replaceChildren(table([t("recipe"), t("status"), t("progress"), t("says"), t("when")], jobs.map((job) => row([
        el("button", { type: "button", data: { job: job.id }, onclick: () => attempt(() => follow(job.id, shown, look)) }, job.recipe),
        el("span", { className: colour(job.status) }, t(`job_${job.status}`)),
        el("progress", { max: 1, value: job.progress }), saysOf(job), when(job.created_at),
      ]))));
    }
    await look();
    const timer = setInterval(() => (list.isConnected ? look().catch(() => {}) : (clearInterval(timer), following?.abort())), LOOK_EVERY_MS);
    const schedules = el("section", { id: "schedules" });
    const follows = (id) => follow(id, shown, look);
    await drawSchedules(schedules, follows);
    return [...(may("jobs", "write") ? await newJob(look, follows, schedules) : []), state, list, shown, el("h2", {}, t("schedules")), schedules];
  }

  /** A job or a schedule of any recipe that the caller may submit, from the recipe's own schema. */
  async function newJob(look, follows, schedules) {
    const { recipes } = await get("/v1/recipes");
    const mine = recipes.filter((each) => each.scope === null || may(...each.scope.split(":"))).sort((a, b) => a.name.localeCompare(b.name));
    if (mine.length === 0) return [];
    const which = el("select", { name: "recipe" }, mine.map((each) => el("option", { value: each.name }, each.name)));
    const summary = el("p", { className: "help" });
    const parameters = el("div", { className: "fields" });
    const name = el("input", { name: "schedule", maxLength: 80 });
    const cron = el("input", { name: "cron", placeholder: "30 2 * * MON-FRI" });
    const zone = el("input", { name: "zone", value: Intl.DateTimeFormat().resolvedOptions().timeZone });
    let read;
    function choose() {
      const recipe = mine.find((each) => each.name === which.value);
      const made = formOf(kit, recipe);
      read = made.read;
      summary.textContent = (kit.language() === "ja" && RECIPES_JA[recipe.name]?.[0]) || recipe.summary;
      parameters.replaceChildren(...made.fields);
    }
    which.onchange = choose;
    choose();
    const form = el("form", { id: "new-job", onsubmit: onsubmit(async () => {
      const asked = { recipe: which.value, params: read() };
      if (cron.value.trim()) {
        await post("/v1/schedules", { ...asked, name: name.value.trim() || which.value, cron: cron.value.trim(), time_zone: zone.value.trim() }, { once: true });
        await drawSchedules(schedules, follows);
        return show(t("scheduleKept"));
      }
      const job = await post("/v1/jobs", asked, { once: true });
      await Promise.all([look(), follows(job.id)]);
      show(`${t("jobStarted")} ${job.id}`);
    }) }, field(t("recipe"), which), summary, parameters,
    el("details", {}, el("summary", {}, t("againAndAgain")), el("p", { className: "help" }, t("cronHelp")), el("div", { className: "beside" }, field(t("name"), name), field("cron", cron), field(t("timeZone"), zone))),
    el("button", { className: "primary" }, t("submitJob")));
    return [el("details", { id: "submit" }, el("summary", {}, t("newJob")), form)];
  }

  async function drawSchedules(into, follows) {
    const { schedules } = await get("/v1/schedules?limit=100");
    const again = () => drawSchedules(into, follows);
    const button = (each, act, work) => el("button", { type: "button", data: { act, schedule: each.id }, onclick: (event) => attempt(async () => { await work(); await again(); }, event.target) }, t(act));
    into.replaceChildren(table([t("name"), t("recipe"), "cron", t("nextRun"), t("lastRun"), t("says"), ""], schedules.map((each) => row([
      each.name, each.recipe, `${each.cron} (${each.time_zone})`, each.enabled ? when(each.next_run_at) : t("switchedOff"),
      each.last_job_id ? el("button", { type: "button", onclick: (event) => attempt(() => follows(each.last_job_id), event.target) }, when(each.last_run_at)) : "–", each.last_error ? explain(each.last_error) : "",
      may("jobs", "write") ? el("span", {}, button(each, each.enabled ? "switchOff" : "switchOn", () => change("PATCH", `/v1/schedules/${each.id}`, { enabled: !each.enabled })), " ",
        button(each, "delete", async () => { if (kit.sure(`${each.name}: ${t("deleteSure")}`)) await call(`/v1/schedules/${each.id}`, { method: "DELETE" }); })) : "",
    ]))));
  }

  async function follow(id, into, changed) {
    following?.abort();
    const stop = (following = new AbortController());
    const job = await get(`/v1/jobs/${id}`);
    const bar = el("progress", { id: "job-progress", max: 1, value: job.progress });
    const says = el("p", { id: "job-says", className: "help" }, saysOf(job));
    const state = el("strong", { id: "job-status" });
    const metrics = el("p", { id: "job-metrics" });
    const curve = lossCurve(t("loss"));
    const lines = el("pre", { id: "job-log", tabIndex: 0 });
    const result = el("div", { id: "job-result" });
    const buttons = el("p", {});
    const act = (verb) => el("button", { type: "button", data: { act: verb }, onclick: (event) => attempt(async () => { await call(`/v1/jobs/${id}/${verb}`, { method: "POST" }); await changed(); await follow(id, into, changed); }, event.target) }, t(verb));
    const draw = (now) => {
      state.textContent = t(`job_${now.status}`) + (now.cancel_requested && now.status === "running" ? ` (${t("stopping")})` : "");
      state.className = colour(now.status);
      bar.value = now.progress;
      says.textContent = saysOf(now);
      buttons.replaceChildren(...(["queued", "running"].includes(now.status) ? [act("cancel")] : ["dead", "failed", "cancelled"].includes(now.status) ? [act("requeue")] : []));
      result.replaceChildren(...(now.result ? resultOf(id, now.result) : []));
    };
    draw(job);
    into.replaceChildren(el("h2", {}, `${job.recipe} `, el("small", {}, id)), el("p", {}, state, ` · ${t("attempt")} ${job.attempt}`), bar, says, metrics, curve.picture, buttons, el("details", {}, el("summary", {}, t("parameters")), el("pre", {}, JSON.stringify(job.params, null, 2))), el("h3", {}, t("log")), lines, result);
    const hear = (event) => {
      if (event.kind === "progress") { bar.value = event.data.fraction; says.textContent = say(event.data.message); }
      if (event.kind === "metrics") curve.add(event.data.values.loss);
      if (event.kind === "metrics") metrics.textContent = `${t("step")} ${event.data.step}: ${Object.entries(event.data.values).map(([name, value]) => `${name} ${value === null ? "–" : Number(value.toPrecision(5))}`).join(" · ")}`;
      if (event.kind === "line") write(lines, `${clock(event.data.at)}  ${event.data.message}`, event.data.level);
      if (event.kind === "status") {
        write(lines, `${clock(event.data.at)}  ${t(`job_${event.data.status}`)}${event.data.reason ? `: ${event.data.reason}` : ""}`, "status");
        get(`/v1/jobs/${id}`).then(draw, () => {});
      }
    };
    listen(id, hear, stop.signal).then(async () => { draw(await get(`/v1/jobs/${id}`)); await changed(); }).catch(() => {});
  }

  /** Calls ``hear`` for every event, from the first, until the job is over or ``signal`` says stop. */
  async function listen(id, hear, signal) {
    let last = 0;
    while (!signal.aborted) {
      try {
        const answer = await call(`/v1/jobs/${id}/events`, { headers: last ? { "last-event-id": String(last) } : {}, signal });
        if (answer.status === 204) return;
        for await (const event of events(answer.body)) {
          if (event.kind === "end") return;
          last = event.id;
          hear(event);
        }
      } catch (failure) {
        if (signal.aborted || [401, 403, 404].includes(failure.status)) throw failure;
      }
      await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
    }
  }

  function resultOf(id, result) {
    const files = Object.keys(result.artifacts ?? {}).map((name) => el("button", { type: "button", onclick: (event) => attempt(() => save(`/v1/jobs/${id}/artifacts/${encodeURIComponent(name)}`, name), event.target) }, name));
    const { artifacts, ...shown } = result;
    return [el("h3", {}, t("result")), el("pre", {}, JSON.stringify(shown, null, 2)), ...(files.length ? [el("p", {}, `${t("files")}: `, files)] : [])];
  }

  function write(lines, text, level) {
    const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30;
    lines.append(el("span", { className: level === "error" ? "bad" : level === "warning" ? "major" : "" }, `${text}\n`));
    while (lines.childElementCount > KEPT_LINES) lines.firstChild.remove();
    if (atEnd) lines.scrollTop = lines.scrollHeight;
  }

  const clock = (iso) => new Date(iso).toLocaleTimeString();
  return page;
}

/** The losses of a job that trains, as a curve; hidden until there are two. Every other point goes when there are too many. */
function lossCurve(name) {
  const picture = document.createElementNS(SVG, "svg"), line = document.createElementNS(SVG, "polyline");
  picture.id = "job-loss";
  picture.setAttribute("viewBox", "0 0 100 30");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("role", "img");
  picture.style.display = "none";
  picture.append(line);
  let losses = [], every = 1, heard = 0;
  const add = (loss) => {
    if (typeof loss !== "number" || heard++ % every) return;
    losses.push(loss);
    if (losses.length > KEPT_LOSSES) { losses = losses.filter((_, at) => at % 2 === 0); every *= 2; }
    if (losses.length < 2) return;
    const low = Math.min(...losses), wide = Math.max(...losses) - low || 1;
    line.setAttribute("points", losses.map((each, at) => `${(100 * at) / (losses.length - 1)},${29 - (28 * (each - low)) / wide}`).join(" "));
    picture.setAttribute("aria-label", `${name}: ${losses[0].toPrecision(4)} → ${losses.at(-1).toPrecision(4)}`);
    picture.style.display = "";
  };
  return { picture, add };
}

const colour = (status) => ({ succeeded: "good", failed: "bad", dead: "bad", cancelled: "major" })[status] ?? "";

/** Server-sent events out of a body: {id, kind, data}. Lines that a chunk cuts in two are put together again. */
async function* events(body) {
  let rest = "", fields = {};
  for await (const chunk of chunks(body.pipeThrough(new TextDecoderStream()))) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (fields.data) yield { id: Number(fields.id), kind: fields.event, data: JSON.parse(fields.data) };
        fields = {};
      } else if (!line.startsWith(":")) {
        const cut = line.indexOf(":");
        fields[line.slice(0, cut)] = line.slice(cut + 1).replace(/^ /, "");
      }
    }
  }
}

/** A stream's chunks; not every browser can iterate over one. */
async function* chunks(stream) {
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}
