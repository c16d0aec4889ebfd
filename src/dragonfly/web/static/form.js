// Forms that scripts send: one at a time, with what went wrong said aloud beside the button.

import { signInAddress } from "./api.js";
import { h, one } from "./dom.js";
import { isPossible } from "./session.js";
import { troubleOf, word } from "./words.js";

/** Calls `work` with the form's values when it is sent; what `work` throws is told in the form. */
export function onSend(form, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await attempt(form, () => work(Object.fromEntries(new FormData(form))));
  });
}

/** Calls `work` when a button outside of forms is used; `place` is where trouble is told. */
export function onPress(button, place, work) {
  button.addEventListener("click", () => attempt(place, work, [button]));
}

/** Runs `work` with the buttons of `place` switched off, and tells there what went wrong. */
export async function attempt(place, work, buttons = [...place.querySelectorAll("button")]) {
  const trouble = place.querySelector("[role=alert]") ?? one("trouble");
  trouble.textContent = "";
  const wasDisabled = buttons.map((button) => button.disabled);
  for (const button of buttons) button.disabled = true;
  place.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    trouble.textContent = troubleOf(error);
    if (error.code === "sign_in_again") {
      trouble.append(" ", h("a", { href: signInAddress({ again: "1" }) }, word("script.sign_in_again")));
    }
    trouble.scrollIntoView({ block: "nearest" });
    if (!error.code) console.error(error);
  } finally {
    place.removeAttribute("aria-busy");
    buttons.forEach((button, index) => (button.disabled = wasDisabled[index]));
  }
}

/** Runs the page, once it is known that it can work here. */
export async function begin(work) {
  const canonical = document.querySelector("meta[name=origin]")?.content;
  if (canonical && canonical !== location.origin) {
    location.replace(canonical + location.pathname + location.search + location.hash);
    return;
  }
  if (!isPossible) {
    one("trouble").textContent = word("script.not_here");
    one("content").hidden = true;
    return;
  }
  await attempt(one("main"), work, []);
}
