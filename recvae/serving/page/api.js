// What the server is asked, and what it says when something is wrong.

const TOKEN = "recvae-token";

/** What the server said was wrong; `status` 0 where it could not be reached. */
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
  let response, said;
  try {
    response = await fetch(address, { ...options, headers });
    said = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer; the next change asks it again.", 0);
  }
  let answer;
  try {
    answer = JSON.parse(said);
  } catch {
    answer = {}; // something between here and the server answered
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

/** Return the answer, with the milliseconds that it took. */
export async function recommend(question, signal) {
  const start = performance.now();
  const body = JSON.stringify(question);
  const headers = { "content-type": "application/json" };
  const answer = await ask("recommend", { method: "POST", headers, body, signal });
  return { ...answer, milliseconds: performance.now() - start };
}
