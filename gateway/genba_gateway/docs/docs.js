// The reader of /v1/openapi.json: lists every operation, shows what goes in and comes out, and sends requests.
// No library and nothing from elsewhere, because a closed network has no elsewhere. The key stays in this page's memory.
"use strict";

const TEXTS = {
  en: {
    key: "API key", search: "Search", language: "日本語", send: "Send", parameters: "Parameters", body: "Body", answers: "Answers",
    needs: "Needs", open: "Open to everybody", required: "required", file: "File", failed: "The document could not be loaded: ",
    sending: "Sending …", anyone: "any known caller", clearance: "clearance",
  },
  ja: {
    key: "API キー", search: "検索", language: "English", send: "送信", parameters: "パラメーター", body: "本文", answers: "応答",
    needs: "必要な権限", open: "認証不要", required: "必須", file: "ファイル", failed: "API 文書を読み込めませんでした: ",
    sending: "送信中 …", anyone: "認証済みの利用者", clearance: "機密区分",
  },
};
let language = navigator.language.startsWith("ja") ? "ja" : "en";
let api = null;

const text = (name) => TEXTS[language][name];

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function resolve(schema) {
  let found = schema;
  for (let hops = 0; found && found.$ref && hops < 20; hops += 1) {
    found = found.$ref.slice(2).split("/").reduce((node, part) => node && node[part.replace(/~1/g, "/").replace(/~0/g, "~")], api);
  }
  return found || {};
}

// A value that fits a schema, as a start for typing.
function example(schema, depth = 0) {
  const found = resolve(schema);
  if (depth > 6) return null;
  if (found.example !== undefined) return found.example;
  if (found.examples && found.examples.length) return found.examples[0];
  if (found.default !== undefined) return found.default;
  if (found.const !== undefined) return found.const;
  if (found.enum) return found.enum[0];
  const choice = (found.anyOf || found.oneOf || []).find((one) => resolve(one).type !== "null");
  if (choice) return example(choice, depth + 1);
  if (found.allOf) return Object.assign({}, ...found.allOf.map((one) => example(one, depth + 1)));
  switch (found.type) {
    case "object":
      return Object.fromEntries(Object.entries(found.properties || {}).map(([name, one]) => [name, example(one, depth + 1)]));
    case "array": return found.items ? [example(found.items, depth + 1)] : [];
    case "integer": case "number": return found.minimum ?? 0;
    case "boolean": return false;
    case "string": return found.format === "date-time" ? new Date().toISOString() : "";
    default: return null;
  }
}

function describe(schema) {
  const found = resolve(schema);
  const name = schema.$ref ? schema.$ref.split("/").pop() : found.title;
  if (found.type === "array") return `${describe(found.items || {})}[]`;
  if (found.anyOf || found.oneOf) return (found.anyOf || found.oneOf).map(describe).join(" | ");
  if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" | ");
  return found.type === "object" && name ? name : [found.type, found.format].filter(Boolean).join(" ") || "any";
}

function parameterTable(parameters, inputs) {
  if (!parameters.length) return null;
  const rows = parameters.map((parameter) => {
    const input = element("input", { "aria-label": parameter.name, placeholder: describe(parameter.schema || {}) });
    inputs.push([parameter, input]);
    const mark = parameter.required ? ` (${text("required")})` : "";
    return element("tr", {},
      element("td", {}, element("code", {}, parameter.name), element("div", { class: "quiet" }, parameter.in + mark)),
      element("td", {}, input, element("div", { class: "quiet" }, parameter.description || "")));
  });
  return element("div", {}, element("h3", {}, text("parameters")), element("table", {}, ...rows));
}

function bodyForm(requestBody) {
  if (!requestBody) return null;
  const content = resolve(requestBody).content || {};
  const types = Object.keys(content);
  if (!types.length) return null;
  const json = types.find((type) => type.includes("json"));
  const type = json || types[0];
  const field = json
    ? element("textarea", { spellcheck: "false", "aria-label": text("body") })
    : element("input", { type: "file", "aria-label": text("file") });
  if (json) field.value = JSON.stringify(example(content[json].schema || {}), null, 2);
  return { type, field, node: element("div", {}, element("h3", {}, `${text("body")} · ${type}`), field) };
}

function answers(responses) {
  const rows = Object.entries(responses || {}).map(([status, response]) => {
    const found = resolve(response);
    const kinds = Object.values(found.content || {}).map((media) => (media.schema ? describe(media.schema) : "")).filter(Boolean);
    return element("tr", {}, element("td", {}, element("code", {}, status)), element("td", {}, found.description || ""),
      element("td", { class: "quiet" }, kinds.join(" | ")));
  });
  return element("div", {}, element("h3", {}, text("answers")), element("table", {}, ...rows));
}

