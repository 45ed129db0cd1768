// Sources: the events behind a fact, a point or a hit, each with the stored line it stands on.

import * as api from "./api.js";
import { button, copier, current, el, fill } from "./dom.js";
import { cut, label, minute, value } from "./format.js";
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

  /** `cited`: [{day, id, digest?, chars?, event?}]; an event that is given is not asked for. */
  async function show({ tenant, entity, cited, title, snapshot }) {
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    if (!aside.contains(document.activeElement)) {
      came = document.activeElement;
      current(came.closest(".fact, .event-row"));
    }
    document.body.classList.add("sourced");
    const body = el("div", { class: "sources" }, waiting("Looking the event up"));
    fill(aside,
      el("header", { class: "source-head" },
        el("div", {}, el("p", { class: "eyebrow" }, cited.length === 1 ? "Source" : `${cited.length} sources`), el("h2", {}, title)),
        button("Close", close, { class: "quiet small", "aria-keyshortcuts": "Escape" })),
      body);
    aside.focus({ preventScroll: true });
    const shown = await Promise.all(cited.map(async (one) => {
      try {
        const found = one.event ?? (await api.event(tenant, entity, one, snapshot, signal));
        return found ? card(tenant, one, found) : absent(one);
      } catch (error) {
        return error.name === "AbortError" ? null : problem(error);
      }
    }));
    if (!signal.aborted) fill(body, shown);
  }

  aside.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
  });
  rest();
  return { show, close, rest, get open() { return document.body.classList.contains("sourced"); } };
}

function absent(one) {
  return empty("This event is gone", el("p", {}, `${one.id} of ${one.day} was deleted or erased after the context was built. A build of the day renews the context.`));
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
