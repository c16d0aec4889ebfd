// The page /set-up: an operator's first password, by the link that `dragonfly operator add` printed.

import { ask } from "./api.js";
import { arrive } from "./arrival.js";
import { one } from "./dom.js";
import { begin, onSend } from "./form.js";
import { token } from "./token.js";

await begin(() => {
  onSend(one("choose"), async ({ password }) => arrive(await ask("POST", "/api/auth/set-up", { token, password })));
});