function needs(operation) {
  if (!operation.security) return text("open");
  return `${text("needs")}: ${operation["x-genba-scope"] || text("anyone")} · ${text("clearance")} ${operation["x-genba-clearance"]}`;
}

function address(path, inputs, headers) {
  const query = new URLSearchParams();
  let target = path;
  for (const [parameter, input] of inputs) {
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (!input.value) continue;
    else if (parameter.in === "query") query.append(parameter.name, input.value);
    else if (parameter.in === "header") headers.set(parameter.name, input.value);
  }
  return query.size ? `${target}?${query}` : target;
}

function requestBodyOf(body, headers) {
  if (!body) return undefined;
  if (body.field.type !== "file") {
    headers.set("content-type", body.type);
    return body.field.value;
  }
  const file = body.field.files[0];
  if (!file) return undefined;
  if (body.type === "multipart/form-data") {
    const form = new FormData();
    form.append("file", file);
    return form;
  }
  headers.set("content-type", file.type || "application/octet-stream");
  return file;
}

async function send(method, path, inputs, body, output) {
  output.hidden = false;
  output.textContent = text("sending");
  const headers = new Headers();
  const key = document.getElementById("key").value.trim();
  if (key) headers.set("authorization", `Bearer ${key}`);
  try {
    const url = address(path, inputs, headers);
    const started = performance.now();
    const response = await fetch(url, { method: method.toUpperCase(), headers, body: requestBodyOf(body, headers) });
    const type = response.headers.get("content-type") || "";
    const shown = /json|text|csv|html/.test(type) ? await response.text() : `${(await response.blob()).size} bytes · ${type}`;
    const pretty = type.includes("json") && shown ? JSON.stringify(JSON.parse(shown), null, 2) : shown;
    output.textContent = `${response.status} · ${Math.round(performance.now() - started)} ms\n\n${pretty}`;
  } catch (error) {
    output.textContent = String(error);
  }
}

function operationDetails(path, method, operation, shared) {
  const inputs = [];
  const parameters = [...shared, ...(operation.parameters || [])].map(resolve);
  const panel = element("div");
  const details = element("details", {}, element("summary", {},
    element("span", { class: `method ${method}` }, method.toUpperCase()), element("span", { class: "path" }, path), " ",
    element("span", { class: "quiet" }, operation.summary || "")), panel);
  details.addEventListener("toggle", () => {
    if (!details.open || panel.childElementCount) return;
    const body = bodyForm(operation.requestBody);
    const output = element("pre", { hidden: true, tabindex: "0" });
    panel.append(element("p", {}, operation.description || ""), element("p", { class: "quiet" }, needs(operation)));
    for (const part of [parameterTable(parameters, inputs), body && body.node]) if (part) panel.append(part);
    panel.append(element("p", {}, element("button", {
      type: "button", class: "send", onclick: () => send(method, path, inputs, body, output),
    }, text("send"))), output, answers(operation.responses));
  });
  return details;
}

function show() {
  document.documentElement.lang = language;
  document.getElementById("language").textContent = text("language");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  const wanted = document.getElementById("search").value.trim().toLowerCase();
  const groups = new Map((api.tags || []).map((tag) => [tag.name, { title: tag.description, found: [] }]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      if (!["get", "put", "post", "delete", "patch", "head", "options"].includes(method)) continue;
      if (wanted && !`${method} ${path} ${operation.summary || ""} ${operation.description || ""}`.toLowerCase().includes(wanted)) continue;
      const tag = (operation.tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, { title: tag, found: [] });
      groups.get(tag).found.push(operationDetails(path, method, operation, item.parameters || []));
    }
  }
  const shown = [...groups].filter(([, group]) => group.found.length);
  document.getElementById("services").replaceChildren(...shown.map(([name]) => element("a", { href: `#${name}` }, name)));
  document.getElementById("operations").replaceChildren(...shown.map(([name, group]) =>
    element("section", { id: name }, element("h2", {}, group.title || name), ...group.found)));
}

async function start() {
  document.getElementById("search").addEventListener("input", show);
  document.getElementById("language").addEventListener("click", () => {
    language = language === "en" ? "ja" : "en";
    show();
  });
  try {
    const response = await fetch("/v1/openapi.json");
    if (!response.ok) throw new Error(String(response.status));
    api = await response.json();
    document.getElementById("title").textContent = `${api.info.title} ${api.info.version}`;
    show();
  } catch (error) {
    document.getElementById("operations").textContent = text("failed") + error;
  }
}

start();
