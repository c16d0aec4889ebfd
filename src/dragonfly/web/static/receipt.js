// The page /dashboard/receipt#top-…: one receipt, to look at and to print.

import { call } from "./api.js";
import { fill, h, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { moment, usd } from "./format.js";
import { word } from "./words.js";

await inside(async () => {
  one("print").addEventListener("click", () => print());
  const id = location.hash.slice(1);
  const receipt = await call("GET", `/api/wallet/topups/${encodeURIComponent(id)}/receipt`);
  const { billing } = receipt;
  const customer = [billing.name, billing.company, ...billing.address.split("\n"), billing.country, billing.tax_id];
  const rows = [
    ["number", h("code", {}, receipt.topup)],
    ["paid", moment(receipt.paid_at)],
    ["credit", usd(receipt.credit)],
    ["tax", usd(receipt.tax)],
    ["total", h("strong", {}, usd(receipt.total))],
    ["refunded", usd(receipt.refunded)],
    ["method", receipt.method ?? "—"],
  ];
  fill(one("receipt"),
    h("address", {}, customer.filter(Boolean).map((line) => [line, h("br")])),
    h("table", { class: "plain" }, h("tbody", {}, rows.map(([name, value]) =>
      h("tr", {}, h("th", { scope: "row" }, word(`script.receipt_${name}`)), h("td", {}, value))))),
    receipt.stripe_receipt_url &&
      h("p", {}, h("a", { href: receipt.stripe_receipt_url, rel: "noreferrer" }, word("script.receipt_stripe"))));
});
