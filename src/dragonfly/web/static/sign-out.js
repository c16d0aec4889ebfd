// The page /sign-out: ends the session here and in the gateway.

import { call } from "./api.js";
import { address, fill, h, one } from "./dom.js";
import { begin } from "./form.js";
import { forget, stored } from "./session.js";
import { word } from "./words.js";

await begin(async () => {
  try {
    if (stored() !== null) await call("POST", "/api/auth/sign-out");
  } finally {
    forget();
  }
  fill(one("state"), word("script.signed_out"));
  one("content").append(
    h("p", { class: "after" }, h("a", { href: address("/sign-in") }, word("script.sign_in"))));
});
