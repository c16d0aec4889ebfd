// The page /auth, where an app sends somebody to ask for a key of its own (OAuth's PKCE).

import { call } from "./api.js";
import { fill, h, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { onSend } from "./form.js";
import { copyButton } from "./parts.js";
import { word } from "./words.js";

const NAMES = ["callback_url", "code_challenge", "code_challenge_method", "key_label"];

await inside(async () => {
  const sent = new URLSearchParams(location.search);
  const given = Object.fromEntries(NAMES.filter((name) => sent.get(name)).map((name) => [name, sent.get(name)]));
  const asked = await call("GET", `/api/auth/app?${new URLSearchParams(given)}`);
  const form = one("authorize");
  const where = asked.host === null ? "script.app_asks_here" : "script.app_asks";
  one("asked").textContent = word(where, { app: asked.key_label, host: asked.host });
  form.elements.limit.value = asked.limit_usd_suggested;
  form.elements.expires.value = asked.expires_at_suggested.slice(0, 10);
  form.hidden = false;
  onSend(form, async ({ limit, expires }) => {
    const wanted = { ...given, limit: limit.trim(), expires_at: `${expires}T00:00:00Z` };
    const { data } = await call("POST", "/api/auth/keys/code", wanted, { once: crypto.randomUUID() });
    if (data.redirect_url) location.assign(data.redirect_url);
    else showCode(data.code);
  });
});

function showCode(code) {
  fill(one("content"),
    h("p", {}, word("script.app_code")),
    h("p", { class: "secret" }, h("code", {}, code)),
    h("p", {}, copyButton(code)));
}
