// Numbers, money and times as people of the page's language write them. Money stays text: it is never computed with.

import { language } from "./dom.js";

const locale = language === "zh" ? "zh-CN" : "en-US";
const whole = new Intl.NumberFormat(locale);
const short = new Intl.NumberFormat(locale, { notation: "compact", maximumFractionDigits: 1 });
const moments = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
const shortDays = new Intl.DateTimeFormat(locale, { month: "short", day: "numeric", timeZone: "UTC" });
const days = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeZone: "UTC" });

/** Decimal text of dollars; `places` are the least to show, more are shown when they are there. */
export function usd(text, places = 2) {
  if (text === null || text === undefined) return "—";
  const [, sign, dollars, decimals = ""] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text);
  return `${sign ? "−" : ""}$${whole.format(BigInt(dollars))}.${decimals.padEnd(places, "0")}`;
}

/** The same, cut to cents: for balances, where less is noise. Never shows more than there is. */
export function cents(text) {
  const found = /^(-?\d+)(?:\.(\d+))?$/.exec(text);
  return usd(`${found[1]}.${(found[2] ?? "").padEnd(2, "0").slice(0, 2)}`);
}

export function count(number) {
  return whole.format(number);
}

export function compact(number) {
  return number < 10_000 ? whole.format(number) : short.format(number);
}

/** An RFC 3339 moment in the reader's own time. */
export function moment(text) {
  return text ? moments.format(new Date(text)) : "—";
}

/** A UTC day. */
export function day(text) {
  return text ? days.format(new Date(`${text.slice(0, 10)}T00:00:00Z`)) : "—";
}

/** A UTC day of this year. */
export function shortDay(text) {
  return shortDays.format(new Date(`${text.slice(0, 10)}T00:00:00Z`));
}

/** Sums decimal texts of dollars exactly. */
export function sum(texts) {
  let total = 0n;
  for (const text of texts) {
    const [dollars, decimals = ""] = text.replace("-", "").split(".");
    const nano = BigInt(dollars) * 1_000_000_000n + BigInt(decimals.padEnd(9, "0"));
    total += text.startsWith("-") ? -nano : nano;
  }
  const size = total < 0n ? -total : total;
  const decimals = (size % 1_000_000_000n).toString().padStart(9, "0").replace(/0+$/, "");
  return `${total < 0n ? "-" : ""}${size / 1_000_000_000n}${decimals && `.${decimals}`}`;
}
