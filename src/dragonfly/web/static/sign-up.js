// The page /sign-up.

import { ask } from "./api.js";
import { address, fill, h, language, one } from "./dom.js";
import { begin, onPress, onSend } from "./form.js";
import { offerProviders } from "./providers.js";
import { word } from "./words.js";

await begin(() => {
  const form = document.getElementById("sign-up");
  if (form === null) return; // nobody new may register
  const consent = { adult: true, terms_version: form.dataset.terms, policy_version: form.dataset.policy };
  onSend(form, async ({ email, password, name }) => {
    await ask("POST", "/api/auth/register", { email: email.trim(), password, name: name.trim(), language, ...consent });
    showMailed(email.trim());
  });
  offerProviders(form, () => {
    const boxes = [form.elements.adult, form.elements.consent];
    return boxes.every((box) => box.reportValidity()) ? consent : undefined;
  });
});

function showMailed(email) {
  document.querySelector("h1").textContent = word("script.mailed_title");
  const button = h("button", { type: "button", class: "quiet" }, word("script.mail_again"));
  const said = h("p", { role: "status", class: "note" });
  const card = h(
    "section",
    { class: "card" },
    h("p", {}, word("script.mailed", { email })),
    h("p", { class: "note" }, word("script.mailed_hint")),
    h("p", { class: "problem", role: "alert" }),
    h("p", { class: "actions" }, button),
    said,
  );
  onPress(button, card, async () => {
    said.textContent = "";
    await ask("POST", "/api/auth/verification", { email });
    said.textContent = word("script.mailed_again");
  });
  fill(one("content"), card, h("p", { class: "after" }, h("a", { href: address("/sign-in") }, word("script.sign_in"))));
  one("main").focus();
}
