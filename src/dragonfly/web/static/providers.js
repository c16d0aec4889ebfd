// The buttons "Continue with …".

import { ask } from "./api.js";
import { language } from "./dom.js";
import { onPress } from "./form.js";

/** `consent` gives what somebody confirmed, null when signing in, and throws when they have not. */
export function offerProviders(form, consent) {
  for (const button of form.querySelectorAll("[data-provider]")) {
    onPress(button, form, async () => {
      const confirmed = consent();
      if (confirmed === undefined) return;
      const body = { language, ...(confirmed && { consent: confirmed }) };
      const { url } = await ask("POST", `/api/auth/${button.dataset.provider}/begin`, body);
      location.assign(url);
    });
  }
}
