// One column per model: its recommendations, their scores and reasons.

import { byId, make } from "./dom.js";

export const TONES = 6; // colours in page.css
const REASONS = 2; // shown per item
const CALM = matchMedia("(prefers-reduced-motion: reduce)");

const columns = new Map(); // by model name: {element, list, head, rows by id, ids}

/** Show a column for each of these models {name, tone, ...}, in this order. */
export function showColumns(models) {
  for (const [name, column] of columns) {
    if (models.some((model) => model.name === name)) continue;
    column.element.remove();
    columns.delete(name);
  }
  for (const model of models) if (!columns.has(model.name)) columns.set(model.name, newColumn(model));
  const elements = models.map((model) => columns.get(model.name).element);
  const holder = byId("columns");
  // Moving an element loses the focus inside it: only if the order has changed.
  if (elements.some((element, at) => holder.children[at] !== element)) holder.append(...elements);
  holder.dataset.n = String(models.length);
  byId("note").textContent = noteOn(models);
  markDifferences();
}

function noteOn(models) {
  const sets = new Set(models.map((model) => model.fingerprint));
  if (sets.size > 1) return "These models were trained on different data: the same id may be a different item.";
  return models.length > 1 ? "Bars compare scores within a list, not between models." : "";
}

function newColumn(model) {
  const name = make("h2", {}, model.name);
  const facts = make("p", { class: "facts" });
  const state = make("p", { class: "state" });
  const time = make("span", { class: "time" });
  const head = make("header", {}, make("div", {}, name, time), facts, state);
  const list = make("ol");
  const attributes = { class: `column tone-${model.tone % TONES}`, "aria-label": model.name, "aria-busy": "true" };
  const element = make("article", attributes, head, list);
  return { element, list, facts, state, time, rows: new Map(), ids: null };
}

export function setBusy(name, busy) {
  columns.get(name)?.element.setAttribute("aria-busy", String(busy));
}

/** Show an answer in its model's column; existing rows move to their new place. */
export function showAnswer(model, answer, titleOf) {
  const column = columns.get(model.name);
  if (!column) return;
  column.facts.replaceChildren(...factsOf(model, answer));
  column.state.textContent = stateOf(answer, titleOf);
  column.time.textContent = `${Math.max(Math.round(answer.milliseconds), 1)} ms`;
  column.time.title = "response time";

  const before = new Map([...column.rows].map(([id, row]) => [id, row.offsetTop]));
  const focused = [...column.list.children].indexOf(document.activeElement?.closest("li"));
  const widths = widthsOf(answer.items);
  const rows = answer.items.map((item, at) => {
    const row = column.rows.get(String(item.id)) ?? newRow(item);
    fill(row, item, widths[at], answer.fallback);
    return row;
  });
  column.list.replaceChildren(...rows);
  column.ids = answer.items.map((item) => String(item.id));
  column.rows = new Map(column.ids.map((id, at) => [id, rows[at]]));
  if (focused >= 0) (rows[focused] ?? rows.at(-1))?.querySelector("button").focus({ preventScroll: true });
  markDifferences();
  if (!CALM.matches) glide(column.rows, before);
}

/** Show an error in a model's column. */
export function showProblem(name, text) {
  const column = columns.get(name);
  if (!column) return;
  column.list.replaceChildren();
  Object.assign(column, { rows: new Map(), ids: null });
  column.state.textContent = text;
  column.time.textContent = "";
  markDifferences();
}

function factsOf(model, answer) {
  const ndcg = model.version === answer.version ? model.metrics.validation?.["ndcg@100"] : undefined;
  const facts = [model.data, ndcg === undefined ? null : `ndcg@100 ${ndcg.toFixed(3)}`].filter(Boolean);
  const version = make("span", { title: `version ${answer.version}` }, answer.version.slice(0, 7));
  const elements = facts.map((fact) => make("span", {}, fact));
  if (ndcg !== undefined) elements.at(-1).title = "on validation users";
  return [...elements, version];
}

