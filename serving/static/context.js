// The bundle of an entity, as an agent gets it: facts that lead to their sources, the prompt's text, and the JSON.

import * as api from "./api.js";
import { button, copier, el, field, fill, linear, listed, roving, select } from "./dom.js";
import { number } from "./format.js";
import { CACHE_TONES, FRESHNESS_TITLES, FRESHNESS_TONES, badge, problem, waiting } from "./notice.js";

const DEFAULT_SPEC = "customer_context_v0";
const FORMS = [["facts", "Facts"], ["text", "Text"], ["json", "JSON"]];
const INLINE = new Set(["profile", "metrics"]);

/** `open(cited, title, where)`: show sources, `where` as source.js has it. `go(changes)`: another spec or day. `loaded(bundle)`: once it is here. */
export function contextCard({ route, info, open, go, loaded }) {
  const body = el("div", { class: "card-body" }, waiting("Reading the context"));
  const card = el("section", { class: "card", "aria-labelledby": "context-title" },
    el("header", { class: "card-head" },
      el("div", {}, el("h2", { id: "context-title" }, "Context"),
        el("p", { class: "muted small" }, "What an agent reads, built ahead of time")),
      choices(route, info, go)),
    body);
  const stop = new AbortController();

  async function read(ask, made) {
    fill(body, waiting("Reading the context"));
    try {
      const json = await ask("json", null);
      const bundle = JSON.parse(json.body);
      const snapshot = json.headers.get("x-snapshot");
      const text = async () => (await ask("text", snapshot)).body; // of the same cut, so that markers keep their meaning
      const where = { snapshot, lines: made ? null : once(() => lines(bundle, json.headers)) };
      fill(body, summary(bundle, json, made), forms(bundle, json.body, text, (cited, title) => open(cited, title, where)));
      loaded(bundle);
    } catch (error) {
      if (error.name === "AbortError") return;
      const help = error.code === "bundle_not_built" && [button("Make it on demand", demand, { class: "primary" })];
      fill(body, problem(error, ...(help || [])));
      loaded(null);
    }
  }

  /** The stored line of each citation. At the bundle's own snapshot, which outlives the bundle. */
  async function lines(bundle, headers) {
    const known = { entity: route.entity, spec: route.spec ?? DEFAULT_SPEC, as_of: bundle.as_of, snapshot: headers.get("x-snapshot") };
    return (await api.why(route.tenant, headers.get("etag").replaceAll('"', ""), known, stop.signal)).citations;
  }

  const { spec, as_of: asOf } = route;
  const stored = () => read((format, snapshot) => api.context(route.tenant, route.entity, { spec, as_of: asOf, format, snapshot }, stop.signal));
  const until = asOf && new Date(Date.parse(`${asOf}T00:00:00Z`) + 86_400_000).toISOString();
  const demand = () => read(
    (format, snapshot) => api.onDemand(route.tenant, route.entity, { format, ...(snapshot && { snapshot }), ...(spec && { spec }), ...(until && { until }) }, stop.signal),
    "on demand",
  );
  stored();
  return { node: card, dispose: () => stop.abort() };
}

/** What `work` promises, asked for once; again after it failed. */
function once(work) {
  let asked = null;
  return () => (asked ??= work().catch((error) => { asked = null; throw error; }));
}

function choices(route, info, go) {
  const specs = [...new Set([...Object.keys(info?.bundles ?? {}), route.spec ?? DEFAULT_SPEC, DEFAULT_SPEC])].sort();
  const spec = select(specs.map((name) => [name, name]), route.spec ?? DEFAULT_SPEC);
  spec.addEventListener("change", () => go({ spec: spec.value === DEFAULT_SPEC ? null : spec.value }));
  const day = el("input", { type: "date", value: route.as_of, max: info?.days.at(-1) });
  day.addEventListener("change", () => go({ as_of: day.value || null }));
  const newest = button("Newest", () => go({ as_of: null }), { class: "quiet", disabled: !route.as_of });
  return el("div", { class: "row controls" }, field("Spec", spec), field("As of", day), newest);
}

