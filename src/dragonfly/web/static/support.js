// The page /support: writing without being signed in.

import { ask } from "./api.js";
import { fill, h, language, one } from "./dom.js";
import { begin, onSend } from "./form.js";
import { word } from "./words.js";

await begin(() => {
  onSend(one("write"), async ({ address, kind, text, request_ids, website }) => {
    const ids = request_ids.split(/[\s,]+/).filter(Boolean);
    const body = { address: address.trim(), kind, text: text.replaceAll("\r", ""), request_ids: ids, language, website };
    await ask("POST", "/api/support", body);
    fill(one("content"), h("p", { class: "lead", role: "status" }, word("script.support_sent", { address })));
  });
});
