// Who is signed in, in this browser.
//
// localStorage holds one entry: the pair of tokens. A token is worth nothing without the browser's key, which lies in
// IndexedDB, cannot be exported, and signs a proof for every request (DPoP, RFC 9449). Tabs share both; a lock sees to
// it that only one of them fetches the next pair, because a refresh token works once.

const ENTRY = "dragonfly.session";
const LOCK = "dragonfly.session";
const EARLY_MS = 30_000; // a token that ends sooner than this is replaced before it is used
const DATABASE = "dragonfly";
const STORE = "keys";
const KEY = "browser";
const ALGORITHM = { name: "ECDSA", namedCurve: "P-256" };
const SIGNATURE = { name: "ECDSA", hash: "SHA-256" };

let clockOffsetMs = 0; // how far this device's clock is behind the gateway's
let keyPromise = null;

/** Scripts cannot make keys on pages that came without encryption; loopback counts as safe. */
export const isPossible = globalThis.isSecureContext && "locks" in navigator && "indexedDB" in globalThis;

/** The stored session, or null. */
export function stored() {
  try {
    const session = JSON.parse(localStorage.getItem(ENTRY));
    return session && typeof session.access === "string" && typeof session.refresh === "string" ? session : null;
  } catch {
    return null;
  }
}

/** Keeps the pair of an answer to a sign-in or a refresh. */
export function keep(answer) {
  const session = {
    id: answer.session_id,
    access: answer.access_token,
    refresh: answer.refresh_token,
    endsAt: Date.now() + answer.expires_in * 1000,
  };
  localStorage.setItem(ENTRY, JSON.stringify(session));
  return session;
}

/** Signed out, as far as this browser is concerned. */
export function forget() {
  localStorage.removeItem(ENTRY);
}

/** Calls `then` when another tab signs out. */
export function onSignedOutElsewhere(then) {
  globalThis.addEventListener("storage", (event) => {
    if (event.storageArea === localStorage && stored() === null) then();
  });
}

/** Learns the gateway's time from an answer, for devices whose clock is wrong. True when that changed much. */
export function learnTime(answer) {
  const told = Date.parse(answer.headers.get("Date") ?? "");
  if (Number.isNaN(told)) return false;
  const offsetMs = told - Date.now();
  const isNews = Math.abs(offsetMs - clockOffsetMs) > 5_000;
  if (isNews) clockOffsetMs = offsetMs;
  return isNews;
}

/**
 * An access token that is good for a while; null when nobody is signed in.
 *
 * `refused` is a token that did not work: another one is fetched unless some tab has one already. `fetchNext` gets a
 * refresh token and gives the answer, or null when the session is over.
 */
export async function access(fetchNext, refused = null) {
  const isGood = (session) => session.access !== refused && session.endsAt - Date.now() > EARLY_MS;
  const session = stored();
  if (session === null || isGood(session)) return session?.access ?? null;
  return navigator.locks.request(LOCK, async () => {
    const current = stored(); // another tab may have been faster
    if (current === null || isGood(current)) return current?.access ?? null;
    const answer = await fetchNext(current.refresh);
    if (answer !== null) return keep(answer).access;
    forget();
    return null;
  });
}

/** The proof that this browser makes a request: a signed JWT for exactly this method, path and token. */
export async function proof(method, path, token = null) {
  keyPromise ??= browserKey();
  const key = await keyPromise;
  const { kty, crv, x, y } = await crypto.subtle.exportKey("jwk", key.publicKey);
  const claims = {
    jti: crypto.randomUUID(),
    htm: method,
    htu: location.origin + path.split("?")[0],
    iat: Math.floor((Date.now() + clockOffsetMs) / 1000),
  };
  if (token !== null) claims.ath = encoded(await crypto.subtle.digest("SHA-256", bytesOf(token)));
  const head = { typ: "dpop+jwt", alg: "ES256", jwk: { kty, crv, x, y } };
  const signed = `${encoded(bytesOf(JSON.stringify(head)))}.${encoded(bytesOf(JSON.stringify(claims)))}`;
  return `${signed}.${encoded(await crypto.subtle.sign(SIGNATURE, key.privateKey, bytesOf(signed)))}`;
}

async function browserKey() {
  const database = await opened();
  try {
    const found = await asked(database.transaction(STORE).objectStore(STORE).get(KEY));
    if (found) return found;
    const made = await crypto.subtle.generateKey(ALGORITHM, false, ["sign"]);
    const store = database.transaction(STORE, "readwrite").objectStore(STORE);
    const faster = await asked(store.get(KEY)); // another tab's; there must be one key only
    if (faster) return faster;
    await asked(store.put(made, KEY));
    return made;
  } finally {
    database.close();
  }
}

function opened() {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
  return asked(opening);
}

function asked(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function bytesOf(text) {
  return new TextEncoder().encode(text);
}

function encoded(bytes) {
  const text = String.fromCharCode(...new Uint8Array(bytes));
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
