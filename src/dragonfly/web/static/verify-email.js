// The page /verify-email, where the link of the first mail leads.

import { ask } from "./api.js";
import { address, h, one } from "./dom.js";
import { begin, onSend } from "./form.js";
import { stored } from "./session.js";
import { token } from "./token.js";
import { troubleOf, word } from "./words.js";

await begin(async () => {
  onSend(one("prove"), async ({ password }) => {
    await ask("POST", "/api/auth/verify", { token, password });
    showDone();
  });
  onSend(one("again"), async ({ email }) => {
    await ask("POST", "/api/auth/verification", { email: email.trim() });
    one("again").hidden = true;
    one("state").textContent = word("script.mailed_again");
  });
  if (!token) {
    showAgain(word("script.link_incomplete"));
    return;
  }
  try {
    await ask("POST", "/api/auth/verify", { token });
    showDone();
  } catch (error) {
    if (error.code === "password_needed") {
      one("state").textContent = "";
      one("prove").hidden = false;
      one("password").focus();
    } else if (error.code === "link_invalid") {
      showAgain(troubleOf(error));
    } else {
      one("state").textContent = "";
      throw error;
    }
  }
});

function showDone() {
  one("prove").hidden = true;
  one("state").textContent = word("script.verified");
  const [path, label] = stored() ? ["/dashboard", word("script.to_dashboard")] : ["/sign-in", word("script.sign_in")];
  const link = h("a", { class: "button", href: address(path) }, label);
  one("content").append(h("p", { class: "actions" }, link));
  link.focus();
}

function showAgain(text) {
  one("state").textContent = text;
  one("again").hidden = false;
}
