// A tenant at a glance: what is built, what waits and for how long, day by day; and its customers.

import * as api from "./api.js";
import { button, el, fill, rove, roving } from "./dom.js";
import { DAY_MS, addDays, count, duration, minute, monthOf, number, shortDay, startOf } from "./format.js";
import { badge, empty, problem, waiting } from "./notice.js";
import { format } from "./route.js";

const WEEKS_MAX = 53;
const LATE_S = 900; // the check `fresh` of the Dagster UI warns from here on
const PAGE = 25;

export function overviewCard(info) {
  const waits = info.pending_log_objects > 0;
  const late = info.index_lag_s > LATE_S;
  const bundles = Object.entries(info.bundles);
  return el("section", { class: "card", "aria-labelledby": "coverage-title" },
    el("header", { class: "card-head" },
      el("div", {}, el("h2", { id: "coverage-title" }, "Freshness and coverage"), el("p", { class: "muted small" }, "The newest cut of the tenant")),
      badge(late ? "bad" : waits ? "mild" : "good", late ? "late" : waits ? "writes wait" : "up to date")),
    el("dl", { class: "tiles" },
      tile("Newest event", info.max_event_time?.slice(0, 10) ?? "none", info.max_event_time ? `${minute(info.max_event_time).slice(11)} UTC` : "write the first one"),
      tile("Waiting to be built", number(info.pending_events), `events in ${count(info.pending_log_objects, "batch", "batches")}`),
      tile("Oldest waits for", waits ? duration(info.index_lag_s) : "–", waits ? "found by reads meanwhile" : "nothing waits"),
      tile("Snapshot", info.snapshot, "{manifest}.{log}"),
      tile("Model", info.model ? info.model.split("@")[0] : "none", info.model ? `@${info.model.split("@")[1] ?? ""}` : "nothing is embedded yet")),
    el("div", { class: "card-body" },
      calendar(info),
      bundles.length > 0 && el("p", { class: "muted small" }, "Contexts: ", bundles.map(([spec, day], n) => [n > 0 && ", ", el("b", {}, spec), ` to ${day}`]))));
}

function tile(name, held, note) {
  return el("div", {}, el("dt", {}, name), el("dd", { class: "number" }, held), el("dd", { class: "muted small" }, note));
}

/** A strip of weeks, a cell a day: built, waiting, or empty. Its cells say so to whoever cannot see them. */
function calendar(info) {
  const built = new Set(info.days), waits = new Set(info.dirty_days);
  const all = [...info.days, ...info.dirty_days].sort();
  if (!all.length) return empty("Nothing is built and nothing waits", el("p", {}, "Write events, then build their days: ", el("code", {}, "context-plane ingest"), ", ", el("code", {}, "context-plane build"), "."));
  const last = all.at(-1);
  const earliest = addDays(last, -(WEEKS_MAX * 7 - 1));
  const first = all[0] < earliest ? earliest : all[0];
  const monday = addDays(first, -((new Date(startOf(first)).getUTCDay() + 6) % 7));
  const days = Array.from({ length: Math.round((startOf(last) - startOf(monday)) / DAY_MS) + 1 }, (_, n) => addDays(monday, n));
  const readout = el("p", { class: "readout number", "aria-live": "polite" });
  const stateOf = (day) => (day < first ? "outside" : waits.has(day) ? (built.has(day) ? "renew" : "waits") : built.has(day) ? "built" : "gap");
  const say = (day) => { readout.textContent = `${day}: ${MEANINGS[stateOf(day)]}`; };
  const cells = days.map((day) => el("span", {
    class: `day ${stateOf(day)}`, role: "img", "aria-label": `${day}: ${MEANINGS[stateOf(day)]}`,
    on: { mouseenter: () => say(day), focus: () => say(day) },
  }));
  const strip = el("div", { class: "strip", role: "group", "aria-label": "Days of the tenant; arrows move" }, cells);
  rove(cells, cells.at(-1));
  roving(strip, () => cells, (key, index) => {
    const next = { ArrowUp: index - 1, ArrowDown: index + 1, ArrowLeft: index - 7, ArrowRight: index + 7, Home: 0, End: cells.length - 1 }[key];
    return next === undefined || next < 0 || next >= cells.length ? null : next;
  });
  const names = days.map((day, n) => (n % 7 === 0 && (n === 0 || monthOf(day) !== monthOf(days[n - 7])) ? el("span", { vars: { week: n / 7 + 1 } }, monthOf(day)) : null));
  const weekdays = el("div", { class: "weekdays", "aria-hidden": "true" }, ["Mon", "", "Wed", "", "Fri", "", "Sun"].map((name) => el("span", {}, name)));
  const whole = el("div", { class: "calendar" }, el("div", { class: "month-names", "aria-hidden": "true" }, names), strip);
  readout.textContent = `${within(info.days, "built")}${all[0] < first ? "; the newest year is shown" : ""}`;
  queueMicrotask(() => { whole.scrollLeft = whole.scrollWidth; });
  const legend = Object.entries({ built: "built", renew: "built, newer writes wait", waits: "waits", gap: "no events" });
  return [el("div", { class: "weeks" }, weekdays, whole), el("div", { class: "row spread" }, readout,
    el("ul", { class: "legend" }, legend.map(([state, text]) => el("li", {}, el("span", { class: `day ${state}`, "aria-hidden": "true" }), text))))];
}

