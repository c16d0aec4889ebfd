// The page /dashboard/support: one's tickets.

import { call } from "./api.js";
import { fill, h, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { onPress, onSend } from "./form.js";
import { moment } from "./format.js";
import { askInDialog, button, pagedList, table } from "./parts.js";
import { word } from "./words.js";

const TICKETS = "/api/support/tickets";
const reload = pagedList(one("tickets"), () => TICKETS, drawn, word("script.no_tickets"));
let shown = null;

await inside(async () => {
  const form = one("write");
  onSend(form, async ({ kind, text, request_ids }) => {
    const ids = request_ids.split(/[\s,]+/).filter(Boolean);
    const body = { kind, text: text.replaceAll("\r", ""), request_ids: ids };
    await call("POST", TICKETS, body, { once: crypto.randomUUID() });
    form.reset();
    form.querySelector("[role=status]").textContent = word("script.ticket_sent");
    await reload();
  });
  onPress(one("ticket-close"), one("ticket"), async () => {
    await call("POST", `${TICKETS}/${shown.id}/close`);
    one("ticket").close();
  });
  await reload();
});

function drawn(tickets) {
  const heads = ["what", "state", "since", "changed"].map((name) => word(`script.ticket_${name}`));
  return table(word("script.tickets"), [...heads, ""], tickets.map((ticket) => [
    word(`script.kind_${ticket.kind}`),
    h("span", { class: `state ${ticket.state}` }, word(`script.ticket_is_${ticket.state}`)),
    moment(ticket.created_at),
    moment(ticket.updated_at),
    button(word("script.ticket_open"), one("tickets"), () => open(ticket.id)),
  ]));
}

async function open(id) {
  show(await call("GET", `${TICKETS}/${id}`));
  await askInDialog("ticket", (form) => form.reset(), async ({ more }) => {
    const body = { text: more.replaceAll("\r", "") };
    show(await call("POST", `${TICKETS}/${id}/messages`, body, { once: crypto.randomUUID() }));
  });
  await reload();
}

function show(ticket) {
  shown = ticket;
  one("ticket-title").textContent = word(`script.kind_${ticket.kind}`);
  const isOpen = ticket.state !== "closed";
  one("answering").hidden = !isOpen;
  one("ticket-send").hidden = !isOpen;
  one("ticket-close").hidden = !isOpen;
  one("more").required = isOpen;
  fill(one("messages"), ticket.messages.map((message) => h("div", { class: `message ${message.author}` },
    h("p", { class: "note" }, `${word(`script.from_${message.author}`)}, ${moment(message.created_at)}`),
    h("p", { class: "said" }, message.text))));
}
