// Creates elements. Every text becomes a text node, so text of a worker is never markup.

/**
 * Creates an element with these attributes and children. Strings become text nodes; false and null are skipped.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {Record<string, string | number | boolean | EventListener>} [attributes] a function is a listener, `true` an
 *   attribute without a value, `false` none
 * @param {...(Node | string | false | null)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false) element.setAttribute(key, String(value));
  }
  for (const child of children) if (child !== null && child !== false) element.append(child);
  return element;
}

/**
 * Creates an SVG element.
 * @param {string} name
 * @param {Record<string, string | number>} [attributes]
 * @param {...Node} children
 */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/** Sets the text of a node, if it differs. @param {Node} node @param {string} words */
export function say(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

/** Sets an attribute, if it differs. @param {Element} element @param {string} name @param {string | null} value */
export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** The element with this id. @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element #${id}`);
  return found;
}

/** An element for a time, in the reader's time zone. @param {number} time @param {string} words */
export function timeElement(time, words) {
  const iso = new Date(time).toISOString();
  return h("time", { datetime: iso, title: iso.replace("T", " ").replace(/\.\d+Z/, " UTC") }, words);
}