/** How many days, and from which to which. */
function within(days, what) {
  const sorted = [...days].sort();
  const ends = sorted.length > 1 ? `, ${shortDay(sorted[0])} to ${shortDay(sorted.at(-1))}` : sorted.length ? `, ${shortDay(sorted[0])}` : "";
  return `${count(sorted.length, "day")} ${what}${ends}`;
}

const MEANINGS = {
  built: "built", renew: "built; newer writes wait for the next build", waits: "waits to be built; reads find its events",
  gap: "no events", outside: "before the first event",
};

/** The customers of the tenant, a page at a time. */
export function entitiesCard(tenant) {
  const rows = el("tbody");
  const foot = el("div", { class: "row spread" });
  const table = el("div", { class: "table" }, el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Entity"), el("th", { scope: "col", class: "right" }, "Events"), el("th", { scope: "col", class: "right" }, "Last event, UTC"))), rows));
  const body = el("div", { class: "card-body" }, waiting("Listing entities"));
  const stop = new AbortController();
  let listed = 0;

  async function load(cursor) {
    try {
      const page = (await api.entities(tenant, { limit: PAGE, cursor }, stop.signal)).body;
      listed += page.entities.length;
      if (!listed) return fill(body, empty("No entity yet", el("p", {}, "Write events with ", el("code", {}, "POST …/events"), " or ", el("code", {}, "context-plane ingest"), ".")));
      rows.append(...page.entities.map((one) => el("tr", {},
        el("td", {}, el("a", { href: format({ tenant, entity: one.entity }) }, one.entity)),
        el("td", { class: "right number" }, number(one.events)), el("td", { class: "right number muted" }, minute(one.last_ts)))));
      fill(foot, el("span", { class: "muted small" }, `${count(listed, "entity", "entities")} listed`),
        page.cursor && button("List more", () => load(page.cursor), { class: "quiet small" }));
      if (!cursor) fill(body, table, foot);
    } catch (error) {
      if (error.name !== "AbortError") fill(cursor ? foot : body, problem(error, button("Try again", () => load(cursor), { class: "quiet small" })));
    }
  }

  load(null);
  return {
    node: el("section", { class: "card", "aria-labelledby": "entities-title" },
      el("header", { class: "card-head" }, el("div", {}, el("h2", { id: "entities-title" }, "Entities"), el("p", { class: "muted small" }, "By name; type a prefix above to find one"))), body),
    dispose: () => stop.abort(),
  };
}

