// The page /sign-in.

import { ask } from "./api.js";
import { arrive, wanted } from "./arrival.js";
import { one } from "./dom.js";
import { begin, onSend } from "./form.js";
import { offerProviders } from "./providers.js";
import { stored } from "./session.js";

await begin(() => {
  const isAgain = new URLSearchParams(location.search).has("again");
  if (stored() !== null && !isAgain) {
    location.replace(wanted());
    return;
  }
  const form = one("sign-in");
  onSend(form, async ({ email, password }) => arrive(await ask("POST", "/api/auth/sign-in", { email, password })));
  offerProviders(form, () => null);
});
