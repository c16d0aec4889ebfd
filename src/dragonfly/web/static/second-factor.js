// The part of the settings about the second factor: setting it up, recovery codes, removing it.

import { call } from "./api.js";
import { fill, h, one } from "./dom.js";
import { onPress, onSend } from "./form.js";
import { copyButton } from "./parts.js";
import { word } from "./words.js";

const PATH = "/api/me/second-factor";

/** Shows how it stands and makes its buttons work. Call it once. */
export function showSecondFactor(isOn) {
  show(isOn);
  onPress(one("factor-begin"), one("factor"), begin);
  onSend(one("factor-confirm"), async ({ code }) => {
    const { recovery_codes } = await call("POST", `${PATH}/confirm`, { code: code.replaceAll(" ", "") });
    showCodes(recovery_codes);
  });
  onSend(one("factor-remove"), async ({ remove_code }) => {
    await call("POST", `${PATH}/remove`, { code: remove_code.replaceAll(" ", "") });
    one("factor-remove").reset();
    one("factor-codes").hidden = true;
    show(false);
  });
}

function show(isOn) {
  one("factor-state").textContent = word(isOn ? "script.factor_on" : "script.factor_off");
  one("factor-begin").hidden = isOn;
  one("factor-confirm").hidden = true;
  one("factor-remove").hidden = !isOn;
}

async function begin() {
  const { secret, uri } = await call("POST", PATH);
  one("factor-secret").textContent = secret.match(/.{1,4}/g).join(" ");
  one("factor-link").href = uri;
  one("factor-begin").hidden = true;
  one("factor-confirm").hidden = false;
  one("code").focus();
}

/** Shown once; they leave the page with it. */
function showCodes(codes) {
  fill(one("factor-secret"));
  one("factor-link").removeAttribute("href");
  one("factor-confirm").reset();
  fill(one("codes"), codes.map((code) => h("li", {}, h("code", {}, code))));
  fill(one("codes-copy"), copyButton(codes.join("\n"), word("script.copy_all")));
  show(true);
  one("factor-remove").hidden = true;
  one("factor-codes").hidden = false;
  one("codes").focus();
}
