// The page /operator: finding people, giving credit, stopping accounts and keys.

import { all, call } from "./api.js";
import { h, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { moment, usd } from "./format.js";
import { act, onFilter, query, showDetail } from "./operator.js";
import { button, pagedList, table } from "./parts.js";
import { word } from "./words.js";

const ACCOUNTS = "/api/admin/accounts";
const reload = pagedList(one("found"), () => `${ACCOUNTS}?${query()}`, drawn, word("script.nobody"));

await inside(async () => {
  onFilter(reload);
  await reload();
});

function drawn(people) {
  const heads = ["name", "email", "status", "since"].map((name) => word(`script.fact_${name}`));
  return table(word("script.people"), [...heads, ""], people.map((person) => [
    person.name || person.id,
    person.email ?? "—",
    h("span", { class: `state ${person.status}` }, word(`script.account_is_${person.status}`)),
    moment(person.created_at),
    button(word("script.ticket_open"), one("found"), () => open(person.id)),
  ]));
}

async function open(id) {
  const [person, keys] = await Promise.all([call("GET", `${ACCOUNTS}/${id}`), all(`${ACCOUNTS}/${id}/keys`, 100)]);
  const isFrozen = person.status === "frozen";
  const change = (title, path, more) => async () => {
    const done = await act(title, ({ words, amount }) =>
      call("POST", `${ACCOUNTS}/${id}/${path}`, { reason: words, ...(more && { amount_usd: amount.trim() }) }, { once: crypto.randomUUID() }),
    { wants: more ? ["amount"] : [] });
    if (done) await Promise.all([open(id), reload()]);
  };
  const facts = [
    ["account", h("code", {}, person.id)],
    ["email", person.email],
    ["status", word(`script.account_is_${person.status}`)],
    ["role", person.role],
    ["since", moment(person.created_at)],
    ["balance", usd(person.wallet.balance_usd)],
    ["held", usd(person.wallet.held_usd)],
    ["used", usd(person.wallet.used_usd)],
    ["risk", person.sign_up_risk === null ? null : `${person.sign_up_risk} ${person.sign_up_risk_reasons.join(", ")}`],
  ];
  showDetail(person.name || person.email || person.id, facts, keys.length > 0 && drawnKeys(keys, () => open(id)), [
    { label: word("script.give_credit"), work: change(word("script.give_credit"), "credit", true) },
    isFrozen
      ? { label: word("script.unfreeze"), work: change(word("script.unfreeze"), "unfreeze") }
      : { label: word("script.freeze"), work: change(word("script.freeze"), "freeze"), kind: "danger" },
  ]);
}

function drawnKeys(keys, again) {
  const heads = ["name", "status", "used"].map((name) => word(`script.fact_${name}`));
  return table(word("script.keys"), [...heads, ""], keys.map((key) => [
    h("span", {}, key.name, " ", h("code", {}, key.hint)),
    h("span", { class: `state ${key.status}` }, word(`script.key_is_${key.status}`)),
    usd(key.spend.total_usd),
    key.status === "revoked" ? "" : button(word("script.revoke"), one("detail"), async () => {
      const done = await act(word("script.revoke"), ({ words }) =>
        call("POST", `/api/admin/keys/${key.id}/revoke`, { reason: words }));
      if (done) await again();
    }, "danger small"),
  ]));
}
