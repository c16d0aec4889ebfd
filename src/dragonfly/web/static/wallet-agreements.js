// The lower part of /dashboard/wallet: automatic top-ups, and what stands on receipts.

import { call } from "./api.js";
import { one } from "./dom.js";
import { onPress, onSend } from "./form.js";
import { moment, usd } from "./format.js";
import { word } from "./words.js";

const RECHARGE = "/api/wallet/auto-recharge";

/** Shows both and makes their forms work. */
export async function begin() {
  onSend(one("recharge"), async ({ threshold, recharge_amount, monthly_cap }) => {
    const wanted = { threshold: threshold.trim(), amount: recharge_amount.trim(), monthly_cap: monthly_cap.trim() };
    showRecharge(await call("PUT", RECHARGE, wanted));
  });
  onPress(one("recharge-stop"), one("recharge"), async () => {
    await call("DELETE", RECHARGE);
    showRecharge(await call("GET", RECHARGE));
  });
  onSend(one("billing"), async (values) => {
    const text = (name) => values[name].replaceAll("\r", "").trim();
    const names = ["name", "company", "address", "tax_id"];
    const wanted = Object.fromEntries(names.map((name) => [name, text(name)]));
    await call("PUT", "/api/wallet/billing", { ...wanted, country: text("country").toUpperCase() });
    one("billing").querySelector("[role=status]").textContent = word("script.saved");
  });
  const [recharge, billing] = await Promise.all([call("GET", RECHARGE), call("GET", "/api/wallet/billing")]);
  showRecharge(recharge);
  for (const [name, value] of Object.entries(billing)) one("billing").elements[name].value = value;
}

function showRecharge(recharge) {
  const fields = one("recharge").elements;
  one("recharge-stop").hidden = recharge.state === "off";
  one("recharge-state").textContent = stateOf(recharge);
  if (recharge.state === "off") return;
  fields.threshold.value = recharge.threshold;
  fields.recharge_amount.value = recharge.amount;
  fields.monthly_cap.value = recharge.monthly_cap;
}

function stateOf(recharge) {
  if (recharge.state === "off") return word("script.recharge_off");
  const values = {
    threshold: usd(recharge.threshold), amount: usd(recharge.amount), cap: usd(recharge.monthly_cap),
    card: recharge.card ?? "—", time: moment(recharge.last_attempt_at),
  };
  if (recharge.state === "paused") return word(`script.recharge_${recharge.pause_reason}`, values);
  return word("script.recharge_on", values);
}
