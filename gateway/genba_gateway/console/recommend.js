// Recommendations: what somebody gets and why, a like and the list after it, and what came of the experiments.

/** ``kit`` is what console.js shares: el, t, table, row, field, get, post, attempt, show, when, onsubmit, language. */
export function recommendPage(kit) {
  const { el, t, table, row, field, get, post, change, unique, begin, open, attempt, show, when, onsubmit, language, may } = kit;
  const ROWS_A_REQUEST = 2000;
  const path = "/v1/recommend";
  const say = (reasons) => reasons.map((reason) => reason[language()]).join("; ");

  async function page() {
    const { model, model_version, items, items_without_vector } = await get(`${path}/status`);
    const state = el("p", { className: "help" }, `${model_version === null ? t("noModelYet") : `${model}/${model_version}`} · ${t("items")} ${items} · ${t("withoutVector")} ${items_without_vector}`);
    const user = el("input", { id: "user", required: true, maxLength: 128 });
    const list = el("section", { id: "list" });
    const form = el("form", { id: "recommend", onsubmit: onsubmit(() => look(user.value.trim(), list)) }, field(t("userId"), user), el("button", { className: "primary" }, t("makeList")));
    const experiments = el("section", { id: "experiments" });
    const result = el("section", { id: "experiment" });
    await drawExperiments(experiments, result);
    const load = may("recommend", "write") ? loadForm(items === 0) : [];
    if (items === 0) return [el("p", { className: "begin" }, t("noItems")), ...load];
    return [state, ...(model_version === null ? [begin("noModelTrained", "jobs")] : []), form, list, ...load, el("h2", {}, t("experiments")), experiments, result, ...estimates(model_version)];
  }

  /** A catalogue, its users and what they did, from files of one JSON document a line; a bad row fails alone and is named. */
  function loadForm(first) {
    const kinds = { items: (rows) => change("PUT", `${path}/items`, { items: rows }), users: (rows) => change("PUT", `${path}/users`, { users: rows }), events: (rows) => post(`${path}/events`, { events: rows }) };
    const kind = el("select", { name: "kind" }, Object.keys(kinds).map((each) => el("option", { value: each }, t(`load_${each}`))));
    /** Sent again when too much is being written; one answer, whether some rows or all of them are malformed. */
    const sent = async (what, rows, tries = 60) => {
      try {
        return await kinds[what](rows);
      } catch (refusal) {
        if (refusal.status === 429 && tries > 0) {
          await new Promise((again) => setTimeout(again, 1000));
          return sent(what, rows, tries - 1);
        }
        const rejected = new Map();
        for (const fault of refusal.status === 422 ? refusal.faults : []) {
          const [, index, name] = fault.field?.match(`^${what}[.]([0-9]+)[.](.+)$`) ?? [];
          if (index) rejected.set(index, [...(rejected.get(index) ?? []), { ...fault, field: name }]);
        }
        if (rejected.size === 0) throw refusal;
        return { accepted: 0, refused: rows.length, rejected: [...rejected].map(([index, errors]) => ({ index: Number(index), errors })) };
      }
    };
    const file = el("input", { type: "file", name: "rows", required: true, accept: ".jsonl,.ndjson,.json" });
    file.onchange = () => { const named = Object.keys(kinds).find((each) => file.files[0]?.name.startsWith(each)); if (named) kind.value = named; };
    const progress = el("progress", { hidden: true });
    const wrong = el("pre", { id: "wrong-rows", hidden: true });
    return [el("details", { id: "load", open: first }, el("summary", {}, t("loadData")), el("form", { id: "load-rows", onsubmit: onsubmit(async () => {
      const lines = (await file.files[0].text()).split("\n").map((line, at) => [line.trim(), at + 1]).filter(([line]) => line);
      const rows = lines.map(([line, at]) => { try { return JSON.parse(line); } catch { throw new Error(`${t("notJson")} ${at}`); } });
      wrong.hidden = true;
      progress.hidden = false;
      let taken = 0;
      let waiting = 0;
      let left = 0;
      const refused = [];
      try {
        for (let at = 0; at < rows.length; at += ROWS_A_REQUEST) {
          Object.assign(progress, { max: rows.length, value: at });
          const said = await sent(kind.value, rows.slice(at, at + ROWS_A_REQUEST));
          taken += said.accepted + (said.duplicates ?? 0);
          waiting += said.unknown_item_events ?? 0;
          left += said.refused ?? said.rejected.length;
          refused.push(...said.rejected.map((each) => `${lines[at + each.index][1]}: ${each.errors.map((fault) => `${fault.field}: ${kit.explainFault(fault)}`).join("; ")}`));
        }
      } finally {
        progress.hidden = true;
      }
      if (first && taken && !refused.length) await open("recommend");
      wrong.hidden = refused.length === 0;
      wrong.textContent = refused.join("\n");
      show(`${t("taken")} ${taken}` + (refused.length ? ` · ${t("refused")}: ${left}` : "") + (waiting ? ` · ${t("ofUnknownItems")}: ${waiting}` : ""));
    }) }, field(t("rowsFile"), file, t("rowsHelp")), field(t("rowsAre"), kind), el("button", { className: "primary" }, t("takeIn")), progress, wrong))];
  }

  async function look(user, into) {
    const made = await get(`${path}/users/${encodeURIComponent(user)}/items?k=10`);
    const asked = made.items.map((item) => `item=${encodeURIComponent(item.item_id)}`).join("&");
    const pictured = new Set(asked ? (await get(`${path}/pictures?${asked}`)).items : []);
    const why = el("section", { id: "why-listed" });
    const rows = made.items.map((item, place) => row([
      place + 1, el("span", {}, cover(item, pictured), item.title || item.item_id), say(item.reasons),
      el("span", {},
        el("button", { type: "button", data: { like: item.item_id }, onclick: (event) => attempt(() => like(user, item, into), event.target) }, t("like")), " ",
        made.model_version === null ? "" : el("button", { type: "button", data: { why: item.item_id }, onclick: (event) => attempt(() => explain(user, item, why), event.target) }, t("whyThis"))),
    ], { data: { item: item.item_id } }));
    const from = made.model_version === null ? "" : ` · ${made.model}/${made.model_version}`;
    const arm = made.experiment && ` · ${t("arm")} ${made.experiment.arm}`;
    into.replaceChildren(el("h2", {}, t(`source_${made.source}`), el("small", {}, from, arm ?? "")), table(["", t("item"), t("whyListed"), ""], rows), why);
  }

  /** An item's picture, and where it may be sent; the key goes along, so it cannot be a plain address. */
  function cover(item, pictured) {
    const at = `${path}/items/${encodeURIComponent(item.item_id)}/picture`;
    const image = el("img", { className: "cover", alt: "", hidden: true });
    const look = () => kit.call(at).then((answer) => answer.blob()).then((blob) => {
      image.onload = () => URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(blob);
      image.hidden = false;
    });
    if (pictured.has(item.item_id)) look().catch(() => { image.hidden = true; });
    if (!may("recommend", "write")) return image;
    const file = el("input", { type: "file", hidden: true, accept: ".jpg,.jpeg,.png,.webp", data: { cover: item.item_id } });
    const button = el("button", { type: "button", title: t("setPicture"), onclick: () => file.click() }, t("picture"));
    file.onchange = () => attempt(async () => {
      const [chosen] = file.files;
      if (!chosen) return;
      const form = new FormData();
      form.append("file", chosen, chosen.name);
      const made = await (await kit.call(at, { method: "PUT", body: form })).json();
      file.value = "";
      await look();
      show(`${item.title || item.item_id}: ${t(`picture_${made.state}`)}`);
    }, button);
    return el("span", {}, image, file, button, " ");
  }

  /** A like counts at once: the next list is made with it. */
  async function like(user, item, into) {
    await post(`${path}/events`, { events: [{ event_id: unique(), user_id: user, item_id: item.item_id, kind: "like" }] });
    await look(user, into);
    show(`${item.title || item.item_id}: ${t("liked")}`);
  }

  async function explain(user, item, into) {
    const { moved, score } = await get(`${path}/users/${encodeURIComponent(user)}/items/${encodeURIComponent(item.item_id)}/explanation`);
    into.replaceChildren(el("h3", {}, item.title || item.item_id, " ", el("small", {}, score.toFixed(3))),
      table([t("whatMoved"), t("byHowMuch")], moved.map((part) => row([part[language()], el("span", { className: part.by < 0 ? "bad" : "good" }, part.by.toFixed(3))]))));
  }

  async function drawExperiments(into, result) {
    const { experiments } = await get(`${path}/experiments`);
    into.replaceChildren(table([t("name"), t("state"), t("arms"), t("since"), t("by")], experiments.map((each) => row([
      el("button", { type: "button", data: { experiment: each.id }, onclick: (event) => attempt(() => openExperiment(each.id, result, into), event.target) }, each.name),
      t(`experiment_${each.status}`), each.arms.map((arm) => arm.name).join(", "), when(each.started_at), each.created_by,
    ]))));
  }

  async function openExperiment(id, into, list) {
    const { experiment, arms, against_control: against, sample_ratio_p: ratio } = await get(`${path}/experiments/${id}/results`);
    const metrics = [...new Set([...arms.map((arm) => arm.values), ...Object.values(against)].flatMap(Object.keys))].sort();
    const again = async () => { await Promise.all([openExperiment(id, into, list), drawExperiments(list, into)]); };
    const stop = () => el("button", { type: "button", data: { act: "stop" }, onclick: (event) => attempt(async () => { await post(`${path}/experiments/${id}/stop`, {}); await again(); }, event.target) }, t("stopExperiment"));
    const promote = (arm) => el("button", { type: "button", data: { promote: arm.name }, onclick: (event) => attempt(async () => {
      const done = await post(`${path}/experiments/${id}/promote`, { arm: arm.name, reason: experiment.name });
      await again();
      show(`${done.model}/${done.model_version}: ${t("moved")}`);
    }, event.target) }, t("promote"));
    const spec = (name) => experiment.arms.find((each) => each.name === name);
    const rows = arms.map((arm) => row([
      arm.name, arm.users, arm.lists, metrics.map((name) => el("div", {}, `${t(`metric_${name}`)} ${arm.values[name]?.toFixed(4) ?? "–"}`, verdict(against[arm.name]?.[name]))),
      experiment.status === "running" && spec(arm.name).version !== null ? promote(arm) : "",
    ]));
    into.replaceChildren(el("h2", {}, experiment.name, " ", el("small", {}, t(`experiment_${experiment.status}`))),
      ratio < 0.01 ? el("p", { className: "bad" }, t("ratioWrong")) : "",
      table([t("arm"), t("users"), t("lists"), t("metrics"), ""], rows), el("p", {}, experiment.status === "running" ? stop() : ""));
  }

  /** What a version that need not have been shown would have earned, from places that chance filled. */
  function estimates(serving) {
    const version = el("input", { id: "estimated", type: "number", min: 1, required: true, value: serving ?? "" });
    const outcome = el("select", { id: "outcome" }, ["click", "like"].map((each) => el("option", { value: each }, t(`outcome_${each}`))));
    const policy = el("select", { id: "policy" }, ["drawn", "best"].map((each) => el("option", { value: each }, t(`policy_${each}`))));
    const into = el("section", { id: "estimate" });
    const look = async () => {
      const found = await get(`${path}/models/${version.value}/offpolicy?outcome=${outcome.value}&policy=${policy.value}`);
      const rate = ({ value, low, high }) => `${value.toFixed(4)} [${low.toFixed(4)}, ${high.toFixed(4)}]`;
      into.replaceChildren(table(["", t("perPlace")], ["shown", "doubly_robust", "gain"].map((name) => row([t(`estimate_${name}`), rate(found[name])]))),
        el("p", { className: "help" }, `${t("placesByChance")} ${found.places} · ${t("lists")} ${found.lists} · ${t("worthOwn")} ${found.effective_places.toFixed(0)}`));
    };
    return [el("h2", {}, t("neverShown")), el("form", { id: "estimates", onsubmit: onsubmit(look) }, field(t("version"), version), field(t("outcome"), outcome), field(t("fills"), policy), el("button", {}, t("estimate"))), into];
  }

  function verdict(difference) {
    if (!difference) return "";
    const interval = difference.always_low === null ? "" : ` [${difference.always_low.toFixed(4)}, ${difference.always_high.toFixed(4)}]`;
    return el("span", { className: { better: "good", worse: "bad" }[difference.verdict] ?? "help" }, ` ${t(`verdict_${difference.verdict}`)}${interval}`);
  }

  return page;
}
