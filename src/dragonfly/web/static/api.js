// Speaks to the account API: JSON both ways, a proof with every request, and one kind of error.

import { address } from "./dom.js";
import { access, forget, learnTime, proof } from "./session.js";

/** An answer that is an error, or no answer at all (`code` "offline"). */
export class Refusal extends Error {
  constructor(status, error = {}, retryAfterS = null) {
    super(error.message ?? "");
    this.status = status;
    this.code = error.code ?? "unknown";
    this.requestId = error.request_id ?? "";
    this.retryAfterS = retryAfterS;
  }
}

/** A request of somebody who need not be signed in. */
export async function ask(method, path, body) {
  let answer = await sent(method, path, body, null);
  if (answer.status === 401 && learnTime(answer)) answer = await sent(method, path, body, null);
  return read(answer);
}

/** A request of who is signed in; leads to the sign-in page when nobody is. `once` makes a repeat do nothing twice. */
export async function call(method, path, body, { once = null } = {}) {
  return read(await authorized(method, path, body, once));
}

/** As `call`, for what is not JSON. */
export async function download(path) {
  const answer = await authorized("GET", path, undefined, null);
  if (!answer.ok) await read(answer);
  return answer.blob();
}

/** The sign-in page, which leads back here. */
export function signInAddress(more = {}) {
  return address("/sign-in", { next: location.pathname + location.search + location.hash, ...more });
}

async function authorized(method, path, body, once) {
  let token = await access(fetchNext);
  let answer = token === null ? null : await sent(method, path, body, token, once);
  if (answer?.status === 401) {
    learnTime(answer);
    token = await access(fetchNext, token);
    answer = token === null ? null : await sent(method, path, body, token, once);
  }
  if (answer !== null && answer.status !== 401) return answer;
  forget();
  location.replace(signInAddress());
  return new Promise(() => {}); // the page is being left
}

async function fetchNext(refreshToken) {
  const path = "/api/auth/refresh";
  try {
    return await ask("POST", path, { refresh_token: refreshToken });
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) return null;
    throw error;
  }
}

async function sent(method, path, body, token, once = null) {
  const headers = { DPoP: await proof(method, path, token) };
  if (token !== null) headers.Authorization = `DPoP ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (once !== null) headers["Idempotency-Key"] = once;
  try {
    return await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch {
    throw new Refusal(0, { code: "offline" });
  }
}

async function read(answer) {
  const retryAfterS = Number(answer.headers.get("Retry-After")) || null;
  let content = null;
  try {
    content = answer.status === 204 ? {} : await answer.json();
  } catch {
    throw new Refusal(answer.status, { code: "unreadable" });
  }
  if (!answer.ok) throw new Refusal(answer.status, content.error, retryAfterS);
  return content;
}

/** Everything that a paged list has, up to `most` entries. */
export async function all(path, most = 1_000) {
  const found = [];
  let cursor = null;
  do {
    const more = cursor === null ? "" : `${path.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(cursor)}`;
    const page = await call("GET", path + more);
    found.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor !== null && found.length < most);
  return found;
}
