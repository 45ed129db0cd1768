// How values read. Times are UTC, as the API has them; numbers are grouped.

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const SMALL = new Intl.NumberFormat("en", { minimumFractionDigits: 3, maximumFractionDigits: 3 });
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
export const DAY_MS = 86_400_000;

export const number = (value) => NUMBER.format(value);
export const score = (value) => (value === null || value === undefined ? "–" : SMALL.format(value));
export const count = (value, noun, nouns = `${noun}s`) => `${number(value)} ${value === 1 ? noun : nouns}`;
export const label = (name) => name.replaceAll("_", " ");

export function bytes(value) {
  const [unit, name] = [[1e9, "GB"], [1e6, "MB"], [1e3, "KB"], [1, "B"]].find(([size]) => value >= size) ?? [1, "B"];
  return `${NUMBER.format(Math.round((value / unit) * 10) / 10)} ${name}`;
}

/** 2026-03-04T09:15:00Z → 2026-03-04 09:15. */
export const minute = (ts) => ts.slice(0, 16).replace("T", " ");

/** 2026-03-04 → Mar 4. */
export const shortDay = (day) => `${MONTHS[Number(day.slice(5, 7)) - 1]} ${Number(day.slice(8, 10))}`;
export const monthOf = (day) => MONTHS[Number(day.slice(5, 7)) - 1];

export const dayOf = (ms) => new Date(ms).toISOString().slice(0, 10);
export const startOf = (day) => Date.parse(`${day}T00:00:00Z`);
export const addDays = (day, days) => dayOf(startOf(day) + days * DAY_MS);

/** Seconds as people say them. */
export function duration(seconds) {
  const units = [[86_400, "day"], [3_600, "hour"], [60, "minute"]];
  const [size, name] = units.find(([unit]) => seconds >= unit) ?? [1, "second"];
  return count(Math.round(seconds / size), name);
}

/** An attribute's value. */
export function value(held) {
  if (held === null) return "null";
  if (Array.isArray(held)) return held.join(", ");
  return typeof held === "number" ? number(held) : String(held);
}

/** The first `length` characters, on one line. */
export function excerpt(text, length) {
  const line = (text ?? "").replace(/\s+/g, " ").trim();
  return line.length > length ? `${line.slice(0, length).trimEnd()}…` : line;
}

/** A text cut at positions that count code points, as the API does: [before, inside, after]. */
export function cut(text, [start, stop]) {
  const points = Array.from(text);
  return [points.slice(0, start), points.slice(start, stop), points.slice(stop)].map((part) => part.join(""));
}
