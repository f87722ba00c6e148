// The search field: a combobox with a list of the titles found, as the ARIA Authoring Practices describe it.

import { byId, delayed, make } from "./dom.js";

const PAUSE = 150; // milliseconds after the last key until the search starts

/**
 * Let the user search and pick items.
 *
 * `find(query, signal)` returns a promise of items {id, title, users}. `onPick(item)` is called for a picked item,
 * `onBack()` for Backspace in the empty field, `onError(error)` for a failed search.
 */
export function searching({ find, onPick, onBack, onError }) {
  const field = byId("search"), list = byId("found"), nothing = byId("nothing");
  let found = [], active = -1, asking = new AbortController();

  const ask = delayed(async (query) => {
    asking = new AbortController();
    const { signal } = asking;
    try {
      const items = await find(query, signal);
      if (!signal.aborted) show(items);
    } catch (error) {
      if (!signal.aborted) onError(error);
    }
  }, PAUSE);

  function show(items) {
    found = items;
    list.replaceChildren(...items.map(option));
    list.hidden = items.length === 0;
    field.setAttribute("aria-expanded", String(items.length > 0));
    nothing.textContent = items.length || !field.value.trim() ? "" : "No match.";
    point(items.length ? 0 : -1);
  }

  function option(item, place) {
    const users = item.users === 1 ? "1 user" : `${item.users.toLocaleString("en")} users`;
    const title = make("span", {}, item.title ?? String(item.id));
    return make("li", { id: `found-${place}`, role: "option", "aria-selected": "false" }, title, make("small", {}, users));
  }

  function point(place) {
    active = place;
    for (const [at, element] of [...list.children].entries()) element.setAttribute("aria-selected", String(at === place));
    if (place < 0) field.removeAttribute("aria-activedescendant");
    else field.setAttribute("aria-activedescendant", `found-${place}`);
    list.children[place]?.scrollIntoView({ block: "nearest" });
  }

  function close() {
    ask.cancel();
    asking.abort();
    show([]);
    nothing.textContent = "";
  }

  function pick(place) {
    const item = found[place];
    field.value = "";
    close();
    onPick(item);
  }

  field.addEventListener("input", () => {
    asking.abort();
    ask.cancel();
    if (field.value.trim()) ask(field.value);
    else close();
  });

  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const n = found.length;
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps) {
      event.preventDefault();
      if (n) point((active + steps[event.key] + n) % n);
      else if (field.value.trim()) ask(field.value);
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      pick(active);
    } else if (event.key === "Escape") {
      if (!n) field.value = "";
      close();
    } else if (event.key === "Backspace" && field.value === "") {
      onBack();
    }
  });

  field.addEventListener("blur", close);
  list.addEventListener("mousedown", (event) => event.preventDefault()); // the field keeps the focus
  list.addEventListener("click", (event) => {
    const element = event.target.closest("[role=option]");
    if (element) pick([...list.children].indexOf(element));
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input:not([type=checkbox], [type=radio], [type=range])")) return;
    event.preventDefault();
    field.focus();
  });
}
