// The page /dashboard/wallet: what there is, paying in, and what happened so far.

import { call, download } from "./api.js";
import { fill, h, language, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { onSend } from "./form.js";
import { cents, moment, usd } from "./format.js";
import { askInDialog, button, pagedList, saveFile, table } from "./parts.js";
import { begin as beginAgreements } from "./wallet-agreements.js";
import { word, wordOr } from "./words.js";

const WAITING = ["created", "open", "processing"];

const reloadTopups = pagedList(one("topups"), () => "/api/wallet/topups", drawnTopups, word("script.no_payments"));
const reloadTransactions = pagedList(one("transactions"), () => "/api/wallet/transactions", drawnTransactions, word("script.no_transactions"));
const reloadLots = pagedList(one("lots"), () => "/api/wallet/lots", drawnLots, word("script.no_lots"));
const reloadStatements = pagedList(one("statements"), () => "/api/statements", drawnStatements, word("script.no_transactions"));
let payKey = crypto.randomUUID();
let refunds = [];

await inside(async () => {
  onSend(one("top-up"), pay);
  onSend(one("redeem"), redeem);
  await Promise.all([reload(), beginAgreements()]);
});

async function reload() {
  refunds = await call("GET", "/api/wallet/refunds?limit=100");
  await Promise.all([showWallet(), reloadTopups(), reloadTransactions(), reloadLots(), reloadStatements()]);
}

async function showWallet() {
  const wallet = await call("GET", "/api/wallet");
  one("available").textContent = cents(wallet.available);
  one("held").textContent = cents(wallet.held);
  one("used").textContent = cents(wallet.used);
  fill(one("notices"), wallet.frozen ? h("p", { class: "notice bad" }, word("script.frozen")) : null);
  const cards = wallet.card_payments;
  one("can-pay").hidden = !cards.enabled;
  one("recharge-section").hidden = !cards.enabled || cards.tax === "exclusive";
  if (!cards.enabled) {
    one("cards").textContent = word("script.cards_off");
    return;
  }
  one("cards").textContent = word(cards.simulated ? "script.cards_simulated" : "script.cards_stripe");
  const range = word("script.amount_range", { from: usd(cards.minimum), to: usd(cards.maximum) });
  one("amount-hint").textContent = cards.tax === "exclusive" ? `${range} ${word("script.tax_added")}` : range;
}

async function pay({ amount, save_card }) {
  const body = { amount: amount.trim(), language, save_card: save_card === "on" };
  const topup = await call("POST", "/api/wallet/topups", body, { once: payKey });
  payKey = crypto.randomUUID(); // the next one is another payment
  if (topup.url) location.assign(topup.url);
  else await reload();
}

async function redeem({ code }) {
  const form = one("redeem");
  const got = await call("POST", "/api/wallet/codes", { code: code.trim() }, { once: crypto.randomUUID() });
  form.reset();
  const until = got.expires_at ? word("script.until", { time: moment(got.expires_at) }) : "";
  form.querySelector("[role=status]").textContent = word("script.redeemed", { amount: usd(got.amount), until });
  await reload();
}

function drawnTopups(topups) {
  const heads = ["time", "amount", "state", "method"].map((name) => word(`script.pay_${name}`));
  return table(word("script.payments"), [...heads, ""], topups.map((topup) => [
    moment(topup.paid_at ?? topup.created_at),
    usd(topup.total ?? topup.amount),
    h("span", {}, h("span", { class: `state ${topup.state}` }, word(`script.pay_is_${topup.state}`)), refundsOf(topup)),
    topup.method ?? "—",
    h("span", { class: "actions tight" }, actionsOf(topup)),
  ]));
}

function refundsOf(topup) {
  return refunds.filter((refund) => refund.topup === topup.id).map((refund) =>
    h("span", { class: "note block" }, word(`script.refund_is_${refund.state}`, { amount: usd(refund.amount) })));
}

function actionsOf(topup) {
  const place = one("topups");
  if (topup.state === "paid") {
    const hasRefund = refunds.some((refund) => refund.topup === topup.id && refund.state !== "declined");
    return [
      button(word("script.receipt"), place, async () => {
        const { url } = await call("POST", `/api/wallet/topups/${topup.id}/receipt-link?lang=${language}`);
        location.assign(url);
      }),
      !hasRefund && button(word("script.ask_refund"), place, () => askRefund(topup)),
    ];
  }
  if (!WAITING.includes(topup.state)) return [];
  return [
    topup.url && h("a", { href: topup.url, rel: "noreferrer" }, word("script.pay_page")),
    button(word("script.check_payment"), place, async () => {
      await call("POST", `/api/wallet/topups/${topup.id}/check`);
      await reload();
    }),
  ];
}

async function askRefund(topup) {
  const once = crypto.randomUUID();
  const refund = await askInDialog("refund", (form) => form.reset(), ({ reason }) =>
    call("POST", "/api/wallet/refunds", { topup: topup.id, reason }, { once }));
  if (refund) await reload();
}

function drawnTransactions(transactions) {
  const heads = ["time", "what", "amount"].map((name) => word(`script.change_${name}`));
  return table(word("script.transactions"), heads, transactions.map((one_change) => [
    moment(one_change.created_at), wordOr(`script.change_is_${one_change.kind}`, one_change.kind), usd(one_change.amount),
  ]));
}

function drawnLots(lots) {
  const heads = ["time", "source", "amount", "left", "until"].map((name) => word(`script.lot_${name}`));
  return table(word("script.lots"), heads, lots.map((lot) => [
    moment(lot.created_at), word(`script.lot_is_${lot.source}`), usd(lot.amount), usd(lot.remaining),
    lot.expires_at ? moment(lot.expires_at) : word("script.never"),
  ]));
}

function drawnStatements(months) {
  const heads = ["month", "state"].map((name) => word(`script.statement_${name}`));
  return table(word("script.statements"), [...heads, ""], months.map(({ month, is_over }) => [
    month,
    word(is_over ? "script.statement_over" : "script.statement_running"),
    button(word("script.csv"), one("statements"), async () => {
      saveFile(await download(`/api/statements/${month}.csv`), `dragonfly-${month}.csv`);
    }),
  ]));
}
