// Events over time, a lane for each kind or source: an SVG of one's own size, moved through by arrows.

import { el, rove, roving, svg } from "./dom.js";
import { DAY_MS, addDays, dayOf, excerpt, label, minute, monthOf, shortDay, startOf } from "./format.js";

const LANE = 30, TOP = 8, AXIS = 26, RIGHT = 14;
const TICKS_PX = 84; // between labels of the axis, at least
const DOT = 4.5;
const COLOURS = 6, MARKS = 3; // a full dot, a hollow one, a square

/** Classes of the nth series: a colour, and a mark of its own where the colours begin again. */
export const series = (n) => `series-${n % COLOURS} mark-${Math.floor(n / COLOURS) % MARKS}`;

/**
 * `events`: newest first. `lanes`, `colours`: functions of an event. `cited`: ids with their day of the context.
 * `open(event)`. The answer draws itself again at every width.
 */
export function chart({ events, lanes, colours, colourNames, cited, asOf, since, until, open }) {
  const tip = el("div", { class: "tip", hidden: true, "aria-hidden": "true" });
  const holder = el("div", { class: "chart" }, tip);
  const names = [...new Set(events.map(lanes))].sort();
  let drawn = null;

  function draw(width) {
    const gutter = width < 520 ? 96 : 150;
    const inner = Math.max(120, width - gutter - RIGHT);
    const height = TOP + names.length * LANE + AXIS;
    const x = (ms) => gutter + (inner * (ms - since)) / (until - since);
    const middle = new Map(names.map((name, n) => [name, TOP + n * LANE + LANE / 2]));
    const points = [...events].reverse().map((event) => point(event, x(Date.parse(event.ts)), middle.get(lanes(event))));
    const plane = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${events.length} events; arrows move, Enter opens` },
      names.map((name, n) => lane(name, n, gutter, width)),
      ticks(x, since, until, inner).map(({ ms, text }) => tick(x(ms), height, text)),
      asOf && marker(x(startOf(addDays(asOf, 1))), height, gutter, asOf),
      points.map((one) => one.node));
    rove(points.map((one) => one.node), points.at(-1)?.node);
    drawn?.remove();
    drawn = plane;
    holder.prepend(plane);
    roving(plane, () => points.map((one) => one.node), (key, index) => step(points, key, index));
  }

  function point(event, cx, cy) {
    const chosen = cited.has(`${event.ts.slice(0, 10)}/${event.id}`);
    const said = `${label(event.kind)}, ${minute(event.ts)}${chosen ? ", cited by the context" : ""}${event.text ? `: ${excerpt(event.text, 80)}` : ""}`;
    const pick = () => open(event);
    const node = svg("g", {
      class: `point ${series(colourNames.indexOf(colours(event)))}${chosen ? " cited" : ""}`, role: "button", "aria-label": said,
      on: {
        click: pick, mouseenter: () => show(event, cx, cy), focus: () => show(event, cx, cy), mouseleave: hide, blur: hide,
        keydown: (pressed) => {
          if (pressed.key !== "Enter" && pressed.key !== " ") return;
          pressed.preventDefault();
          pick();
        },
      },
    }, svg("circle", { class: "reach", cx, cy, r: 11 }), chosen && svg("circle", { class: "ring", cx, cy, r: 8 }), svg("rect", { class: "dot", x: cx - DOT, y: cy - DOT, width: 2 * DOT, height: 2 * DOT, rx: DOT }));
    return { node, cx, cy };
  }

  function show(event, cx, cy) {
    tip.replaceChildren(
      el("span", { class: "tip-head" }, label(event.kind), el("span", { class: "muted" }, ` · ${event.source} · ${minute(event.ts)}`)),
      el("span", {}, event.text ? excerpt(event.text, 140) : "No text"));
    tip.hidden = false;
    const width = holder.clientWidth;
    const left = Math.min(Math.max(cx - tip.offsetWidth / 2, 4), width - tip.offsetWidth - 4);
    const above = cy - tip.offsetHeight - 12;
    tip.style.transform = `translate(${left}px, ${above < -40 ? cy + 14 : above}px)`;
  }

  function hide() {
    tip.hidden = true;
  }

  const watched = new ResizeObserver(([entry]) => {
    const width = Math.floor(entry.contentRect.width);
    if (width > 0 && String(width) !== drawn?.getAttribute("width")) draw(width);
  });
  watched.observe(holder);
  return { node: holder, dispose: () => watched.disconnect() };
}

/** Left and right in time; up and down to the nearest point of the next lane that has one. */
function step(points, key, index) {
  const here = points[index];
  if (key === "Home") return 0;
  if (key === "End") return points.length - 1;
  if (key === "ArrowLeft") return index - 1;
  if (key === "ArrowRight") return index + 1;
  if (key !== "ArrowUp" && key !== "ArrowDown") return null;
  const beyond = points.filter(({ cy }) => (key === "ArrowUp" ? cy < here.cy : cy > here.cy));
  const far = (one) => Math.abs(one.cy - here.cy) * 1e4 + Math.abs(one.cx - here.cx);
  const nearest = beyond.reduce((best, one) => (best === null || far(one) < far(best) ? one : best), null);
  return nearest === null ? null : points.indexOf(nearest);
}

function lane(name, n, gutter, width) {
  const y = TOP + n * LANE + LANE / 2;
  const room = Math.floor(gutter / 7.2);
  const text = svg("text", { class: "lane-name", x: 0, y, dy: "0.35em" }, excerpt(label(name), room), svg("title", {}, name));
  return [svg("line", { class: "lane", x1: gutter, x2: width - RIGHT, y1: y, y2: y }), text];
}

function tick(x, height, text) {
  return [
    svg("line", { class: "tick", x1: x, x2: x, y1: TOP, y2: height - AXIS + 4 }),
    svg("text", { class: "tick-name", x, y: height - 8, "text-anchor": "middle" }, text),
  ];
}

function marker(x, height, gutter, asOf) {
  if (x < gutter) return null;
  return svg("line", { class: "as-of", x1: x, x2: x, y1: 0, y2: height - AXIS + 4 }, svg("title", {}, `The context is as of the end of ${asOf}`));
}

/** Days, weeks or months, as many as fit: [{ms, text}]. */
function ticks(x, since, until, inner) {
  const most = Math.max(1, Math.floor(inner / TICKS_PX));
  const days = Math.ceil((until - since) / DAY_MS);
  if (days > most * 28) return months(since, until, Math.ceil(days / 30 / most));
  const every = [1, 2, 7, 14, 28].find((size) => days / size <= most) ?? 28;
  const found = [];
  for (let day = addDays(dayOf(since), 1); startOf(day) < until; day = addDays(day, every)) {
    if (x(startOf(day)) - x(since) > 16 && x(until) - x(startOf(day)) > 16) found.push({ ms: startOf(day), text: shortDay(day) });
  }
  return found;
}

function months(since, until, every) {
  const found = [];
  const at = new Date(since);
  for (let n = 1; ; n += every) {
    const ms = Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + n, 1);
    if (ms >= until) return found;
    const day = dayOf(ms);
    found.push({ ms, text: day.slice(5, 7) === "01" ? day.slice(0, 4) : monthOf(day) });
  }
}
