// Sources: the events behind a fact, a point or a hit, each with the stored line it stands on.
//
// A built bundle tells by its digest where each of its citations is stored, and when it happened: the event is one read at
// that moment. Of links and of bundles made on demand only the day is known, so the day is looked through. What is not
// found is told apart: replaced since, not there, or not looked for to the end.

import * as api from "./api.js";
import { button, copier, current, el, fill } from "./dom.js";
import { count, cut, label, minute, value } from "./format.js";
import { badge, empty, problem, waiting } from "./notice.js";
import { format } from "./route.js";

/** The panel beside the page. `closed()`: the reader closed it. */
export function sourcePanel(aside, { closed }) {
  let stop = new AbortController();
  let came = null;

  function rest() {
    stop.abort();
    current(null);
    document.body.classList.remove("sourced");
    fill(aside, empty("No event chosen", el("p", {}, "Choose a fact, a point of the timeline or a hit to see the event it comes from, and the stored line.")));
  }

  function close() {
    const back = came;
    rest();
    closed();
    if (back?.isConnected) back.focus();
  }

  /**
   * `cited`: [{day, id, n?, digest?, chars?, event?}]; an event that is given is not asked for. `lines()`: promise of where
   * the bundle's citations are stored, the nth that of `n`; null: nobody knows. `snapshot`: the cut to read at; null: the newest.
   */
  function show({ tenant, entity, cited, title, snapshot = null, lines = null }) {
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    if (!aside.contains(document.activeElement)) {
      came = document.activeElement;
      current(came.closest(".fact, .event-row"));
    }
    document.body.classList.add("sourced");
    const search = { tenant, entity, snapshot, lines, signal, days: daysOf(cited) };
    fill(aside,
      el("header", { class: "source-head" },
        el("div", {}, el("p", { class: "eyebrow" }, cited.length === 1 ? "Source" : `${cited.length} sources`), el("h2", {}, title)),
        button("Close", close, { class: "quiet small", "aria-keyshortcuts": "Escape" })),
      el("div", { class: "sources" }, cited.map((one) => slot(search, (again) => source(search, one, again)))));
    aside.focus({ preventScroll: true });
  }

  aside.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  rest();
  return { show, close, rest, get open() { return document.body.classList.contains("sourced"); } };
}

/** A place for one source. `work(again)`: promise of what it holds; `again(work)` looks elsewhere, in the same place. */
function slot({ signal }, work) {
  const node = el("div", { class: "slot" });
  async function run(next) {
    fill(node, waiting("Looking the event up"));
    try {
      const held = await next(run);
      if (!signal.aborted) fill(node, held);
    } catch (error) {
      if (error.name !== "AbortError") fill(node, problem(error, button("Try again", () => run(next), { class: "quiet small" })));
    }
  }
  run(work);
  return node;
}

async function source(search, one, again) {
  if (one.event) return card(search.tenant, one, one.event);
  if (!search.lines || !one.n) return ofDay(search, one, again);
  const line = (await search.lines())[one.n - 1];
  if (!line.segment) return replaced(search, one, null, again);
  const { found, read, cursor } = await api.seek(search.tenant, search.entity, api.momentOf(line.ts), [one.id], search.snapshot, search.signal);
  const event = found.get(one.id);
  if (event) return card(search.tenant, one, event);
  return cursor ? unread(search, one, read, { ...api.momentOf(line.ts), cursor }, again) : replaced(search, one, line, again);
}

/** Days of the cited events: a day is looked through once, for all that are cited of it. */
function daysOf(cited) {
  const days = new Map();
  for (const { day, id } of cited) days.set(day, { ids: [...(days.get(day)?.ids ?? []), id], sought: null });
  return days;
}

