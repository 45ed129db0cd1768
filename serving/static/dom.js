// Elements. Text enters the page as text nodes only: nothing here, or anywhere else, parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `attributes`: null and false are left out; `on` holds listeners, `vars` custom CSS properties. */
export function el(tag, attributes = {}, ...children) {
  return dressed(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return dressed(document.createElementNS(SVG, tag), attributes, children);
}

function dressed(node, { on = {}, vars = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  for (const [name, listener] of Object.entries(on)) node.addEventListener(name, listener);
  for (const [name, value] of Object.entries(vars)) node.style.setProperty(`--${name}`, String(value));
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child instanceof Node ? child : String(child));
  }
}

/** The one control whose source is shown; null: none. */
export function current(node) {
  for (const other of document.querySelectorAll('[aria-current="true"]')) other.removeAttribute("aria-current");
  node?.setAttribute("aria-current", "true");
}

/** Replace what a node holds. */
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

export const byId = (id) => document.getElementById(id);

export function button(label, onclick, attributes = {}) {
  return el("button", { type: "button", ...attributes, on: { click: onclick } }, label);
}

/** A labelled field. `input` gets an id if it has none. */
let fields = 0;
export function field(label, input, attributes = {}) {
  input.id ||= `field-${++fields}`;
  return el("div", { class: "field", ...attributes }, el("label", { for: input.id }, label), input);
}

export function select(options, value, attributes = {}) {
  const shown = options.map(([name, label]) => el("option", { value: name, selected: name === value }, label));
  return el("select", attributes, shown);
}

/** A button that puts text on the clipboard and says so. */
export function copier(label, text) {
  const node = button(label, async () => {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(typeof text === "function" ? text() : text);
    } catch {
      said = "Not allowed here";
    }
    node.textContent = said;
    setTimeout(() => (node.textContent = label), 1200);
  }, { class: "quiet small", "aria-live": "polite" });
  return node;
}

/** Arrow keys among `nodes()`, of which one is in the tab order. `step(key, index, nodes)`: the next index, or null. */
export function roving(container, nodes, step) {
  container.addEventListener("keydown", (event) => {
    const all = nodes();
    const index = all.indexOf(document.activeElement);
    if (index < 0) return;
    const next = step(event.key, index, all);
    if (next === null || next === undefined || !all[next]) return;
    event.preventDefault();
    rove(all, all[next]);
    all[next].focus();
  });
}

/** Put one of `all` in the tab order. */
export function rove(all, chosen) {
  for (const node of all) node.setAttribute("tabindex", node === chosen ? "0" : "-1");
}

/** A list of controls as one tab stop, which follows the focus from the `first` on. `step`: as of `roving`. */
export function listed(container, selector, step = linear, first = selector) {
  const nodes = () => [...container.querySelectorAll(selector)];
  roving(container, nodes, step);
  container.addEventListener("focusin", ({ target }) => target.matches(selector) && rove(nodes(), target));
  rove(nodes(), container.querySelector(first));
  return container;
}

/** Steps of a plain row or column. */
export function linear(key, index, all) {
  const last = all.length - 1;
  const steps = { ArrowLeft: index - 1, ArrowUp: index - 1, ArrowRight: index + 1, ArrowDown: index + 1, Home: 0, End: last };
  return key in steps ? Math.min(last, Math.max(0, steps[key])) : null;
}
