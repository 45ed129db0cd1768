// A combobox (ARIA 1.2, list autocomplete): type a prefix, choose by arrows and Enter, or by a click.

import { el, fill } from "./dom.js";

const WAIT_MS = 120;
let boxes = 0;

/**
 * `load(text, signal)`: promise of [{value, note, group}], shown in that order. `choose(value)` also takes what was
 * typed and not listed. The answer has `node`, `input` and `show(value)`.
 */
export function combobox({ label, placeholder, load, choose, shortcut }) {
  const id = `box-${++boxes}`;
  const list = el("ul", { role: "listbox", id: `${id}-list`, "aria-label": label, class: "options", hidden: true });
  const input = el("input", {
    id, type: "text", role: "combobox", placeholder, autocomplete: "off", autocapitalize: "off", spellcheck: "false",
    "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list", "aria-keyshortcuts": shortcut,
  });
  const status = el("span", { class: "unseen", role: "status" });
  const node = el("div", { class: "box" }, el("label", { for: id }, label), input, list, status);
  let options = [], listed = null, active = -1, held = "", timer = 0, asked = new AbortController();

  function close() {
    clearTimeout(timer);
    asked.abort();
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function take(value) {
    held = value;
    input.value = value;
    close();
    choose(value);
  }

  function point(index) {
    active = index;
    options.forEach(({ node: option }, n) => option.setAttribute("aria-selected", String(n === index)));
    if (index < 0) return input.removeAttribute("aria-activedescendant");
    input.setAttribute("aria-activedescendant", options[index].node.id);
    options[index].node.scrollIntoView({ block: "nearest" });
  }

  function shown(found, text, said) {
    let group = null;
    listed = text;
    const rows = [];
    options = found.map((option, n) => {
      if (option.group && option.group !== group) rows.push(el("li", { role: "presentation", class: "group" }, option.group));
      group = option.group;
      const on = { mousedown: (event) => { event.preventDefault(); take(option.value); } };
      const row = el("li", { role: "option", id: `${id}-${n}`, "aria-selected": "false", on },
        el("span", { class: "name" }, option.value), option.note && el("span", { class: "note" }, option.note));
      rows.push(row);
      return { ...option, node: row };
    });
    fill(list, rows.length ? rows : el("li", { role: "presentation", class: "group" }, said));
    status.textContent = found.length ? `${found.length} listed` : said;
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    point(text && found.length ? 0 : -1); // what is typed chooses its first match
  }

  const typed = () => (input.value === held ? "" : input.value.trim());

  async function look() {
    asked.abort();
    asked = new AbortController();
    const { signal } = asked;
    const text = typed();
    try {
      const found = await load(text, signal);
      if (!signal.aborted) shown(found, text, text ? `Nothing begins with “${text}”` : "Nothing here yet");
    } catch (error) {
      if (error.name !== "AbortError") shown([], text, error.message);
    }
  }

  input.addEventListener("focus", () => { input.select(); look(); });
  input.addEventListener("click", () => list.hidden && look());
  input.addEventListener("blur", () => { close(); input.value = held; });
  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, WAIT_MS); });
  input.addEventListener("keydown", (event) => {
    const last = options.length - 1;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) return look();
      const step = event.key === "ArrowDown" ? 1 : -1;
      const next = active + step;
      if (last >= 0) point(next < 0 ? last : next > last ? 0 : next);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (!list.hidden && active >= 0 && listed === typed()) take(options[active].value);
      else if (input.value.trim()) take(input.value.trim());
    } else if (event.key === "Escape" && !list.hidden) {
      event.stopPropagation();
      input.value = held;
      close();
    }
  });

  return {
    node,
    input,
    show(value) {
      held = value ?? "";
      input.value = held;
    },
  };
}
