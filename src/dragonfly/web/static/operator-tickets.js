// The page /operator/tickets: reading and answering.

import { call } from "./api.js";
import { h, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { moment } from "./format.js";
import { act, onFilter, query, showDetail } from "./operator.js";
import { button, pagedList, table } from "./parts.js";
import { word } from "./words.js";

const TICKETS = "/api/admin/tickets";
const reload = pagedList(one("found"), () => `${TICKETS}?${query()}`, drawn, word("script.no_tickets_here"));

await inside(async () => {
  onFilter(reload);
  await reload();
});

function drawn(tickets) {
  const heads = ["what", "state", "since", "changed"].map((name) => word(`script.ticket_${name}`));
  return table(word("script.tickets"), [...heads, ""], tickets.map((ticket) => [
    h("span", {}, word(`script.kind_${ticket.kind}`), h("span", { class: "note block" }, ticket.address)),
    h("span", { class: `state ${ticket.state}` }, word(`script.turn_${ticket.state}`)),
    moment(ticket.created_at),
    moment(ticket.updated_at),
    button(word("script.ticket_open"), one("found"), () => open(ticket.id)),
  ]));
}

async function open(id) {
  show(await call("GET", `${TICKETS}/${id}`));
}

function show(ticket) {
  const path = `${TICKETS}/${ticket.id}`;
  const once = { once: crypto.randomUUID() };
  const change = async (done) => {
    if (!done) return;
    show(done);
    await reload();
  };
  const facts = [
    ["email", ticket.address],
    ["account", ticket.account_id && h("code", {}, ticket.account_id)],
    ["language", ticket.language],
    ["requests", ticket.request_ids.join(" ")],
    ["since", moment(ticket.created_at)],
  ];
  const said = ticket.messages.map((message) => h("div", { class: `message ${message.author}` },
    h("p", { class: "note" }, `${word(`script.wrote_${message.author}`)}, ${moment(message.created_at)}`),
    h("p", { class: "said" }, message.text)));
  const answer = { label: word("script.answer"), hint: word("script.answer_hint") };
  showDetail(word(`script.kind_${ticket.kind}`), facts, h("div", { class: "messages", tabindex: "0" }, said), ticket.state === "closed" ? [] : [
    { label: word("script.answer"), work: async () => change(await act(answer.label, ({ words }) => call("POST", `${path}/replies`, { text: words }, once), answer)) },
    { label: word("script.close_ticket"), work: async () => change(await act(word("script.close_ticket"), ({ words }) => call("POST", `${path}/close`, { reason: words }, once))) },
  ]);
}
