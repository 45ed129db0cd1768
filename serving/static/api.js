// The HTTP API, asked as any client asks it. Nothing is kept by the browser, and errors are problems (RFC 9457).

import * as keep from "./keep.js";

const BASE = new URL("v1/tenants", document.baseURI).href;
const DAY_PAGES_MAX = 10; // of a thousand events each, when one event of a day is looked for

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

export const tenants = (signal) => ask("", { query: { limit: 1000 }, signal });
export const snapshot = (tenant, signal) => ask(`/${encodeURIComponent(tenant)}/snapshot`, { signal });
export const entities = (tenant, query, signal) => ask(`/${encodeURIComponent(tenant)}/entities`, { query, signal });
export const search = (tenant, body, signal) => ask(`/${encodeURIComponent(tenant)}/search`, { body, signal });

/** The bundle as sent, text. `query`: spec, as_of, format, snapshot. */
export const context = async (tenant, entity, query, signal) =>
  ask(of(tenant, entity, "context"), { query, signal, text: true });
export const onDemand = async (tenant, entity, body, signal) =>
  ask(of(tenant, entity, "context"), { body, signal, text: true });
export const timeline = async (tenant, entity, query, signal) => ask(of(tenant, entity, "timeline"), { query, signal });

/** One event by day and id; null where the day does not hold it. */
export async function event(tenant, entity, { day, id }, snapshotId, signal) {
  const since = `${day}T00:00:00Z`;
  const until = new Date(Date.parse(since) + 86_400_000).toISOString();
  let cursor = null;
  for (let page = 0; page < DAY_PAGES_MAX; page++) {
    const query = { since, until, limit: 1000, cursor, snapshot: snapshotId };
    const { body } = await timeline(tenant, entity, query, signal);
    const found = body.events.find((one) => one.id === id);
    if (found) return found;
    cursor = body.cursor;
    if (!cursor) break;
  }
  return null;
}
