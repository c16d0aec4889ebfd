// What several pages of the dashboard are made of: tables, dialogs, lists that go on.

import { call } from "./api.js";
import { fill, h, one } from "./dom.js";
import { attempt, onPress } from "./form.js";
import { word } from "./words.js";

/**
 * A table that scrolls by itself where it is too wide; on telephones each row is a block of its own, with the heads
 * beside the cells. Cells are texts or elements; `heads` of "" name no column. The roles keep it a table in blocks too.
 */
export function table(caption, heads, rows) {
  const head = heads.map((text) => (text ? h("th", { scope: "col", role: "columnheader" }, text) : h("td", { role: "cell" })));
  const body = rows.map((row) => h("tr", { role: "row" }, row.map((cell, place) => place
    ? h("td", { role: "cell", "data-head": heads[place] }, cell)
    : h("th", { scope: "row", role: "rowheader" }, cell))));
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { role: "table" },
      h("caption", { class: "unseen" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
      h("tbody", { role: "rowgroup" }, body)));
}

/** A button that does something and tells beside `place` what went wrong. */
export function button(label, place, work, kind = "quiet small") {
  const made = h("button", { type: "button", class: kind }, label);
  onPress(made, place, work);
  return made;
}

/** Opens a dialog of the page; resolves to what its button was called, "" when it was closed otherwise. */
export function opened(id) {
  const dialog = one(id);
  dialog.returnValue = "";
  for (const alert of dialog.querySelectorAll("[role=alert]")) alert.textContent = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

/** Asks whether somebody is sure; true when they are. */
export async function isSure(title, text, label) {
  const dialog = h("dialog", { "aria-labelledby": "sure-title" },
    h("form", { method: "dialog" },
      h("h2", { id: "sure-title" }, title),
      h("p", {}, text),
      h("p", { class: "actions" },
        h("button", { class: "danger", value: "yes" }, label),
        h("button", { class: "quiet", value: "", autofocus: true }, word("script.cancel")))));
  document.body.append(dialog);
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  dialog.remove();
  return dialog.returnValue === "yes";
}

/** A paged list in `place`: `draw` makes it of all entries so far; a button fetches more. Returns a function that begins anew. */
export function pagedList(place, path, draw, nothing) {
  return async function begin() {
    const found = [];
    let cursor = null;
    async function more() {
      const query = cursor === null ? "" : `${path().includes("?") ? "&" : "?"}cursor=${encodeURIComponent(cursor)}`;
      const page = await call("GET", path() + query);
      found.push(...page.data);
      cursor = page.next_cursor;
      fill(place, found.length ? draw(found) : h("p", { class: "note" }, nothing),
        cursor && h("p", { class: "actions" }, button(word("script.more"), place, more)));
    }
    try {
      await more();
    } catch (error) {
      fill(place); // what went wrong is told elsewhere; nothing is on its way any more
      throw error;
    }
  };
}

/** A button that copies a text, and says so. */
export function copyButton(text, label = word("script.copy")) {
  const said = h("span", { role: "status", class: "note" });
  const made = h("button", { type: "button", class: "quiet small" }, label);
  made.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    said.textContent = word("script.copied");
  });
  return [made, " ", said];
}

/** Gives the browser a file to keep. */
export function saveFile(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** A form inside a dialog: stays open while `work` fails, closes when it is done. Resolves to what `work` gave. */
export function askInDialog(id, prepare, work) {
  const dialog = one(id);
  const form = dialog.querySelector("form");
  prepare(form);
  return new Promise((resolve) => {
    const listening = new AbortController();
    const end = (result) => {
      listening.abort();
      if (dialog.open) dialog.close();
      resolve(result);
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (event.submitter?.value === "cancel") end(null);
      else attempt(form, async () => end(await work(Object.fromEntries(new FormData(form)))));
    }, { signal: listening.signal });
    dialog.addEventListener("close", () => end(null), { signal: listening.signal });
    opened(id);
  });
}
