// The page /keep-account, where the link of the mail about a deletion leads. A button, because programs open links too.

import { ask } from "./api.js";
import { address, fill, h, one } from "./dom.js";
import { begin, onSend } from "./form.js";
import { token } from "./token.js";
import { word } from "./words.js";

await begin(() => {
  onSend(one("keep"), async () => {
    await ask("POST", "/api/data-requests/keep", { token });
    fill(
      one("content"),
      h("p", { class: "lead", role: "status" }, word("script.account_kept")),
      h("p", { class: "actions" }, h("a", { class: "button", href: address("/sign-in") }, word("script.sign_in"))),
    );
  });
});
