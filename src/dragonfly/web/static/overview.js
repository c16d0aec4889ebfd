// The page /dashboard.

import { all, ask, call } from "./api.js";
import { address, h, language, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { onPress } from "./form.js";
import { cents, compact, count, sum } from "./format.js";
import { word } from "./words.js";

await inside(async () => {
  const origin = document.querySelector("meta[name=origin]")?.content || location.origin;
  one("snippet").textContent = snippetFor(origin);
  onPress(one("copy"), one("main"), async () => {
    await navigator.clipboard.writeText(one("snippet").textContent);
    one("copied").textContent = word("script.copied");
  });
  const first = `${new Date().toISOString().slice(0, 7)}-01`;
  const [me, wallet, days, announcements] = await Promise.all([
    call("GET", "/api/me"),
    call("GET", "/api/wallet"),
    all(`/api/usage/totals?by=day&from=${first}`),
    call("GET", "/api/announcements"),
  ]);
  one("available").textContent = cents(wallet.available);
  one("month-cost").textContent = cents(sum(days.map((day) => day.cost_usd)));
  one("month-requests").textContent = count(total(days, "requests"));
  one("month-tokens").textContent = compact(total(days, "prompt_tokens") + total(days, "completion_tokens"));
  if (me.role === "operator") {
    one("notices").append(h("p", {}, h("a", { href: address("/operator") }, word("script.operator_area"))));
  }
  if (!me.email_verified) showUnverified(me.email);
  if (wallet.frozen) one("notices").append(h("p", { class: "notice bad" }, word("script.frozen")));
  for (const announcement of announcements.data) {
    one("notices").append(h("p", { class: "notice" }, announcement[`text_${language}`]));
  }
});

function total(days, name) {
  return days.reduce((so_far, day) => so_far + day[name], 0);
}

function showUnverified(email) {
  const said = h("span", { role: "status" });
  const button = h("button", { type: "button", class: "quiet" }, word("script.mail_again"));
  const notice = h("div", { class: "notice" }, h("p", {}, word("script.unverified", { email })), button, " ", said);
  onPress(button, notice, async () => {
    await ask("POST", "/api/auth/verification", { email });
    said.textContent = word("script.mailed_again");
  });
  one("notices").append(notice);
}

function snippetFor(origin) {
  return [
    `export OPENAI_BASE_URL=${origin}/v1 OPENAI_API_KEY=sk-df-…`,
    "",
    "curl $OPENAI_BASE_URL/models -H \"Authorization: Bearer $OPENAI_API_KEY\"",
  ].join("\n");
}
