// What follows a sign-in, however it was made: the second factor when there is one, then the page that was wanted.

import { ask, call } from "./api.js";
import { address, fill, h, language, one } from "./dom.js";
import { onSend } from "./form.js";
import { keep, stored } from "./session.js";
import { word } from "./words.js";

const HOME = "/dashboard";
const ALLOWED = /^\/(dashboard|auth)(\/|\?|#|$)/;

/** Goes on with the answer to a sign-in. */
export async function arrive(answer) {
  if (answer.status === "second_factor_needed") {
    askForCode(answer.ticket);
    return;
  }
  const before = stored();
  keep(answer);
  if (before?.id && before.id !== answer.session_id) await end(before.id);
  location.replace(wanted());
}

/** The session that this browser had before is of no use to anybody any more. */
async function end(sessionId) {
  try {
    await call("DELETE", `/api/me/sessions/${sessionId}`);
  } catch {
    // it had ended, or was somebody else's
  }
}

/** Where somebody wanted to go before signing in: only ever a page of ours. */
export function wanted() {
  const next = new URLSearchParams(location.search).get("next") ?? HOME;
  if (!ALLOWED.test(next)) return address(HOME);
  const found = new URL(next, location.origin);
  return address(found.pathname, { ...Object.fromEntries(found.searchParams), lang: language }) + found.hash;
}

function askForCode(ticket) {
  const field = h("input", {
    id: "code", name: "code", required: true, autocomplete: "one-time-code", maxlength: 40, spellcheck: "false",
    "aria-describedby": "code-hint",
  });
  const form = h(
    "form",
    { class: "card", id: "second-factor" },
    h("div", { class: "field" },
      h("label", { for: "code" }, word("script.code")),
      field,
      h("p", { class: "hint", id: "code-hint" }, word("script.code_hint"))),
    h("p", { class: "problem", role: "alert" }),
    h("p", { class: "actions" }, h("button", { type: "submit" }, word("script.code_send"))),
  );
  onSend(form, async ({ code }) => {
    await arrive(await ask("POST", "/api/auth/second-factor", { ticket, code: code.replaceAll(" ", "") }));
  });
  document.querySelector("h1").textContent = word("script.code_title");
  fill(one("content"), form);
  field.focus();
}
