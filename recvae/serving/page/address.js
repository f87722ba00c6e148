// The address holds the state of the page, so that a link can be shared and a reload loses nothing.

const DEFAULTS = { k: 10, variety: 0 };

/** Return the state in the address. Ids and names may contain commas, so that they are decoded one by one. */
export function read() {
  const parts = new Map(location.search.slice(1).split("&").map((part) => part.split("=", 2)));
  const list = (name) => (parts.get(name) ?? "").split(",").filter(Boolean).map(decoded);
  return {
    items: [...new Set(list("items"))],
    models: list("models"),
    k: Math.max(Math.trunc(Number(parts.get("k"))), 1) || DEFAULTS.k,
    variety: Math.min(Math.max(Number(parts.get("variety")) || DEFAULTS.variety, 0), 1),
  };
}

/** Write the state to the address; if items changed, the browser's "back" undoes it. */
export function write({ items, models, k, variety }) {
  const parts = [];
  if (items.length) parts.push(`items=${items.map(encodeURIComponent)}`);
  if (models.length) parts.push(`models=${models.map(encodeURIComponent)}`);
  if (k !== DEFAULTS.k) parts.push(`k=${k}`);
  if (variety !== DEFAULTS.variety) parts.push(`variety=${variety}`);
  const address = parts.length ? `?${parts.join("&")}` : location.pathname;
  const changed = read().items.join() !== items.join();
  if (changed) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a lone %, typed by hand
  }
}
