// The events of an entity over time, and as a list; what the context cites is ringed.

import * as api from "./api.js";
import { chart, series } from "./chart.js";
import { button, el, field, fill, listed, select } from "./dom.js";
import { DAY_MS, addDays, count, dayOf, excerpt, label, minute, startOf } from "./format.js";
import { badge, empty, problem, waiting } from "./notice.js";

const PAGE = 1000;
const ROWS = 12;
const WINDOWS = [["30", "30 days"], ["90", "90 days"], ["365", "a year"], ["all", "everything"]];

/** `open(event)` shows its source; `known(kinds, sources)`: what was seen, for filters. */
export function timelineCard({ route, info, open, known }) {
  const body = el("div", { class: "card-body" }, waiting("Reading the timeline"));
  const span = select(WINDOWS, "90");
  const by = select([["kind", "Kinds"], ["source", "Sources"]], "kind");
  const card = el("section", { class: "card", "aria-labelledby": "timeline-title" },
    el("header", { class: "card-head" },
      el("div", {}, el("h2", { id: "timeline-title" }, "Timeline"), el("p", { class: "muted small" }, "Events of this entity; what the context cites is ringed")),
      el("div", { class: "row controls" }, field("Window", span), field("Lanes", by))),
    body);
  let stop = new AbortController();
  let events = [], cursor = null, cited = new Set(), asOf = null, drawn = null, shown = ROWS;
  const hidden = new Set();

  const end = () => addDays(info?.max_event_time?.slice(0, 10) ?? dayOf(Date.now()), 1);
  const begin = () => (span.value === "all" ? null : addDays(end(), -Number(span.value)));

  async function load(more = false) {
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    if (!more) fill(body, waiting("Reading the timeline"));
    try {
      const since = begin();
      const query = { limit: PAGE, since: since && `${since}T00:00:00Z`, cursor: more ? cursor : null };
      const answer = (await api.timeline(route.tenant, route.entity, query, signal)).body;
      events = more ? [...events, ...answer.events] : answer.events;
      cursor = answer.cursor;
      known(distinct((event) => event.kind), distinct((event) => event.source));
      draw();
    } catch (error) {
      if (error.name !== "AbortError") fill(body, problem(error, button("Try again", () => load(more), { class: "quiet small" })));
    }
  }

  const distinct = (of) => [...new Set(events.map(of))].sort();

  function draw() {
    drawn?.dispose();
    if (!events.length) return fill(body, empty("No event in this window", el("p", {}, "Choose a longer one.")));
    const lanes = (event) => event[by.value];
    const other = by.value === "kind" ? "source" : "kind";
    const colours = (event) => event[other];
    const colourNames = distinct(colours);
    const left = events.filter((event) => !hidden.has(colours(event)));
    const first = begin() && span.value !== "all" ? startOf(begin()) : Date.parse(events.at(-1).ts) - DAY_MS;
    drawn = chart({
      events: left, lanes, colours, colourNames, cited, asOf, open,
      since: Math.max(first, Date.parse(events.at(-1).ts) - 2 * DAY_MS), until: Math.max(startOf(end()), Date.parse(events[0].ts)) + DAY_MS / 4,
    });
    fill(body, toggles(colourNames, other), drawn.node, list(left));
  }

  function toggles(names, what) {
    if (names.length < 2) return null;
    return el("div", { class: "row chips", role: "group", "aria-label": `Show by ${what}` }, names.map((name, n) =>
      button([el("span", { class: `swatch ${series(n)}`, "aria-hidden": "true" }), label(name)], () => {
        if (!hidden.delete(name)) hidden.add(name);
        draw();
      }, { class: "chip", "aria-pressed": String(!hidden.has(name)) })));
  }

  function list(left) {
    const rows = left.slice(0, shown).map((event) => el("li", {}, button([
      el("time", { class: "number muted", datetime: event.ts }, minute(event.ts)),
      el("span", { class: "kind" }, label(event.kind)),
      el("span", { class: "line" }, event.text ? excerpt(event.text, 160) : el("span", { class: "muted" }, summary(event.attrs))),
      cited.has(`${event.ts.slice(0, 10)}/${event.id}`) && badge("accent", "cited"),
    ], () => open(event), { class: "event-row" })));
    return [
      listed(el("ol", { class: "rows", "aria-label": "Events, newest first" }, rows), ".event-row"),
      el("div", { class: "row spread" },
        el("span", { class: "muted small" }, `${count(left.length, "event")}${cursor ? " so far" : ""}, ${Math.min(shown, left.length)} listed`),
        el("div", { class: "row" },
          shown < left.length && button("List more", () => { shown += 4 * ROWS; draw(); }, { class: "quiet small" }),
          cursor && button("Load older", () => load(true), { class: "quiet small" }))),
    ];
  }

  span.addEventListener("change", () => { hidden.clear(); shown = ROWS; load(); });
  by.addEventListener("change", () => { hidden.clear(); draw(); });
  load();
  return {
    node: card,
    dispose() { stop.abort(); drawn?.dispose(); },
    /** Ring what a bundle cites; null: none. */
    cite(bundle) {
      cited = new Set((bundle?.citations ?? []).map(({ day, id }) => `${day}/${id}`));
      asOf = bundle?.as_of ?? null;
      if (events.length) draw();
    },
  };
}

function summary(attrs) {
  const said = Object.entries(attrs ?? {}).map(([name, held]) => `${label(name)} ${Array.isArray(held) ? held.join(", ") : held}`);
  return said.length ? excerpt(said.join(" · "), 120) : "No text";
}
