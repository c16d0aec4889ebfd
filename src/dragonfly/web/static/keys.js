// The page /dashboard/keys.

import { call } from "./api.js";
import { fill, h, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { onPress } from "./form.js";
import { cents, day, usd } from "./format.js";
import { askInDialog, button, copyButton, isSure, opened, pagedList, table } from "./parts.js";
import { word } from "./words.js";

const AMOUNTS = ["spend_usd", "spend_daily_usd", "spend_monthly_usd"];
const NUMBERS = ["requests_per_minute", "tokens_per_minute", "concurrency"];
const LISTS = ["models", "networks"];

const place = one("list");
const reload = pagedList(place, () => "/api/keys", drawn, word("script.no_keys"));

await inside(async () => {
  onPress(one("create"), one("main"), create);
  await reload();
});

function drawn(keys) {
  const heads = ["name", "status", "spent_month", "spent", "limit", "last_used"].map((name) => word(`script.key_${name}`));
  return table(word("script.keys"), [...heads, ""], keys.map((key) => [
    h("span", {}, h("strong", {}, key.name), h("br"), h("code", {}, key.hint), key.key_group && h("span", { class: "tag" }, key.key_group)),
    h("span", { class: `state ${key.status}` }, word(`script.key_is_${key.status}`)),
    cents(key.spend.month_usd),
    cents(key.spend.total_usd),
    limitOf(key.limits),
    key.last_used_on ? day(key.last_used_on) : word("script.never"),
    key.status === "revoked" ? "" : h("span", { class: "actions tight" }, actionsOf(key)),
  ]));
}

function limitOf(limits) {
  if (limits.spend_usd !== null) return usd(limits.spend_usd);
  if (limits.spend_monthly_usd !== null) return word("script.per_month", { amount: usd(limits.spend_monthly_usd) });
  if (limits.spend_daily_usd !== null) return word("script.per_day", { amount: usd(limits.spend_daily_usd) });
  return "—";
}

function actionsOf(key) {
  const isOff = key.status === "disabled" || key.status === "paused";
  const change = (body) => async () => {
    await call("PATCH", `/api/keys/${key.id}`, body);
    await reload();
  };
  return [
    button(word("script.edit"), place, () => edit(key)),
    isOff
      ? button(word("script.switch_on"), place, change({ disabled: false }))
      : button(word("script.switch_off"), place, change({ disabled: true })),
    button(word("script.rotate"), place, () => rotate(key)),
    button(word("script.revoke"), place, () => revoke(key), "danger small"),
  ];
}

async function create() {
  const once = crypto.randomUUID();
  const made = await askInDialog("editor", (form) => prepare(form, null), (values) =>
    call("POST", "/api/keys", wanted(values), { once }));
  if (made) await showSecret(made.key);
}

async function edit(key) {
  const changed = await askInDialog("editor", (form) => prepare(form, key), (values) =>
    call("PATCH", `/api/keys/${key.id}`, wanted(values)));
  if (changed) await reload();
}

async function rotate(key) {
  const once = crypto.randomUUID();
  const made = await askInDialog("rotation", (form) => form.reset(), ({ grace_s }) =>
    call("POST", `/api/keys/${key.id}/rotate`, { grace_s: Number(grace_s) }, { once }));
  if (made) await showSecret(made.key);
}

async function revoke(key) {
  if (!(await isSure(word("script.revoke_title", { name: key.name }), word("script.revoke_text"), word("script.revoke")))) return;
  await call("DELETE", `/api/keys/${key.id}`);
  await reload();
}

/** The one time that a secret is seen: it leaves the page when the dialog closes. */
async function showSecret(secret) {
  fill(one("secret-text"), secret);
  fill(one("secret-copy"), copyButton(secret));
  await opened("secret");
  fill(one("secret-text"));
  fill(one("secret-copy"));
  await reload();
}

function prepare(form, key) {
  form.reset();
  one("editor-title").textContent = key ? word("script.edit_key") : word("script.create_key");
  one("editor-send").textContent = key ? word("script.save") : word("script.create_key");
  if (!key) return;
  form.elements.name.value = key.name;
  form.elements.key_group.value = key.key_group;
  form.elements.expires.value = key.expires_at?.slice(0, 10) ?? "";
  for (const name of [...AMOUNTS, ...NUMBERS]) form.elements[name].value = key.limits[name] ?? "";
  for (const name of LISTS) form.elements[name].value = (key.limits[name] ?? []).join(" ");
}

function wanted(values) {
  const limits = {};
  for (const name of AMOUNTS) limits[name] = values[name].trim() || null;
  for (const name of NUMBERS) limits[name] = values[name] === "" ? null : Number(values[name]);
  for (const name of LISTS) {
    const parts = values[name].split(/[\s,]+/).filter(Boolean);
    limits[name] = parts.length ? parts : null;
  }
  return {
    name: values.name.trim(),
    key_group: values.key_group.trim(),
    limits,
    expires_at: values.expires ? `${values.expires}T23:59:59Z` : null,
  };
}
