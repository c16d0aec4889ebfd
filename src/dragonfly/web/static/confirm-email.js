// The page /confirm-email, where the link to another address leads. A button, because programs open links too.

import { ask } from "./api.js";
import { address, fill, h, one } from "./dom.js";
import { begin, onSend } from "./form.js";
import { stored } from "./session.js";
import { token } from "./token.js";
import { word } from "./words.js";

await begin(() => {
  onSend(one("confirm"), async () => {
    await ask("POST", "/api/auth/email/confirm", { token });
    const [path, label] = stored() ? ["/dashboard/settings", word("script.to_settings")] : ["/sign-in", word("script.sign_in")];
    fill(
      one("content"),
      h("p", { class: "lead", role: "status" }, word("script.email_changed")),
      h("p", { class: "actions" }, h("a", { class: "button", href: address(path) }, label)),
    );
  });
});