function stateOf(answer, titleOf) {
  const unknown = answer.unknown.map(titleOf);
  const names = unknown.length > 3 ? `${unknown.length} items` : unknown.join(", ");
  if (answer.fallback && unknown.length) return "None of these items is in this model; showing the most popular instead.";
  if (answer.fallback) return "The most popular items. Pick something you like.";
  return unknown.length ? `Not in this model: ${names}.` : "";
}

/** Return the bars in percent of the best score, from 0 or from the lowest score if it is negative. */
function widthsOf(items) {
  const scores = items.map((item) => item.score);
  const low = Math.min(0, ...scores), high = Math.max(...scores);
  return scores.map((score) => (high > low ? Math.max(2, (100 * (score - low)) / (high - low)) : 100));
}

function newRow(item) {
  const title = item.title ?? String(item.id);
  const button = make("button", { type: "button", class: "add", "aria-label": `add ${title}`, title: "add to your items" });
  const name = make("p", { class: "title" }, make("span", {}, title), make("em", { hidden: true }, "only here"));
  const bar = make("div", { class: "bar" }, make("i"));
  const row = make("li", {}, name, button, bar, make("p", { class: "why" }));
  row.dataset.id = item.id;
  return row;
}

function fill(row, item, width, fallback) {
  const bar = row.querySelector(".bar");
  bar.firstChild.style.setProperty("width", `${width.toFixed(1)}%`);
  bar.title = fallback ? `${item.score.toLocaleString("en")} training users` : `score ${Number(item.score.toPrecision(4))}`;
  row.querySelector(".why").replaceChildren(...whyOf(item.reasons ?? []));
}

function whyOf(reasons) {
  const positive = reasons.filter((reason) => reason.contribution > 0).sort((a, b) => b.contribution - a.contribution);
  const total = positive.reduce((sum, reason) => sum + reason.contribution, 0);
  const named = positive.slice(0, REASONS).map((reason) => {
    const share = `${Math.round((100 * reason.contribution) / total)}%`;
    const words = make("span", { class: "unseen" }, ` (${share})`);
    const tip = `${share} of the reasons`;
    return make("b", { title: tip }, reason.title ?? String(reason.id), words);
  });
  if (!named.length) return [];
  return ["because you liked ", ...named.flatMap((element, at) => (at ? [" and ", element] : [element]))];
}

/** Mark items that only one of several models recommends. */
function markDifferences() {
  const lists = [...columns.values()].map((column) => column.ids);
  const compared = lists.length > 1 && lists.every((ids) => ids !== null);
  const counts = new Map();
  if (compared) for (const id of lists.flat()) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const { rows } of columns.values()) {
    for (const [id, row] of rows) row.querySelector("em").hidden = counts.get(id) !== 1;
  }
}

function glide(rows, before) {
  // All places are read before anything moves, and only visible rows move: fifty would take too long.
  const places = [...rows].map(([id, row]) => [row, before.get(id), row.offsetTop, row.getBoundingClientRect()]);
  for (const [row, from, to, box] of places) {
    if (box.top > innerHeight || box.bottom < 0) continue;
    if (from === undefined) row.animate({ opacity: [0, 1] }, { duration: 160 });
    else if (from !== to) {
      const frames = { transform: [`translateY(${from - to}px)`, "none"] };
      row.animate(frames, { duration: 220, easing: "cubic-bezier(.2, .7, .2, 1)" });
    }
  }
}

/** Call `onAdd` for a clicked item, and highlight the item under the pointer or focus in every column. */
export function watchColumns(onAdd) {
  const holder = byId("columns");
  holder.addEventListener("click", (event) => {
    const row = event.target.closest("li");
    if (!row || (String(getSelection()) && !event.target.closest("button"))) return; // the user is selecting text
    onAdd({ id: row.dataset.id, title: row.querySelector(".title span").textContent });
  });
  const point = (event) => {
    const id = event.target.closest?.("li")?.dataset.id;
    for (const { rows } of columns.values()) {
      for (const [other, row] of rows) row.classList.toggle("same", columns.size > 1 && other === id);
    }
  };
  for (const kind of ["pointerover", "pointerleave", "focusin", "focusout"]) holder.addEventListener(kind, point);
}
