// The page /reset-password: asks for a link, and where that link leads.

import { ask } from "./api.js";
import { arrive } from "./arrival.js";
import { fill, h, one } from "./dom.js";
import { begin, onSend } from "./form.js";
import { token } from "./token.js";
import { word } from "./words.js";

await begin(() => {
  one("ask").hidden = Boolean(token);
  one("choose").hidden = !token;
  onSend(one("ask"), async ({ email }) => {
    await ask("POST", "/api/auth/password-reset", { email: email.trim() });
    fill(one("content"), h("p", { class: "lead", role: "status" }, word("script.reset_mailed", { email })));
  });
  onSend(one("choose"), async ({ password }) => {
    await arrive(await ask("POST", "/api/auth/password-reset/confirm", { token, password }));
  });
});
