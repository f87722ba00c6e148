// The page: pick items, and see at once what each model recommends and why.

import * as address from "./address.js";
import * as api from "./api.js";
import { setBusy, showAnswer, showColumns, showProblem, TONES, watchColumns } from "./columns.js";
import { byId, delayed, make } from "./dom.js";
import { searching } from "./search.js";

const COUNTS = [10, 20, 50];
const FOUND = 8; // titles in the search list
const AGAIN = 3000; // milliseconds until the first request is repeated

const state = address.read();
const titles = new Map(); // by id, as text
const questions = new Map(); // by model: stops the running request
let models = [], limits = {};

const titleOf = (id) => titles.get(String(id)) ?? String(id);
const chosen = () => models.filter((model) => state.models.includes(model.name));
const say = delayed((text) => { byId("said").textContent = text; }, 700); // not for every step of the slider

/** Keep the titles in answers: an address has only ids. */
function learn(items) {
  const unknown = state.items.some((id) => !titles.has(id));
  for (const { id, title } of items) if (title) titles.set(String(id), title);
  if (unknown) showPicked();
}

function complain(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) {
    byId("problem").textContent = api.hasToken() ? "Wrong token." : "";
    byId("gate").hidden = false;
    byId("token").focus();
  } else {
    byId("problem").textContent = error.status === undefined ? `Error in this page: ${error.message}` : error.message;
  }
}

async function open() {
  let answer;
  try {
    answer = await api.served();
  } catch (error) {
    complain(error);
    if (error.status !== 401) setTimeout(open, AGAIN);
    return;
  }
  ({ models, limits } = answer);
  models.forEach((model, tone) => Object.assign(model, { tone }));
  showServed();
  byId("gate").hidden = true;
  byId("problem").textContent = "";
  document.body.classList.add("ready");
  adopt(state);
}

/** Take over the state from an address, as far as this server has it. */
function adopt(asked) {
  const names = models.map((model) => model.name);
  const known = asked.models.filter((name) => names.includes(name));
  Object.assign(state, asked, { models: known.length ? known : names.slice(0, 1), k: Math.min(asked.k, limits.k) });
  showControls();
  refresh();
}

function showServed() {
  const data = [...new Set(models.map((model) => model.data).filter(Boolean))];
  const most = Math.max(...models.map((model) => model.n_items));
  byId("served").textContent = [...data, `${most.toLocaleString("en")} items`].join(" · ");
}

function showControls() {
  const option = (kind, name, value, checked, tone) =>
    make("label", { class: tone === undefined ? undefined : `tone-${tone % TONES}` },
      make("input", { type: kind, name, value, checked }), make("span", {}, value));
  const boxes = models.map(({ name, tone }) => option("checkbox", "model", name, state.models.includes(name), tone));
  const counts = [...new Set([...COUNTS, state.k])].filter((k) => k <= limits.k).sort((a, b) => a - b);
  const radios = counts.map((k) => option("radio", "k", String(k), k === state.k));
  const refill = (fieldset, inputs) => fieldset.replaceChildren(fieldset.firstElementChild, make("div", {}, ...inputs));
  refill(byId("models"), boxes);
  refill(byId("counts"), radios);
  byId("models").hidden = models.length < 2;
  byId("variety").value = String(state.variety);
}

function showPicked() {
  const list = byId("picked");
  const focused = [...list.children].indexOf(document.activeElement?.closest("#picked li"));
  const chip = (id) => {
    const attributes = { type: "button", "aria-label": `remove ${titleOf(id)}`, title: "remove" };
    return make("li", {}, make("button", attributes, make("span", {}, titleOf(id))));
  };
  list.replaceChildren(...state.items.map(chip));
  if (focused < 0) return;
  const next = list.children[Math.min(focused, list.children.length - 1)];
  (next ? next.firstElementChild : byId("search")).focus();
}

/** Show the state, and ask each shown model. */
function refresh() {
  address.write(state);
  showPicked();
  showColumns(chosen());
  byId("variety").disabled = !chosen().some((model) => model.diversifies);
  for (const [name, asking] of questions) {
    asking.abort();
    questions.delete(name);
  }
  const asked = chosen().map(ask);
  Promise.all(asked).then((answers) => {
    if (!answers.every(Boolean)) return;
    byId("problem").textContent = "";
    const names = chosen().map((model) => model.name).join(", ");
    say(`${answers[0].items.length} recommendations from ${names}${answers[0].fallback ? ": the most popular items" : ""}`);
  });
}

/** Ask one model; return its answer, or null if there is none or it is no longer needed. */
async function ask(model) {
  const asking = new AbortController();
  questions.set(model.name, asking);
  setBusy(model.name, true);
  const explain = state.items.length > 0 && state.items.length <= limits.explained_items;
  const question = { items: state.items, k: state.k, diversify: model.diversifies ? state.variety : 0, explain, model: model.name };
  try {
    const answer = await api.recommend(question, asking.signal);
    if (asking.signal.aborted) return null;
    learn([...answer.items, ...(answer.history ?? [])]);
    showAnswer(model, answer, titleOf);
    return answer;
  } catch (error) {
    if (asking.signal.aborted) return null;
    if (error.status) showProblem(model.name, error.message); // an old list would look like the answer
    complain(error);
    return null;
  } finally {
    if (!asking.signal.aborted) setBusy(model.name, false);
  }
}

function change(changes) {
  Object.assign(state, changes);
  refresh();
}

function add({ id, title }) {
  learn([{ id, title }]);
  if (!state.items.includes(String(id))) change({ items: [...state.items, String(id)] });
}

async function find(query, signal) {
  const items = await api.search(query, FOUND, chosen()[0].name, signal);
  learn(items);
  return items.filter((item) => !state.items.includes(String(item.id)));
}

function listen() {
  searching({ find, onPick: add, onBack: () => change({ items: state.items.slice(0, -1) }), onError: complain });
  watchColumns(add);
  byId("picked").addEventListener("click", (event) => {
    const at = [...byId("picked").children].indexOf(event.target.closest("li"));
    if (at >= 0) change({ items: state.items.toSpliced(at, 1) });
  });
  byId("models").addEventListener("change", (event) => {
    const names = [...byId("models").querySelectorAll(":checked")].map((box) => box.value);
    if (names.length) return change({ models: names });
    event.target.checked = true;
    say("At least one model must stay selected.");
  });
  byId("counts").addEventListener("change", (event) => change({ k: Number(event.target.value) }));
  const slid = delayed(() => change({ variety: Number(byId("variety").value) }), 60);
  byId("variety").addEventListener("input", slid);
  byId("gate").addEventListener("submit", (event) => {
    event.preventDefault();
    api.keepToken(byId("token").value);
    byId("token").value = "";
    byId("problem").textContent = "";
    open();
  });
  addEventListener("popstate", () => adopt(address.read()));
}

listen();
open();
