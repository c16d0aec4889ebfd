// The page /dashboard/usage.

import { all, download } from "./api.js";
import { bars } from "./chart.js";
import { fill, h, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { onPress, onSend } from "./form.js";
import { compact, count, day, moment, shortDay, sum, usd } from "./format.js";
import { pagedList, saveFile, table } from "./parts.js";
import { word, wordOr } from "./words.js";

const DAYS_SHOWN = 30;
const DAY_MS = 86_400_000;

const filters = one("filters");
const reloadRows = pagedList(one("rows"), () => `/api/usage?${query()}`, drawnRows, word("script.no_requests"));
let days = [];

await inside(async () => {
  const today = Date.now();
  filters.elements.to.value = dateOf(today);
  filters.elements.from.value = dateOf(today - (DAYS_SHOWN - 1) * DAY_MS);
  onSend(filters, reload);
  filters.elements.measure.addEventListener("change", drawChart);
  onPress(one("csv"), filters, async () => saveFile(await download(`/api/usage/export.csv?${query()}`), "dragonfly-usage.csv"));
  await Promise.all([reload(), offerKeys()]);
});

async function offerKeys() {
  for (const key of await all("/api/keys")) {
    filters.elements.key_id.append(h("option", { value: key.id }, `${key.name} (${key.hint})`));
  }
}

async function reload() {
  const [found, models] = await Promise.all([
    all(`/api/usage/totals?by=day&${query()}`),
    all(`/api/usage/totals?by=model&${query()}`),
    reloadRows(),
  ]);
  days = found;
  drawChart();
  fill(one("models"), models.length > 0 && drawnModels(models));
}

function query() {
  const values = Object.fromEntries(new FormData(filters));
  const wanted = Object.entries(values).filter(([name, value]) => name !== "measure" && value.trim());
  return new URLSearchParams(wanted).toString();
}

function drawChart() {
  const measure = filters.elements.measure.value;
  const points = span().map((of) => {
    const total = days.find((one_day) => one_day.day === of);
    const text = textOf(total, measure);
    return { day: of, value: valueOf(total, measure), text, label: `${day(of)}: ${text}` };
  });
  const top = points.reduce((most, point) => (point.value > most.value ? point : most), points[0]);
  const whole = measure === "cost" ? usd(sum(days.map((total) => total.cost_usd))) : compact(points.reduce((so_far, point) => so_far + point.value, 0));
  const title = word(`script.chart_${measure}`, { total: whole });
  fill(one("chart"), h("p", { class: "note", role: "status" }, title), bars(title, points, top.text, shortDay, one("chart").clientWidth || 900));
}

/** Every day from the first to the last of the filters. */
function span() {
  const first = Date.parse(filters.elements.from.value || days[0]?.day || dateOf(Date.now()));
  const last = Date.parse(filters.elements.to.value || dateOf(Date.now()));
  const length = Math.min(92, Math.max(1, Math.round((last - first) / DAY_MS) + 1));
  return Array.from({ length }, (_, place) => dateOf(last - (length - 1 - place) * DAY_MS));
}

function valueOf(total, measure) {
  if (!total) return 0;
  if (measure === "cost") return Number(total.cost_usd);
  return measure === "requests" ? total.requests : total.prompt_tokens + total.completion_tokens;
}

function textOf(total, measure) {
  if (measure === "cost") return usd(total?.cost_usd ?? "0");
  return compact(valueOf(total, measure));
}

function drawnModels(models) {
  const heads = ["model", "requests", "sent", "answered", "cost"].map((name) => word(`script.usage_${name}`));
  return table(word("script.by_model"), heads, models.map((total) => [
    total.model, count(total.requests), count(total.prompt_tokens), count(total.completion_tokens), usd(total.cost_usd),
  ]));
}

function drawnRows(rows) {
  const heads = ["time", "model", "key", "outcome", "sent", "answered", "cost", "duration", "number"];
  return table(word("script.requests"), heads.map((name) => word(`script.usage_${name}`)), rows.map((row) => [
    moment(row.at), row.model, row.key_name, wordOr(`script.outcome_${row.outcome}`, row.outcome), count(row.prompt_tokens), count(row.completion_tokens),
    usd(row.cost_usd), `${(row.duration_ms / 1000).toFixed(1)} s`, h("code", {}, row.request_id),
  ]));
}

function dateOf(ms) {
  return new Date(ms).toISOString().slice(0, 10);
}
