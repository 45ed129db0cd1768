// The HTTP API, asked as any client asks it. Nothing is kept by the browser, and errors are problems (RFC 9457).

import * as keep from "./keep.js";

const BASE = new URL("v1/tenants", document.baseURI).href;
const PAGE = 1000; // the most that a page may hold
const SEEK_PAGES_MAX = 10; // of events, before the reader is asked whether to go on
const TENANT_PAGES_MAX = 10; // more names than anybody reads; whoever has more types theirs

export class Problem extends Error {
  constructor({ status, title, detail, code, request_id: requestId = null, errors = [] }) {
    super(detail);
    Object.assign(this, { status, title, detail, code, requestId, errors });
  }
}

/** {body, headers, ms}. `body` of the request, given: POST. Answers that are JSON are parsed, `text` keeps them as sent. */
async function ask(path, { query = {}, body, signal, text = false } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const url = `${BASE}${path}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
  const headers = {};
  const key = keep.key.get();
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const asked = { method: body === undefined ? "GET" : "POST", headers, signal, cache: "no-store", redirect: "error" };
  const started = performance.now();
  let answer, raw;
  try {
    answer = await fetch(url, body === undefined ? asked : { ...asked, body: JSON.stringify(body) });
    raw = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      status: 0, code: "no_answer", title: "The service did not answer",
      detail: "Is it running? Start it with context-plane serve, then load this page again.",
    });
  }
  if (!answer.ok) throw problemOf(answer, raw);
  return { body: text ? raw : JSON.parse(raw), headers: answer.headers, ms: performance.now() - started };
}

function problemOf(answer, raw) {
  try {
    return new Problem(JSON.parse(raw));
  } catch {
    const detail = "The answer is not of this API: look at what stands between this page and the service.";
    return new Problem({ status: answer.status, code: "not_a_problem", title: `HTTP ${answer.status}`, detail });
  }
}

const of = (tenant, entity, what) => {
  if (entity === "." || entity === "..") {
    throw new Problem({
      status: 0, code: "entity_not_addressable", title: "A browser cannot name this entity in a path",
      detail: "It resolves . and .. before it sends them. Use search with this entity, or context-plane context.",
    });
  }
  return `/${encodeURIComponent(tenant)}/entities/${encodeURIComponent(entity)}/${what}`;
};

/** {names, more}: those that the key opens, ascending; `more`: others follow that were not asked for. */
export async function tenants(signal) {
  const names = [];
  let cursor = null;
  for (let page = 0; page < TENANT_PAGES_MAX; page++) {
    const { body } = await ask("", { query: { limit: PAGE, cursor }, signal });
    names.push(...body.tenants.map((one) => one.tenant));
    cursor = body.cursor;
    if (!cursor) break;
  }
  return { names, more: cursor !== null };
}

export const snapshot = (tenant, signal) => ask(`/${encodeURIComponent(tenant)}/snapshot`, { signal });
export const entities = (tenant, query, signal) => ask(`/${encodeURIComponent(tenant)}/entities`, { query, signal });
export const search = (tenant, body, signal) => ask(`/${encodeURIComponent(tenant)}/search`, { body, signal });

/** The bundle as sent, text. `query`: spec, as_of, format, snapshot. */
export const context = async (tenant, entity, query, signal) =>
  ask(of(tenant, entity, "context"), { query, signal, text: true });
export const onDemand = async (tenant, entity, body, signal) =>
  ask(of(tenant, entity, "context"), { body, signal, text: true });
export const timeline = async (tenant, entity, query, signal) => ask(of(tenant, entity, "timeline"), { query, signal });

/** Where each citation of a built bundle is stored. `query`: entity, spec, as_of, snapshot. */
export const why = async (tenant, digest, query, signal) =>
  (await ask(`/${encodeURIComponent(tenant)}/why/${digest}`, { query, signal })).body;

/** The narrowest window that holds a moment: times are given to the microsecond, and a browser's clock ends at the millisecond. */
export const momentOf = (ts) => ({ since: ts, until: new Date(Date.parse(ts) + 1).toISOString() });
export const dayOf = (day) => ({ since: `${day}T00:00:00Z`, until: new Date(Date.parse(`${day}T00:00:00Z`) + 86_400_000).toISOString() });

/**
 * Events of a window by their ids, newest first: {found, read, cursor}. It ends when all `ids` are found, at the window's
 * end, or after some pages: `cursor` goes on from there, and is null where the whole window was read.
 */
export async function seek(tenant, entity, { since, until, cursor = null }, ids, snapshotId, signal) {
  const left = new Set(ids);
  const found = new Map();
  let read = 0;
  for (let page = 0; page < SEEK_PAGES_MAX; page++) {
    const { body } = await timeline(tenant, entity, { since, until, limit: PAGE, cursor, snapshot: snapshotId }, signal);
    for (const one of body.events) if (left.delete(one.id)) found.set(one.id, one);
    read += body.events.length;
    cursor = body.cursor;
    if (!cursor || !left.size) break;
  }
  return { found, read, cursor };
}