function summary(bundle, json, made) {
  const { headers } = json;
  const freshness = headers.get("x-freshness");
  const cache = headers.get("x-cache");
  const heading = bundle.tokens - bundle.sections.reduce((sum, section) => sum + section.tokens, 0);
  const parts = [...bundle.sections.map((section) => [section.title, section.tokens]), ["Heading", heading]].filter(([, n]) => n > 0);
  return el("div", { class: "summary" },
    el("div", { class: "row badges" },
      badge("plain", `as of ${bundle.as_of}`),
      made ? badge("plain", made, "Made for this page, unbuilt events included") : badge(FRESHNESS_TONES[freshness] ?? "plain", freshness, FRESHNESS_TITLES[freshness]),
      badge(CACHE_TONES[cache] ?? "plain", `cache ${cache}`, "Where the service had it: memory, its disk, or the object store (cold)"),
      badge("plain", `snapshot ${headers.get("x-snapshot")}`, "{manifest}.{log number}: the cut it was read at"),
      badge("plain", `${json.ms.toFixed(0)} ms`, "From this browser and back")),
    el("div", { class: "meter-head" }, el("span", {}, "Tokens"),
      el("span", { class: "number" }, `${number(bundle.tokens)} of ${number(bundle.budget_tokens)}`)),
    el("div", { class: "meter", role: "img", "aria-label": parts.map(([name, n]) => `${name} ${n} tokens`).join(", ") },
      parts.map(([name, n], at) => el("span", { class: `tint-${at % 6}`, title: `${name}: ${n} tokens`, vars: { share: n / bundle.budget_tokens } }))),
    el("ul", { class: "legend" },
      parts.map(([name, n], at) => el("li", {}, el("span", { class: `swatch tint-${at % 6}`, "aria-hidden": "true" }), name, " ", el("b", { class: "number" }, number(n))))));
}

function forms(bundle, json, text, open) {
  const panels = { facts: () => facts(bundle, open), text: () => prompt(bundle, text, open), json: () => source(json) };
  const panel = el("div", { role: "tabpanel", id: "form-panel", tabindex: "0" });
  const tabs = FORMS.map(([name, title]) => {
    const tab = button(title, () => show(name), { role: "tab", id: `form-${name}`, "aria-controls": "form-panel" });
    tab.addEventListener("focus", () => show(name));
    return tab;
  });
  function show(name) {
    for (const tab of tabs) {
      const chosen = tab.id === `form-${name}`;
      tab.setAttribute("aria-selected", String(chosen));
      tab.setAttribute("tabindex", chosen ? "0" : "-1");
    }
    if (panel.dataset.form === name) return;
    panel.dataset.form = name;
    panel.setAttribute("aria-labelledby", `form-${name}`);
    fill(panel, panels[name]());
  }
  const row = el("div", { role: "tablist", class: "tabs", "aria-label": "Form of the context" }, tabs);
  roving(row, () => tabs, linear);
  show("facts");
  return [row, panel];
}

function facts(bundle, open) {
  if (!bundle.sections.length) return el("p", { class: "muted" }, "No section found anything within its look-back.");
  return listed(el("div", { class: "sections" }, bundle.sections.map((section) =>
    el("section", { class: "facts" }, el("h3", {}, section.title),
      el("ul", { class: INLINE.has(section.kind) ? "fact-grid" : "fact-list" },
        section.items.map((item) => el("li", {}, fact(bundle, item, open))))))), ".fact");
}

function fact(bundle, item, open) {
  const weight = bundle.signals[item.name];
  return button([
    item.severity !== undefined && el("span", { class: `severity ${item.severity}`, title: item.severity }, el("span", { class: "unseen" }, `${item.severity}: `)),
    el("span", { class: "fact-text" }, item.text),
    item.severity !== undefined && weight !== undefined && el("span", { class: "note number", title: "Weight of the signal" }, `× ${number(weight)}`),
    el("span", { class: "cites" }, item.citations.map((n) => el("span", { class: "cite" }, n))),
  ], () => open(item.citations.map((n) => ({ ...bundle.citations[n - 1], n, chars: item.chars })), item.text),
  { class: "fact", "aria-label": `${item.severity ? `${item.severity}: ` : ""}${item.text}: show ${item.citations.length === 1 ? "its source" : `its ${item.citations.length} sources`}` });
}

/** The prompt's text as it is; its markers lead to their sources. Events cannot write markers: the bundle defuses them. */
function prompt(bundle, load, open) {
  const node = el("div", {}, waiting("Reading the text"));
  load().then((text) => fill(node, written(bundle, text, open)), (error) => error.name !== "AbortError" && fill(node, problem(error)));
  return node;
}

function written(bundle, text, open) {
  const pieces = text.split(/(\[\d+\])/).map((piece) => {
    const n = /^\[(\d+)\]$/.exec(piece)?.[1];
    const cited = n && bundle.citations[n - 1];
    return cited ? button(piece, () => open([{ ...cited, n: Number(n) }], `[${n}]`), { class: "marker", "aria-label": `Source ${n}` }) : piece;
  });
  return [el("div", { class: "row end" }, copier("Copy text", text)), el("pre", { class: "prompt" }, pieces)];
}

function source(json) {
  return [
    el("div", { class: "row spread" }, el("p", { class: "muted small" }, "Spaced here to be read; the copy has the canonical bytes."), copier("Copy JSON", json)),
    el("pre", { class: "json" }, tokens(JSON.stringify(JSON.parse(json), null, 2))),
  ];
}

/** Names of members apart from values. */
function tokens(pretty) {
  return pretty.split(/^(\s*"(?:[^"\\]|\\.)*":)/m).map((piece, n) => (n % 2 ? el("span", { class: "member" }, piece) : piece));
}
