// The pages of svc-sop: score a video, register procedures and golds, read and review evaluations, find clips.

/** ``kit`` is what console.js shares. */
export function sopPages(kit) {
  const { el, t, explain, row, table, field, get, post, call, change, leaf, begin, attempt, show, when, onsubmit, open } = kit;
  const say = (text) => text?.[kit.language()] || text?.en || text?.ja || "–";
  const seconds = (value) => (value === null || value === undefined ? "–" : `${value.toFixed(1)} s`);
  const chance = (p) => (p === null ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3));
  const ASK_AGAIN_MS = 1000;
  const MOST_PLAYED_BYTES = 512 * 1024 * 1024; // a player cannot send the key, so the page holds the video

  /** A video's record. A job takes a long or large one in, and is waited for. */
  async function upload(file, progress, transcript = null) {
    const form = new FormData();
    form.append("title", file.name);
    if (transcript) form.append("transcript", transcript);
    form.append("file", file);
    const sent = await kit.send("/v1/sop/videos", form, progress);
    if (!sent.recipe) return sent;
    show(`${t("jobIngests")} ${sent.id}`);
    progress.max = 1;
    for (;;) {
      const job = await get(sent.location);
      progress.value = job.progress;
      if (job.status === "succeeded") { show(null); return { id: job.result.value.video_id }; }
      if (!["queued", "running"].includes(job.status)) throw new Error(`${t(`job_${job.status}`)}: ${job.error ? explain(job.error) : sent.id}`);
      await new Promise((resolve) => setTimeout(resolve, ASK_AGAIN_MS));
    }
  }

  /** All of a list, and not its first page alone. */
  async function every(path) {
    const items = [];
    for (let cursor = ""; cursor !== null;) {
      const page = await get(`${path}${cursor && `?cursor=${encodeURIComponent(cursor)}`}`);
      items.push(...page.items);
      cursor = page.next_cursor;
    }
    return items;
  }

  /** Where a video is looked at: the kept picture nearest to a moment, and the video itself once somebody asks for it and the browser knows its codec. */
  function screen(videoId, file = null) {
    const node = el("div", { className: "screen" });
    let at = 0;
    let player = null;
    function picture() {
      const image = el("img", { alt: `${at.toFixed(1)} s`, hidden: true });
      call(`/v1/sop/videos/${videoId}/thumbnail?at_s=${at}`)
        .then((answer) => answer.blob())
        .then((blob) => { image.onload = () => { URL.revokeObjectURL(image.src); image.hidden = false; }; image.src = URL.createObjectURL(blob); })
        .catch(() => image.replaceWith(el("p", { className: "help" }, t("noPicture"))));
      const button = el("button", { type: "button", data: { act: "play" }, onclick: (event) => attempt(fetchVideo, event.target) }, t("playVideo"));
      node.replaceChildren(image, el("p", {}, button, " ", el("span", { className: "help" }, seconds(at))));
    }
    function stills(why) {
      player = null;
      picture();
      node.querySelector("[data-act=play]").replaceWith(el("span", { className: "help" }, why));
    }
    async function fetchVideo() {
      const video = await get(`/v1/sop/videos/${videoId}`);
      if (video.size_bytes > MOST_PLAYED_BYTES) return stills(t("tooLargeToPlay"));
      play(await (await call(`/v1/sop/videos/${videoId}/content`)).blob());
      player?.play().catch(() => {}); // a browser may want a click of its own first
    }
    function play(blob) {
      player = el("video", { controls: true, src: URL.createObjectURL(blob), preload: "metadata", onerror: () => stills(t("cannotPlay")) });
      player.currentTime = at;
      node.replaceChildren(player);
    }
    function seek(time) {
      at = time;
      if (player) { player.currentTime = time; player.play().catch(() => {}); } else picture();
    }
    if (file) play(file); else picture();
    return { node, seek, at: () => (player ? player.currentTime : at) };
  }

  async function score() {
    const procedures = await every("/v1/sop/procedures");
    if (procedures.length === 0) return [begin("noProcedures", "procedures")];
    const choose = el("select", { name: "procedure", required: true }, procedures.map((p) => el("option", { value: p.id }, `${say(p.title)} (${t("version")} ${p.version})`)));
    const file = el("input", { type: "file", name: "video", accept: "video/*,.mkv,.ts", required: true });
    const transcript = el("input", { type: "file", name: "transcript", accept: ".vtt,.srt,text/vtt" });
    const operator = el("input", { name: "operator", maxLength: 120 });
    const progress = el("progress", { hidden: true });
    const result = el("section", { id: "result" });
    const form = el("form", { id: "score", onsubmit: onsubmit(async () => {
      progress.hidden = false;
      try {
        const video = await upload(file.files[0], progress, transcript.files[0]);
        const asked = { procedure_id: choose.value, video_id: video.id, ...(operator.value ? { operator: operator.value } : {}) };
        await showVerdict(result, await post("/v1/sop/evaluations", asked, { once: true }), file.files[0]);
      } finally {
        progress.hidden = true;
      }
    }) }, field(t("procedure"), choose), field(t("trainee"), file), field(t("transcriptOfIt"), transcript), field(t("operator"), operator), el("button", { className: "primary", type: "submit" }, t("score")), progress);
    return [form, result];
  }

  async function showVerdict(into, evaluation, file = null) {
    const reviews = await get(`/v1/sop/evaluations/${evaluation.id}/reviews`);
    const { low, high, calibrated } = evaluation.interval;
    const seen = screen(evaluation.video_id, file);
    const seek = (time) => ({ data: { seek: String(time) }, onclick: () => seen.seek(time) });
    const deviations = evaluation.deviations.map((d) =>
      row([t(`kind_${d.kind}`), say(d.step_name), seconds(d.start_s), seconds(d.end_s), el("span", { className: d.severity }, t(`severity_${d.severity}`)), chance(d.p_value), say(d.action)], seek(d.start_s)));
    const alike = el("section", { id: "alike" });
    const steps = evaluation.steps.map((s) => {
      const span = s.spans[0];
      const clip = span && { video_id: evaluation.video_id, start_s: span.start_s, end_s: span.end_s };
      const find = clip && el("button", { type: "button", data: { alike: s.step_id }, onclick: (event) => { event.stopPropagation(); attempt(async () => { await showClips(alike, { clip, k: 8 }); alike.scrollIntoView({ block: "nearest" }); }, event.target); } }, t("alikeClips"));
      return row([say(s.name), t(`status_${s.status}`), s.quality.toFixed(2), seconds(s.duration_s), seconds(s.gold_duration_s), find ?? ""], span ? seek(span.start_s) : {});
    });
    const report = el("button", { type: "button", onclick: (e) => attempt(() => leaf(`/v1/sop/evaluations/${evaluation.id}/report?lang=${kit.language()}`), e.target) }, t("openReport"));
    into.replaceChildren(
      el("p", { className: `verdict ${evaluation.verdict}` }, t(`verdict_${evaluation.verdict}`), el("small", {}, ` ${evaluation.score.toFixed(1)} ${t("ofHundred")} · ${t("interval")} ${low.toFixed(0)}–${high.toFixed(0)} (${t(calibrated ? "calibrated" : "uncalibrated")}) · ${t("encoder")} ${evaluation.encoder}`)),
      ...evaluation.reasons.filter((code) => !code.includes(":")).map((code) => el("p", {}, t(`reason_${code}`))),
      el("div", { className: "result" }, el("div", {}, seen.node, el("p", {}, report)), el("div", {}, el("h2", {}, t("steps")), table([t("step"), t("status"), t("quality"), t("duration"), t("goldDuration"), ""], steps))),
      el("h2", {}, t("deviations")),
      deviations.length ? table([t("deviation"), t("step"), t("from"), t("to"), t("severity"), t("pValue"), t("action")], deviations) : el("p", {}, t("noDeviations")),
      alike,
      ...reviewOf(evaluation, reviews, into, file),
    );
  }

  /** What people said of an evaluation, and the form for whoever may say more. */
  function reviewOf(evaluation, reviews, into, file) {
    const said = reviews.map((r) => row([when(r.created_at), r.reviewer, el("span", { className: r.verdict }, t(`verdict_${r.verdict}`)), r.score?.toFixed(0), r.reason]));
    const list = reviews.length ? [table([t("when"), t("by"), t("verdict"), t("score_column"), t("reason")], said)] : [];
    if (!kit.may("sop", "review")) return list.length ? [el("h2", {}, t("reviews")), ...list] : [];
    const verdict = el("select", { name: "verdict", required: true }, ["pass", "fail"].map((each) => el("option", { value: each, selected: each === evaluation.verdict }, t(`verdict_${each}`))));
    const points = el("input", { name: "score", type: "number", min: 0, max: 100, step: "any" });
    const reason = el("input", { name: "reason", required: true, minLength: 3, maxLength: 2000 });
    const form = el("form", { id: "review", onsubmit: onsubmit(async () => {
      await post(`/v1/sop/evaluations/${evaluation.id}/review`, { verdict: verdict.value, reason: reason.value, ...(points.value === "" ? {} : { score: Number(points.value) }) });
      await showVerdict(into, await get(`/v1/sop/evaluations/${evaluation.id}`), file);
      show(t("reviewKept"));
    }) }, field(t("verdict"), verdict), field(t("scoreOptional"), points), field(t("reason"), reason, t("reviewHelp")), el("button", { className: "primary" }, t("saveReview")));
    return [el("h2", {}, t("reviews")), ...list, form];
  }

  async function procedures() {
    const known = await every("/v1/sop/procedures");
    const shown = el("section", { id: "procedure" });
    const rows = known.map((p) => row([el("button", { type: "button", data: { procedure: p.id }, onclick: (event) => attempt(() => showProcedure(shown, p.id), event.target) }, say(p.title)), p.version, p.step_count, p.gold_count, when(p.created_at), goldForm(p)]));
    return [el("h2", {}, t("procedures")), table([t("title"), t("version"), t("steps"), t("golds"), t("when"), t("addGold")], rows), shown, ...newProcedure()];
  }

  /** A procedure by rows of steps or, for what rows do not say, by its document. */
  function newProcedure() {
    const title = el("input", { name: "title", required: true, maxLength: 200 });
    const rows = el("tbody", {});
    const box = (name) => el("input", { type: "checkbox", name });
    function add() {
      const name = el("input", { name: "step", required: true, maxLength: 200 });
      const remove = el("button", { type: "button", onclick: (event) => { if (rows.children.length > 1) event.target.closest("tr").remove(); } }, t("removeStep"));
      rows.append(row([name, box("critical"), box("optional"), box("any"), el("input", { name: "tool", maxLength: 120 }), el("input", { name: "action", maxLength: 500 }), remove]));
    }
    for (let n = 0; n < 3; n++) add();
    const both = (text) => ({ en: text, ja: text });
    function written() {
      const steps = [...rows.children].map((each, index) => {
        const value = (name) => each.querySelector(`[name=${name}]`);
        const step = { id: `step-${index + 1}`, name: both(value("step").value) };
        for (const name of ["critical", "optional"]) if (value(name).checked) step[name] = true;
        if (value("any").checked) step.order = "any";
        if (value("tool").value) step.tool = value("tool").value;
        if (value("action").value) step.action = both(value("action").value);
        return step;
      });
      return { title: both(title.value), steps };
    }
    const register = async (procedure) => { await post("/v1/sop/procedures", procedure, { once: true }); await open("procedures"); show(t("created")); };
    const head = el("thead", {}, el("tr", {}, [t("step"), t("critical"), t("optional"), t("freeOrder"), t("tool"), t("action"), ""].map((column) => el("th", { scope: "col" }, column))));
    const form = el("form", { id: "new-procedure", className: "wide", onsubmit: onsubmit(() => register(written())) },
      field(t("title"), title), el("div", { className: "scrolls" }, el("table", {}, head, rows)), el("p", { className: "help" }, t("stepsHelp")),
      el("p", {}, el("button", { className: "primary" }, t("create")), " ", el("button", { type: "button", data: { act: "add-step" }, onclick: add }, t("addStep"))));
    const definition = el("textarea", { name: "definition", required: true, spellcheck: false });
    const raw = el("form", { id: "procedure-document", onsubmit: onsubmit(() => register(JSON.parse(definition.value))) }, field(t("definition"), definition, t("procedureHelp")), el("button", { className: "primary" }, t("create")));
    return [el("h2", {}, t("newProcedure")), form, el("details", {}, el("summary", {}, t("byDocument")), raw)];
  }

  /** A procedure's golds: where each step lies, to be looked at and corrected. */
  async function showProcedure(into, id) {
    const procedure = await get(`/v1/sop/procedures/${id}`);
    const golds = procedure.golds.map((gold, index) => goldOf(procedure, gold, index, into));
    into.replaceChildren(el("h2", {}, say(procedure.title)), el("p", { className: "help" }, golds.length === 0 ? t("noGolds") : golds.length < 3 ? t("fewGolds") : ""), ...golds);
  }

  function goldOf(procedure, gold, index, into) {
    const seen = screen(gold.video_id);
    const time = (name, value) => el("input", { name, type: "number", min: 0, step: "any", required: true, value: value.toFixed(2), onchange: (event) => seen.seek(Number(event.target.value)) });
    const names = Object.fromEntries(procedure.steps.map((step) => [step.id, say(step.name)]));
    const spans = gold.steps.map((span) => ({ id: span.id, start: time("start_s", span.start_s), end: time("end_s", span.end_s) }));
    const rows = spans.map((span) => {
      const here = (input) => el("button", { type: "button", title: t("takeTime"), onclick: () => { input.value = seen.at().toFixed(2); } }, t("now"));
      return row([names[span.id] ?? span.id, el("div", { className: "time" }, span.start, here(span.start)), el("div", { className: "time" }, span.end, here(span.end)), el("button", { type: "button", onclick: () => seen.seek(Number(span.start.value)) }, t("look"))]);
    });
    const address = `/v1/sop/procedures/${procedure.id}/golds/${gold.id}`;
    const form = el("form", { className: "wide", data: { gold: gold.id }, onsubmit: onsubmit(async () => {
      const steps = spans.map((span) => ({ id: span.id, start_s: Number(span.start.value), end_s: Number(span.end.value) }));
      await change("PUT", address, { steps });
      await showProcedure(into, procedure.id);
      show(t("goldKept"));
    }) }, table([t("step"), t("from"), t("to"), ""], rows), el("p", {}, el("button", { className: "primary" }, t("saveTimes")), " ", el("button", { type: "button", onclick: (event) => attempt(async () => { await call(address, { method: "DELETE" }); await open("procedures"); }, event.target) }, t("removeGold"))));
    return el("div", {}, el("h3", {}, `${t("gold")} ${index + 1} `, el("small", {}, t(gold.steps_by === "author" ? "timesByAuthor" : "timesProposed"))), el("div", { className: "result" }, seen.node, form));
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

  async function evaluations(cursor = null) {
    const page = await get(`/v1/sop/evaluations?limit=50${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
    if (page.items.length === 0 && cursor === null) return [begin("noEvaluations", "score")];
    const shown = el("section", { id: "result" });
    const rows = page.items.map((e) => {
      const verdict = e.reviewed_verdict ?? e.verdict;
      const link = el("button", { type: "button", onclick: (event) => attempt(async () => showVerdict(shown, await get(`/v1/sop/evaluations/${e.id}`)), event.target) }, e.score.toFixed(1));
      return row([when(e.created_at), e.operator, link, el("span", { className: verdict }, t(`verdict_${verdict}`)), e.encoder]);
    });
    const more = page.next_cursor && el("button", { type: "button", onclick: (event) => attempt(async () => event.target.replaceWith(...(await evaluations(page.next_cursor))), event.target) }, t("more"));
    return [table([t("when"), t("filmed"), t("score_column"), t("verdict"), t("encoder")], rows), ...(more ? [more] : []), shown];
  }

  /** Clips by words, and a place to look at them. */
  async function clips() {
    const known = await every("/v1/sop/procedures");
    const text = el("input", { name: "text", required: true, maxLength: 500, placeholder: t("clipExample") });
    const procedure = el("select", { name: "procedure" }, el("option", { value: "" }, t("anyProcedure")), known.map((p) => el("option", { value: p.id }, say(p.title))));
    const found = el("section", { id: "found" });
    const form = el("form", { id: "find-clips", onsubmit: onsubmit(() => showClips(found, { text: text.value, k: 20, ...(procedure.value ? { procedure_id: procedure.value } : {}) })) }, field(t("wordsOfClip"), text, t("clipsHelp")), field(t("procedure"), procedure), el("button", { className: "primary" }, t("findClips")));
    const question = el("input", { name: "question", required: true, maxLength: 500, placeholder: t("askExample") });
    const ask = el("form", { id: "ask-clips", onsubmit: onsubmit(async () => showAnswer(found, await post("/v1/sop/ask", { question: question.value, ...(procedure.value ? { procedure_id: procedure.value } : {}) }))) }, field(t("askClips"), question, t("askHelp")), el("button", {}, t("ask")));
    return [form, ask, found];
  }

  /** What passages or a model answer, and the places that it rests on. */
  function showAnswer(into, { answer, note, citations }) {
    const place = el("div", {});
    const rows = citations.map((c) => row(
      [String(c.n), c.words, say(c.step_name), c.video_title, seconds(c.start_s), seconds(c.end_s)],
      { data: { seek: String(c.start_s) }, onclick: () => { const seen = screen(c.video_id); seen.seek(c.start_s); place.replaceChildren(seen.node); } },
    ));
    into.replaceChildren(el("h2", {}, t("answer")), ...answer.split("\n").map((line) => el("p", {}, line)), ...(note ? [el("p", { className: "help" }, t("answerOfPassages"))] : []), place, ...(rows.length ? [table(["", t("said"), t("step"), t("video"), t("from"), t("to")], rows)] : []));
  }

  async function showClips(into, asked) {
    const { hits } = await post("/v1/sop/search", asked);
    const place = el("div", {});
    const rows = hits.map((hit) => row(
      [say(hit.step_name), hit.transcript?.words ?? "", hit.video_title, seconds(hit.start_s), seconds(hit.end_s), t(`clip_${hit.source}`), hit.score.toFixed(2)],
      { data: { seek: String(hit.transcript?.start_s ?? hit.start_s) }, onclick: () => { const seen = screen(hit.video_id); seen.seek(hit.transcript?.start_s ?? hit.start_s); place.replaceChildren(seen.node); } },
    ));
    into.replaceChildren(el("h2", {}, t("foundClips")), place, table([t("step"), t("said"), t("video"), t("from"), t("to"), t("whence"), t("likeness")], rows));
  }

  return { score, procedures, evaluations, clips };
}
