// The documents that the assistant answers from: taken in, looked up, deleted. Who may see one is decided by its label, before anything is ranked.

const CLEARANCES = ["public", "internal", "confidential", "secret"];

/** ``kit`` is what console.js shares. */
export function documentsPage(kit) {
  const { el, t, table, row, field, get, post, call, send, attempt, show, when, onsubmit, may } = kit;
  const path = "/v1/llm/documents";

  async function page() {
    const list = el("section", { id: "documents" });
    async function look() {
      const rows = [];
      for (let cursor = ""; cursor !== null; ) {
        const found = await get(`${path}?limit=200${cursor && `&cursor=${encodeURIComponent(cursor)}`}`);
        rows.push(...found.items);
        cursor = rows.length < 1000 ? found.next_cursor : null;
      }
      list.replaceChildren(rows.length === 0 ? el("p", { className: "begin" }, t("noDocuments")) : table([t("title"), t("clearance"), t("passages"), t("characters"), t("when"), t("by"), ""], rows.map((each) => row([
        each.title, t(`clearance_${each.clearance}`), each.chunk_count, each.chars.toLocaleString(kit.language()), when(each.created_at), each.created_by,
        may("llm", "write") ? el("button", { type: "button", data: { remove: each.id }, onclick: (event) => kit.sure(`${each.title}: ${t("deleteSure")}`) && attempt(async () => { await call(`${path}/${each.id}`, { method: "DELETE" }); await look(); }, event.target) }, t("delete")) : "",
      ]))));
    }
    await look();
    return [list, ...(may("llm", "write") ? [addForm(look), ...searchForm()] : [])];
  }

  function addForm(look) {
    const files = el("input", { type: "file", name: "documents", multiple: true, required: true, accept: ".txt,.md,.html,.htm,.pdf,.docx" });
    const label = el("select", { name: "clearance" }, CLEARANCES.map((each) => el("option", { value: each, selected: each === "internal" }, t(`clearance_${each}`))));
    const progress = el("progress", { hidden: true });
    return el("form", { id: "new-document", onsubmit: onsubmit(async () => {
      progress.hidden = false;
      let taken = 0;
      try {
        for (const file of files.files) {
          const query = new URLSearchParams({ name: file.name, title: file.name.replace(/\.[^.]*$/, ""), clearance: label.value });
          await send(`${path}?${query}`, file, progress, { "content-type": file.type || "application/octet-stream" });
          taken += 1;
        }
      } finally {
        progress.hidden = true;
        await look();
      }
      show(`${t("taken")} ${taken}`);
    }) }, el("h2", {}, t("newDocuments")), field(t("files"), files, t("documentsHelp")), field(t("clearance"), label), el("button", { className: "primary" }, t("takeIn")), progress);
  }

  function searchForm() {
    const query = el("input", { name: "query", required: true, maxLength: 2000 });
    const found = el("section", { id: "passages" });
    const form = el("form", { id: "find-passages", onsubmit: onsubmit(async () => {
      const { decision, hits } = await post("/v1/llm/office/search", { query: query.value, limit: 10 });
      found.replaceChildren(...(decision.decision === "ALLOW" ? [] : [el("p", {}, t(`because_${decision.decision}`))]), table(["", t("title"), t("passage")], hits.map((hit) => row([hit.number, hit.title, hit.text]))));
    }) }, el("h2", {}, t("findPassages")), field(t("question"), query), el("button", { className: "primary" }, t("findThem")));
    return [form, found];
  }

  return page;
}
