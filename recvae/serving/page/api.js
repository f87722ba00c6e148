// Requests to the server, and its errors.

const TOKEN = "recvae-token";

/** An error of the server; `status` is 0 if it could not be reached. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

async function ask(address, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token && { authorization: `Bearer ${token}` }) };
  let response, text;
  try {
    response = await fetch(address, { ...options, headers });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("Can't reach the server; retrying on your next change.", 0);
  }
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    answer = {}; // a proxy answered, not the server
  }
  if (!response.ok) throw new Refusal(answer.error ?? `The server answered ${response.status}.`, response.status);
  return answer;
}

export function served() {
  return ask("model");
}

export async function search(query, limit, model, signal) {
  const words = new URLSearchParams({ query, limit, model });
  return (await ask(`items?${words}`, { signal })).items;
}

/** Return the answer and its time in milliseconds. */
export async function recommend(question, signal) {
  const start = performance.now();
  const body = JSON.stringify(question);
  const headers = { "content-type": "application/json" };
  const answer = await ask("recommend", { method: "POST", headers, body, signal });
  return { ...answer, milliseconds: performance.now() - start };
}
