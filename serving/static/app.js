// The page: what the link says is what is shown. Every change of place goes through the link.

import * as api from "./api.js";
import { contextCard } from "./context.js";
import { button, byId, el, fill } from "./dom.js";
import { count, minute, number } from "./format.js";
import * as keep from "./keep.js";
import { badge, empty, problem, waiting } from "./notice.js";
import { entitiesCard, overviewCard } from "./overview.js";
import { combobox } from "./picker.js";
import { format, parse } from "./route.js";
import { searchCard } from "./search.js";
import { sourcePanel } from "./source.js";
import { timelineCard } from "./timeline.js";

const view = byId("view");
const source = sourcePanel(byId("source"), { closed: () => quietly({ event: null }) });
let here = null; // the route that is shown
let parts = []; // what is shown of it, to be disposed of
let search = null;
let reading = new AbortController();

const go = (changes) => { location.hash = format({ ...here, ...changes }); };

function choose(changes) {
  byId("main").focus({ preventScroll: true }); // so that keys are the page's again
  go(changes);
}

/** The same place under another link: nothing is shown again. */
function quietly(changes) {
  here = { ...here, ...changes };
  history.replaceState(null, "", format(here));
}

// --- choosing ------------------------------------------------------------------------------------

let listed = null; // tenants, as of when their box was opened

const tenantBox = combobox({
  label: "Tenant", placeholder: "acme",
  choose: (tenant) => choose({ tenant, entity: null, spec: null, as_of: null, event: null }),
  async load(text, signal) {
    const recent = keep.tenants.list();
    if (!text) listed = null; // what is typed narrows a list that was fetched when the box was opened
    const { names: known, more } = (listed ??= await api.tenants(signal).catch(() => null)) ?? { names: [], more: false };
    const named = [...new Set([...recent.filter((name) => known.includes(name) || !known.length), ...known])];
    return named.filter((name) => name.startsWith(text)).map((value) => ({ value, group: recent.includes(value) ? "Recent" : more ? `The first ${number(known.length)}; type any other` : "All" }));
  },
});

const entityBox = combobox({
  label: "Entity", placeholder: "Type a prefix", shortcut: "/",
  choose: (entity) => choose({ entity, event: null }),
  async load(text, signal) {
    if (!here?.tenant) return [];
    const { body } = await api.entities(here.tenant, { prefix: text, limit: 20 }, signal);
    const recent = text ? [] : keep.entities.list(here.tenant).map((value) => ({ value, group: "Recent" }));
    const found = body.entities.map((one) => ({ value: one.entity, note: `${count(one.events, "event")} · ${minute(one.last_ts).slice(0, 10)}`, group: "By name" }));
    return [...recent, ...found];
  },
});
byId("pick").append(tenantBox.node, entityBox.node);

// --- showing -------------------------------------------------------------------------------------

async function show() {
  const next = parse(location.hash, location.search);
  if (location.search) history.replaceState(null, "", location.pathname + format(next));
  const before = here;
  here = next;
  tenantBox.show(next.tenant);
  entityBox.show(next.entity);
  entityBox.input.disabled = !next.tenant;
  document.title = [next.entity, next.tenant, "Explorer · Context Plane"].filter(Boolean).join(" · ");
  const moved = !before || ["tenant", "entity", "spec", "as_of"].some((name) => before[name] !== next[name]);
  if (moved) await place();
  if (here === next && next.event) cite(next, [next.event], next.event.id);
  else if (here === next) source.rest();
}

async function place() {
  for (const part of parts) part.dispose?.();
  parts = [];
  search = null;
  source.rest();
  reading.abort();
  reading = new AbortController();
  const route = here;
  fill(view, waiting("Loading"));
  try {
    if (!route.tenant) await start(reading.signal);
    else await tenant(route, (await api.snapshot(route.tenant, reading.signal)).body);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) askKey(error);
    if (error.code === "tenant_not_found") keep.tenants.remove(route.tenant);
    fill(view, problem(error, error.status === 401 && button("Enter a key", () => askKey(error), { class: "primary" }), button("Try again", place, { class: "quiet" })));
  }
}

