// Search of an entity or the tenant: filters, the scores of each leg, and what the read cost.

import * as api from "./api.js";
import { button, el, field, fill, linear, listed, select } from "./dom.js";
import { bytes, count, excerpt, label, minute, number, score } from "./format.js";
import { CACHE_TONES, badge, empty, problem, waiting } from "./notice.js";
import { format } from "./route.js";

const UNESCAPED = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };
const STEPS = ["plan", "fetch", "score", "present"];
const JOINED = "Its words are those of the message before it: a short reply is ranked together with what it answers.";
const HIT_CONTROLS = ".hit-head a, .hit-text";
const WHERE_HINT = '{"gte": ["attrs.seats", 10]}';

/** `open(hit)` shows its source. The answer's `know(kinds, sources)` names what filters offer. */
export function searchCard({ route, open }) {
  const inputs = controls(route);
  const results = el("div", { class: "card-body results" }, hint(route));
  const form = el("form", { class: "search", role: "search", "aria-label": "Search events" },
    el("div", { class: "search-row" },
      el("label", { class: "unseen", for: "search-text" }, "Search for"), inputs.text,
      el("button", { type: "submit", class: "primary" }, "Search")),
    el("div", { class: "filters" },
      field("In", inputs.scope), field("Mode", inputs.mode), field("Kind", inputs.kind), field("Source", inputs.source),
      field("Since", inputs.since), field("Until", inputs.until)),
    el("details", { class: "more" }, el("summary", {}, "More filters"),
      field("where, as JSON of the filter language", inputs.where),
      el("div", { class: "row checks" }, field("Hits", inputs.limit),
        el("label", { class: "check" }, inputs.eventual, "eventual: a round trip less, may miss the last second"),
        el("label", { class: "check" }, inputs.explain, "explain the plan"))),
    inputs.kinds, inputs.sources);
  const card = el("section", { class: "card", "aria-labelledby": "search-title" },
    el("header", { class: "card-head" }, el("div", {}, el("h2", { id: "search-title" }, "Search"),
      el("p", { class: "muted small" }, "Words and meaning together; filters apply before ranking"))),
    form, results);
  let stop = new AbortController();

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    stop.abort();
    stop = new AbortController();
    fill(results, waiting("Searching"));
    try {
      const asked = request(route, inputs);
      const { body, ms } = await api.search(route.tenant, asked, stop.signal);
      fill(results, cost(body, ms), hits(body, asked.entities ? route : { ...route, entity: null }, open), plan(body.explain));
    } catch (error) {
      if (error.name !== "AbortError") fill(results, problem(error));
    }
  });

  return {
    node: card,
    input: inputs.text,
    dispose: () => stop.abort(),
    know(kinds, sources) {
      fill(inputs.kinds, kinds.map((name) => el("option", { value: name })));
      fill(inputs.sources, sources.map((name) => el("option", { value: name })));
    },
  };
}

function controls(route) {
  const scopes = route.entity ? [["entity", route.entity], ["tenant", "whole tenant"]] : [["tenant", "whole tenant"]];
  const free = (list) => el("input", { type: "text", list, placeholder: "any", autocomplete: "off", spellcheck: "false", maxlength: 256 });
  return {
    text: el("input", { type: "search", id: "search-text", placeholder: "price too high, export fails, champion left …", autocomplete: "off", "aria-keyshortcuts": "s" }),
    scope: select(scopes, scopes[0][0]),
    mode: select([["hybrid", "hybrid"], ["text", "text"], ["vector", "vector"]], "hybrid"),
    kind: free("kinds"),
    source: free("sources"),
    kinds: el("datalist", { id: "kinds" }),
    sources: el("datalist", { id: "sources" }),
    since: el("input", { type: "date" }),
    until: el("input", { type: "date" }),
    limit: select([["5", "5"], ["10", "10"], ["25", "25"], ["100", "100"]], "10"),
    where: el("textarea", { rows: 2, spellcheck: "false", placeholder: WHERE_HINT }),
    eventual: el("input", { type: "checkbox" }),
    explain: el("input", { type: "checkbox" }),
  };
}

/** The request's body. Throws a problem for what cannot be sent. */
function request(route, inputs) {
  const text = inputs.text.value.trim();
  if (!text) throw new api.Problem({ status: 0, code: "query_invalid", title: "Nothing to search for", detail: "Type some words first; filters narrow them down." });
  const parts = [];
  if (inputs.kind.value.trim()) parts.push({ eq: ["kind", inputs.kind.value.trim()] });
  if (inputs.source.value.trim()) parts.push({ eq: ["source", inputs.source.value.trim()] });
  if (inputs.where.value.trim()) parts.push(parsed(inputs.where.value));
  return {
    text,
    mode: inputs.mode.value,
    limit: Number(inputs.limit.value),
    include: ["snippet", "text", "attrs"],
    consistency: inputs.eventual.checked ? "eventual" : "strong",
    explain: inputs.explain.checked,
    ...(inputs.scope.value === "entity" && { entities: [route.entity] }),
    ...(parts.length && { where: parts.length === 1 ? parts[0] : { and: parts } }),
    ...(inputs.since.value && { since: `${inputs.since.value}T00:00:00Z` }),
    ...(inputs.until.value && { until: new Date(Date.parse(`${inputs.until.value}T00:00:00Z`) + 86_400_000).toISOString() }),
  };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new api.Problem({ status: 0, code: "where_invalid", title: "The filter is not JSON", detail: `${error.message}. Write it like ${WHERE_HINT}.` });
  }
}

