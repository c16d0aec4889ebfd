// Builds the page out of nodes. Text is only ever text: nothing here, nor in any script that uses it, writes HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `on…` takes a function, true stands for a bare attribute, false and null for none. */
export function h(tag, attributes = {}, ...children) {
  return grown(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
export function drawn(tag, attributes = {}, ...children) {
  return grown(document.createElementNS(SVG, tag), attributes, children);
}

function grown(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The one element of a page with this id. */
export function one(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`there is no #${id}`);
  return found;
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** The language of the page, as our addresses name it. */
export const language = document.documentElement.lang.startsWith("zh") ? "zh" : "en";

/** An address of ours in the page's language; `values` become parameters. */
export function address(path, values = {}) {
  const parameters = new URLSearchParams({ lang: language, ...values });
  return `${path}?${parameters}`;
}