async function start(signal) {
  const { names, more } = await api.tenants(signal);
  if (names.length === 1) return location.replace(format({ tenant: names[0] }));
  fill(view, el("div", { class: "start" }, el("h1", {}, "Choose a tenant"),
    names.length
      ? el("ul", { class: "names" }, names.map((name) => el("li", {}, el("a", { href: format({ tenant: name }) }, name))))
      : empty("No tenant yet", el("p", {}, "Run ", el("code", {}, "make demo"), " for invented customers, write events, or create one with ", el("code", {}, "PUT /v1/tenants/{tenant}"), ".")),
    more && el("p", { class: "muted" }, `The first ${number(names.length)} are listed: type the name of any other above.`)));
}

async function tenant(route, info) {
  keep.tenants.add(route.tenant);
  if (route.entity) entity(route, info);
  else overview(route, info);
}

function overview(route, info) {
  search = searchCard({ route, open: (hit) => cite({ ...route, entity: hit.entity }, [ofEvent(hit)], hit.id) });
  const listed = entitiesCard(route.tenant);
  parts = [search, listed];
  fill(view, title(route.tenant, "Tenant"), overviewCard(info), search.node, listed.node);
}

function entity(route, info) {
  keep.entities.add(route.tenant, route.entity);
  const openEvent = (event) => cite({ ...route, entity: event.entity }, [ofEvent(event)], event.id);
  search = searchCard({ route, open: openEvent });
  const timeline = timelineCard({ route, info, open: openEvent, known: (kinds, sources) => search?.know(kinds, sources) });
  const context = contextCard({
    route, info, go, loaded: (bundle) => timeline.cite(bundle),
    open: (cited, said, where) => cite(route, cited, said, where),
  });
  parts = [search, timeline, context];
  const waits = info.pending_events > 0 && badge("mild", `${count(info.pending_events, "event")} of the tenant ${info.pending_events === 1 ? "waits" : "wait"} to be built`);
  fill(view, title(route.entity, el("a", { href: format({ tenant: route.tenant }) }, route.tenant), waits), context.node, timeline.node, search.node);
}

function title(name, above, ...more) {
  return el("div", { class: "title" }, el("p", { class: "eyebrow" }, above), el("h1", {}, name), more);
}

// --- sources -------------------------------------------------------------------------------------

const ofEvent = (event) => ({ day: event.ts.slice(0, 10), id: event.id, event });

/** Show where something comes from. One event of the entity shown is part of the link. */
function cite(route, cited, said, where = {}) {
  const linked = cited.length === 1 && route.entity === here.entity;
  quietly({ event: linked ? { day: cited[0].day, id: cited[0].id } : null });
  source.show({ tenant: route.tenant, entity: route.entity, cited, title: said, ...where });
}

// --- the key -------------------------------------------------------------------------------------

const dialog = byId("key");
const keyInput = byId("key-input");

function askKey(error) {
  byId("access").textContent = error || !keep.key.get() ? "API key" : "API key set";
  byId("key-forget").hidden = !keep.key.get();
  byId("key-why").textContent = error?.message ? `The service says: ${error.message}.` : "A key with the scope read opens its tenant.";
  keyInput.value = "";
  if (!dialog.open) dialog.showModal();
  keyInput.focus();
}

function useKey(value) {
  if (value) keep.key.set(value);
  else keep.key.forget();
  keyInput.value = "";
  dialog.close();
  byId("access").textContent = value ? "API key set" : "API key";
  place();
}

byId("access").textContent = keep.key.get() ? "API key set" : "API key";
byId("access").addEventListener("click", () => askKey(null));
byId("key-cancel").addEventListener("click", () => dialog.close());
byId("key-forget").addEventListener("click", () => useKey(null));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (keyInput.value.trim()) useKey(keyInput.value.trim());
});

// --- the keyboard --------------------------------------------------------------------------------

byId("skip").addEventListener("click", () => byId("main").focus());
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
  if (event.key === "Escape" && source.open) return source.close();
  if (event.target.closest("input, textarea, select")) return;
  const target = { "/": here?.tenant ? entityBox.input : tenantBox.input, s: search?.input }[event.key];
  if (!target) return;
  event.preventDefault();
  target.focus();
});

window.addEventListener("hashchange", show);
show();
