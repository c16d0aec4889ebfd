// What the pages of operators share: a list with filters, one thing in detail, and actions that want a reason.

import { fill, h, one } from "./dom.js";
import { onSend } from "./form.js";
import { askInDialog, button } from "./parts.js";
import { word } from "./words.js";

/** The filters of the page as a query, without what is empty. */
export function query() {
  return new URLSearchParams([...new FormData(one("filters"))].filter(([, value]) => value.trim())).toString();
}

/** Makes the filters work. */
export function onFilter(reload) {
  onSend(one("filters"), reload);
}

/** Shows one thing in a dialog: facts by name, more elements, and actions ({label, work, kind}). */
export function showDetail(title, facts, more, actions) {
  const dialog = one("detail");
  one("detail-title").textContent = title;
  fill(one("detail-body"),
    h("dl", { class: "pairs" }, facts.filter(([, value]) => value !== null && value !== "").map(([name, value]) =>
      h("div", {}, h("dt", {}, word(`script.fact_${name}`)), h("dd", {}, value)))),
    more);
  fill(one("detail-actions"),
    actions.map(({ label, work, kind }) => button(label, dialog, work, kind ?? "quiet")),
    button(word("script.close"), dialog, () => dialog.close()));
  if (!dialog.open) dialog.showModal();
}

/**
 * Asks for words, and for an amount or an account where `wants` names them, and hands them to `work`. The result is what
 * `work` gave, null when somebody changed their mind. The words are a reason for the log, or `hint` says what they are.
 */
export function act(title, work, { wants = [], hint = word("script.reason_hint"), label = word("script.reason") } = {}) {
  return askInDialog("act", (form) => {
    form.reset();
    one("act-title").textContent = title;
    one("act-send").textContent = title;
    one("act-label").textContent = label;
    one("words-hint").textContent = hint;
    for (const name of ["amount", "account"]) {
      one(`act-${name}`).hidden = !wants.includes(name);
      form.elements[name].required = wants.includes(name);
    }
  }, (values) => work({ ...values, words: values.words.replaceAll("\r", "").trim() }));
}
