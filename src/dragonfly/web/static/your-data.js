// The page /dashboard/privacy: a copy of one's data, and the end of one's account.

import { call } from "./api.js";
import { h, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { onSend } from "./form.js";
import { moment } from "./format.js";
import { button, isSure, pagedList, table } from "./parts.js";
import { word } from "./words.js";

const REQUESTS = "/api/data-requests";
const reload = pagedList(one("requests"), () => REQUESTS, drawn, word("script.no_data_requests"));

await inside(async () => {
  onSend(one("export"), () => open({ kind: "export" }));
  onSend(one("deletion"), async ({ gives_up_balance }) => {
    const texts = ["deletion_title", "deletion_sure", "deletion_title"].map((name) => word(`script.${name}`));
    if (await isSure(...texts)) await open({ kind: "deletion", gives_up_balance: gives_up_balance === "on" });
  });
  await reload();
});

async function open(wanted) {
  await call("POST", REQUESTS, wanted, { once: crypto.randomUUID() });
  await reload();
}

function drawn(requests) {
  const heads = ["what", "state", "since", "due"].map((name) => word(`script.data_${name}`));
  return table(word("script.data_requests"), [...heads, ""], requests.map((request) => [
    word(`script.data_is_${request.kind}`),
    h("span", {}, h("span", { class: `state ${request.state}` }, word(`script.data_is_${request.state}`)), detailsOf(request)),
    moment(request.created_at),
    moment(request.due_at),
    h("span", { class: "actions tight" }, actionsOf(request)),
  ]));
}

function detailsOf(request) {
  const lines = [];
  if (request.state === "approved") {
    lines.push(word(request.kind === "export" ? "script.copy_until" : "script.deletion_at", { time: moment(request.until) }));
    if (request.waits_for) lines.push(word(`script.waits_for_${request.waits_for}`));
  }
  if (request.reason) lines.push(request.reason);
  return lines.map((line) => h("span", { class: "note block" }, line));
}

function actionsOf(request) {
  const place = one("requests");
  const isOpen = request.state === "requested" || request.state === "approved";
  return [
    request.kind === "export" && request.state === "approved" && button(word("script.download"), place, async () => {
      const { url } = await call("POST", `${REQUESTS}/${request.id}/link`, undefined, { once: crypto.randomUUID() });
      if (url) location.assign(url);
    }),
    isOpen && button(word("script.withdraw"), place, async () => {
      await call("POST", `${REQUESTS}/${request.id}/cancel`);
      await reload();
    }),
  ];
}
