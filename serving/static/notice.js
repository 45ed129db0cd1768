// What is not there, and what went wrong: each says what to do next.

import { el } from "./dom.js";

/** A problem as the API told it. `actions`: buttons that help. */
export function problem(error, ...actions) {
  if (error.status === undefined) console.error(error); // a defect of this page
  const where = [error.code, error.status ? `HTTP ${error.status}` : null, error.requestId && `request ${error.requestId}`];
  return el("div", { class: "problem", role: "alert" },
    el("strong", {}, sentence(error.title ?? "The page failed")),
    el("p", {}, sentence(error.message)),
    (error.errors ?? []).map((one) => el("p", { class: "small" }, `${one.pointer ?? one.line ?? ""} ${one.detail}`)),
    el("p", { class: "muted small mono" }, where.filter(Boolean).join(" · ")),
    actions.length > 0 && el("div", { class: "row" }, actions));
}

export function empty(title, ...children) {
  return el("div", { class: "empty" }, el("strong", {}, title), children);
}

export function waiting(label) {
  return el("div", { class: "waiting", role: "status" }, el("span", { class: "unseen" }, label),
    [1, 2, 3].map(() => el("span", { class: "bone", "aria-hidden": "true" })));
}

const sentence = (text) => (text ? text[0].toUpperCase() + text.slice(1) : "");

/** A state with a dot: good, mild, bad or plain. */
export function badge(tone, text, title = null) {
  return el("span", { class: `badge ${tone}`, title }, text);
}

export const CACHE_TONES = { memory: "good", disk: "mild", cold: "cold" };
export const FRESHNESS_TONES = { fresh: "good", stale: "mild", building: "mild" };
export const FRESHNESS_TITLES = {
  fresh: "Built from all that is known up to its day",
  stale: "Its sources changed since it was built; a build of its day renews it",
  building: "Writes of its look-back wait to be built",
};
