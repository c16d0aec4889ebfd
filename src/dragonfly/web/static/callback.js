// The page /auth/callback/<provider>, where Google or Discord send people back to.

import { ask } from "./api.js";
import { arrive } from "./arrival.js";
import { address, h, one } from "./dom.js";
import { begin } from "./form.js";
import { word } from "./words.js";

const told = new URLSearchParams(location.search);
const provider = location.pathname.split("/").at(-1);
history.replaceState(null, "", location.pathname); // code and state are nobody else's business

await begin(async () => {
  try {
    if (!told.has("code") || !told.has("state")) {
      one("state").textContent = word("script.provider_cancelled");
    } else {
      const body = { code: told.get("code"), state: told.get("state"), ...(told.has("iss") && { iss: told.get("iss") }) };
      const answer = await ask("POST", `/api/auth/${encodeURIComponent(provider)}/finish`, body);
      if (answer.status === "connected") location.replace(address("/dashboard/settings"));
      else await arrive(answer);
      return;
    }
  } catch (error) {
    one("state").textContent = "";
    showWays();
    throw error;
  }
  showWays();
});

function showWays() {
  one("content").append(
    h("p", { class: "after" },
      h("a", { href: address("/sign-in") }, word("script.sign_in")), " · ",
      h("a", { href: address("/sign-up") }, word("script.register"))));
}
