// The page /operator/data-requests: the review queue, what is due first.

import { call } from "./api.js";
import { h, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { moment } from "./format.js";
import { act, onFilter, query, showDetail } from "./operator.js";
import { button, pagedList, table } from "./parts.js";
import { word } from "./words.js";

const REQUESTS = "/api/admin/data-requests";
const reload = pagedList(one("found"), () => `${REQUESTS}?${query()}`, drawn, word("script.nothing_to_review"));

await inside(async () => {
  one("filters").elements.state.value = "requested";
  onFilter(reload);
  await reload();
});

function drawn(requests) {
  const heads = ["what", "state", "since", "due"].map((name) => word(`script.data_${name}`));
  return table(word("script.data_requests"), [...heads, ""], requests.map((request) => [
    word(`script.data_is_${request.kind}`),
    h("span", { class: `state ${request.state}` }, word(`script.data_is_${request.state}`)),
    moment(request.created_at),
    h("span", { class: request.is_overdue ? "bad" : "" }, moment(request.due_at), request.is_overdue && ` (${word("script.overdue")})`),
    button(word("script.ticket_open"), one("found"), async () => show(await call("GET", `${REQUESTS}/${request.id}`))),
  ]));
}

function show(request) {
  const isOpen = request.state === "requested" || request.state === "approved";
  const facts = [
    ["account", request.account_id && h("code", {}, request.account_id)],
    ["ticket", request.ticket_id && h("code", {}, request.ticket_id)],
    ["status", word(`script.data_is_${request.state}`)],
    ["since", moment(request.created_at)],
    ["until", request.until && moment(request.until)],
    ["waits", request.waits_for && word(`script.waits_for_${request.waits_for}`)],
    ["reason", request.reason],
    ["note", request.note],
  ];
  const names = request.account_id === null ? ["account"] : [];
  showDetail(word(`script.data_is_${request.kind}`), facts, certificateOf(request), [
    ...(request.state === "requested" ? [
      decision("approve", ({ words, account }) => ({ reason: words, ...(names.length && { account_id: account.trim() }) }), { wants: names }),
      decision("refuse", ({ words }) => ({ reason: words }), { hint: word("script.refuse_hint") }),
    ] : []),
    ...(isOpen ? [decision("cancel", ({ words }) => ({ reason: words }))] : []),
    decision("note", ({ words }) => ({ text: words }), { label: word("script.note_label"), hint: word("script.note_hint") }),
  ]);

  function decision(name, bodyOf, options = {}) {
    const label = word(`script.decide_${name}`);
    const send = (values) => call("POST", `${REQUESTS}/${request.id}/${name}`, bodyOf(values), { once: crypto.randomUUID() });
    return {
      label,
      work: async () => {
        const done = await act(label, send, options);
        if (!done) return;
        show(done);
        await reload();
      },
    };
  }
}

function certificateOf(request) {
  if (!request.certificate) return null;
  return h("details", {}, h("summary", {}, word("script.certificate")), h("pre", { class: "said" }, request.certificate));
}