function hint(route) {
  return el("p", { class: "muted" }, route.entity ? "Answers come from this customer alone, or from all of them: choose in “In”." : "Answers come from every customer of the tenant.");
}

function cost({ stats, hits, partial, missing_days: missing, snapshot }, ms) {
  return el("div", { class: "cost" },
    el("div", { class: "row badges", role: "status" },
      badge("plain", count(hits.length, "hit")),
      badge(CACHE_TONES[stats.cache], `cache ${stats.cache}`, "The coldest place that was touched: memory, disk, or the object store (cold)"),
      badge("plain", count(stats.round_trips, "round trip"), "Requests to the store that waited for one another"),
      badge("plain", `${number(stats.ms.total)} ms`, `In the service; ${number(ms)} ms from this browser and back`),
      badge(stats.exact ? "good" : "mild", stats.exact ? "exact" : "approximate", "Whether every row of the scope was scored")),
    el("dl", { class: "figures" },
      figure("Rows scored", number(stats.rows_scored)), figure("Shards", number(stats.shards)), figure("GETs", number(stats.gets)),
      figure("Read", bytes(stats.bytes_read)), figure("Unbuilt events", number(stats.tail_events)),
      STEPS.filter((name) => name in stats.ms).map((name) => figure(name, `${number(stats.ms[name])} ms`)),
      figure("Snapshot", snapshot)),
    partial && el("div", { class: "problem", role: "alert" }, el("strong", {}, "Partial answer"),
      el("p", {}, `The deadline passed before ${count(missing.length, "period")} answered: ${missing.join(", ")}. Ask again, or for a shorter window.`)));
}

const figure = (name, held) => el("div", {}, el("dt", {}, name), el("dd", { class: "number" }, held));

function hits({ hits: all }, route, open) {
  if (!all.length) return empty("No hit", el("p", {}, "Nothing within these filters matches. Try fewer filters, other words, or the whole tenant."));
  const most = { text: top(all, "text"), vector: top(all, "vector") };
  return listed(el("ol", { class: "hits" }, all.map((hit, n) => el("li", { class: "hit" },
    el("div", { class: "hit-main" },
      el("div", { class: "hit-head" },
        el("span", { class: "rank number" }, n + 1),
        el("span", { class: "kind" }, label(hit.kind)),
        hit.entity !== route.entity && el("a", { href: format({ tenant: route.tenant, entity: hit.entity }) }, hit.entity),
        el("span", { class: "muted small number" }, `${hit.source} · ${minute(hit.ts)}`)),
      button(marked(hit.snippet || excerpt(hit.text, 200) || "No text"), () => open(hit), { class: "hit-text" }),
      hit.ranks.text !== null && hit.snippet && !hit.snippet.includes("<b>") && el("p", { class: "muted small" }, JOINED)),
    el("dl", { class: "scores" },
      leg("Text", hit.scores.text, hit.ranks.text, most.text), leg("Vector", hit.scores.vector, hit.ranks.vector, most.vector),
      el("div", { class: "fused" }, el("dt", {}, "Fused"), el("dd", { class: "number" }, score(hit.score))))))), HIT_CONTROLS, among, ".hit-text");
}

/** Up and down from hit to hit; left and right to a hit's entity, where it names one, and back. */
function among(key, index, all) {
  if (key === "ArrowLeft" || key === "ArrowRight") return linear(key, index, all);
  const texts = all.filter((node) => node.matches(".hit-text"));
  const next = linear(key, texts.findIndex((node) => all[index].closest(".hit").contains(node)), texts);
  return next === null ? null : all.indexOf(texts[next]);
}

const top = (all, name) => Math.max(...all.map((hit) => hit.scores[name] ?? 0), 1e-9);

function leg(name, held, rank, most) {
  return el("div", {},
    el("dt", {}, name), el("dd", { class: "number" }, score(held), rank !== null && el("span", { class: "muted" }, ` #${number(rank)}`)),
    el("span", { class: `bar ${name.toLowerCase()}`, "aria-hidden": "true", vars: { share: Math.max(0, held ?? 0) / most } }));
}

/** A snippet: text of the event, escaped, with matches in <b>. Its parts become text and marks, never markup. */
export function marked(snippet) {
  return snippet.split(/<b>(.*?)<\/b>/s).map((part, n) => {
    const text = part.replace(/&(?:amp|lt|gt|quot|#x27);/g, (name) => UNESCAPED[name]);
    return n % 2 ? el("mark", {}, text) : text;
  });
}

function costs(name, held) {
  return el("tr", {}, el("th", { scope: "row" }, name), [number(held.round_trips), number(held.gets), bytes(held.bytes)].map((shown) => el("td", { class: "right number" }, shown)));
}

/** What was going to be read, beside what was. */
function plan(explain) {
  if (!explain) return null;
  const { expected, measured, reads, pruned, path, scope, entities } = explain;
  const within = scope === "tenant" ? "the whole tenant" : count(entities, "entity", "entities");
  return el("section", { class: "plan", "aria-label": "The plan, and what it came to" },
    el("p", {}, `${path === "exact" ? "Every row is scored" : "Indexes propose rows, which are scored exactly"}, of ${within}: ${count(reads.length, "shard")} read, ${number(pruned)} passed over.`),
    el("div", { class: "table" }, el("table", {},
      el("thead", {}, el("tr", {}, ["", "Round trips", "GETs", "Read"].map((name) => el("th", { scope: "col", class: name && "right" }, name)))),
      el("tbody", {}, costs("Expected, about, without the tail", expected), costs("Measured", measured)))),
    el("details", { class: "more" }, el("summary", {}, "The whole plan"), el("pre", { class: "json" }, JSON.stringify(explain, null, 2))));
}