async function ofDay(search, one, again) {
  const day = search.days.get(one.day);
  day.sought ??= api.seek(search.tenant, search.entity, api.dayOf(one.day), day.ids, search.snapshot, search.signal);
  const { found, read, cursor } = await day.sought.catch((error) => { day.sought = null; throw error; });
  const event = found.get(one.id);
  if (event) return card(search.tenant, one, event);
  return cursor ? unread(search, one, read, { ...api.dayOf(one.day), cursor }, again) : absent(search, one);
}

/** The window was not read to its end. */
function unread(search, one, read, window, again) {
  async function further(next) {
    const { found, read: more, cursor } = await api.seek(search.tenant, search.entity, window, [one.id], search.snapshot, search.signal);
    const event = found.get(one.id);
    if (event) return card(search.tenant, one, event);
    return cursor ? unread(search, one, read + more, { ...window, cursor }, next) : absent(search, one);
  }
  return empty("Not found yet", el("p", {}, `${one.id} is not among the newest ${count(read, "event")} that were looked through; there are older ones.`),
    el("div", { class: "row" }, button("Look further", () => again(further), { class: "quiet small" })));
}

/** The whole window was read. */
function absent({ snapshot }, one) {
  const cutting = snapshot ? ` at snapshot ${snapshot}` : "";
  return empty("No such event", el("p", {}, `${one.day} has no event ${one.id}${cutting}: it was deleted or erased, or was never written.`));
}

/** What the bundle cites is not what is there at its snapshot. `line`: where it is stored still; null: nowhere. */
function replaced(search, one, line, again) {
  const now = { ...search, snapshot: null, days: daysOf([one]) };
  const said = line
    ? `A write that waits to be built changed or deleted it; ${line.segment} line ${line.line} holds what the context cites until then.`
    : `At snapshot ${search.snapshot} no event ${one.id} of ${one.day} has the cited content: it was written again, deleted or erased, and the cut has no line of it.`;
  return empty("Replaced since the context was built", el("p", {}, `${said} A build of the context's day renews the context.`),
    el("div", { class: "row" }, button("Look for it as it is now", () => again((next) => ofDay(now, one, next)), { class: "quiet small" })));
}

function card(tenant, one, event) {
  const { citation } = event;
  const unbuilt = citation.segment.includes("/log/");
  const changed = one.digest && one.digest !== citation.digest;
  const link = format({ tenant, entity: event.entity, event: { day: event.ts.slice(0, 10), id: event.id } });
  return el("article", { class: "event" },
    el("div", { class: "row badges" },
      badge("plain", label(event.kind), "kind"), badge("plain", event.source, "source"),
      unbuilt && badge("mild", "not built yet", "Read from the log: acknowledged, and found before any build"),
      changed && badge("mild", "changed since", "The event was written again after the context was built")),
    el("p", { class: "muted small" }, el("time", { datetime: event.ts }, `${minute(event.ts)} UTC`)),
    event.text ? el("p", { class: "event-text" }, marked(event.text, one.chars ?? citation.chars)) : el("p", { class: "muted" }, "No text: it counts by its attributes."),
    attributes(event.attrs),
    el("dl", { class: "where" },
      entry("Entity", el("a", { href: format({ tenant, entity: event.entity }) }, event.entity)),
      entry("Event", event.id),
      event.thread && entry("Thread", event.thread),
      entry(unbuilt ? "Log object" : "Segment", citation.segment),
      entry("Line", String(citation.line)),
      entry("Digest", citation.digest)),
    el("div", { class: "row" },
      copier("Copy citation", `${citation.segment} line ${citation.line}`),
      copier("Copy link", () => new URL(link, location.href).href)));
}

function marked(text, chars) {
  if (!chars) return text;
  const [before, inside, after] = cut(text, chars);
  return before || after ? [before, el("mark", {}, inside), after] : text;
}

function attributes(attrs) {
  const all = Object.entries(attrs ?? {});
  return all.length > 0 && el("dl", { class: "attrs" }, all.map(([name, held]) => entry(label(name), value(held))));
}

const entry = (name, held) => [el("dt", {}, name), el("dd", {}, held)];
