// Results and variables: any JSON value as a tree that unfolds, or as text.

import { h } from "./dom.js";

/** Items of one array or object that are shown at once. */
const STEP = 100;
/** A value with at most so many items, none of which is an array or object, begins unfolded. */
const SMALL = 20;

/** @typedef {null | boolean | number | string | unknown[] | Record<string, unknown>} Json */

/**
 * A value as a tree. A branch is created when it is unfolded, because results can be a megabyte.
 * @param {Json} value
 * @param {Map<string, boolean>} folds which branches the reader has unfolded or folded; the caller keeps it for the next drawing
 */
export function tree(value, folds) {
  const list = h("ul", { class: "tree" });
  if (isFolder(value)) fill(list, value, "", folds, 0);
  else list.append(h("li", {}, leaf(value)));
  return list;
}

/** The same value with sorted names, because the server's have no order. @param {any} value @returns {any} */
export function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isFolder(value)) return value;
  return Object.fromEntries(Object.entries(value).sort().map(([key, item]) => [key, sorted(item)]));
}

/** @param {Json} value */
export function raw(value) {
  return h("pre", { class: "raw said" }, JSON.stringify(value, null, 2));
}

/**
 * @param {HTMLUListElement} list @param {unknown[] | Record<string, unknown>} folder @param {string} path
 * @param {Map<string, boolean>} folds @param {number} from
 */
function fill(list, folder, path, folds, from) {
  const items = Object.entries(folder);
  for (const [key, value] of items.slice(from, from + STEP)) {
    const name = Array.isArray(folder) ? String(Number(key) + 1) : key;
    list.append(h("li", {}, node(name, /** @type {Json} */ (value), `${path}/${key}`, folds)));
  }
  const left = items.length - from - STEP;
  if (left <= 0) return;
  const unfold = () => {
    more.remove();
    fill(list, folder, path, folds, from + STEP);
  };
  const more = h("li", {}, h("button", { type: "button", click: unfold }, `${left} more`));
  list.append(more);
}

/** @param {string} key @param {Json} value @param {string} path @param {Map<string, boolean>} folds */
function node(key, value, path, folds) {
  const name = h("span", { class: "key said" }, key);
  if (!isFolder(value)) return h("div", {}, name, " ", leaf(value));
  const items = Object.values(value);
  const size = `${items.length} ${items.length === 1 ? "item" : "items"}`;
  const details = h("details", {}, h("summary", {}, name, " ", h("span", { class: "quiet" }, size)));
  const small = items.length <= SMALL && !items.some((item) => isFolder(/** @type {Json} */ (item)));
  const unfold = () => {
    if (details.querySelector("ul")) return;
    const list = h("ul", { class: "tree" });
    fill(list, value, path, folds, 0);
    details.append(list);
  };
  details.open = folds.get(path) ?? small;
  if (details.open) unfold();
  details.addEventListener("toggle", () => {
    if (details.open) unfold();
    folds.set(path, details.open);
  });
  return details;
}

/** @param {Json} value */
function leaf(value) {
  const kind = value === null ? "null" : typeof value;
  return h("span", { class: `value ${kind} said` }, kind === "string" ? String(value) : JSON.stringify(value));
}

/** @param {Json} value @returns {value is unknown[] | Record<string, unknown>} */
function isFolder(value) {
  return typeof value === "object" && value !== null;
}
