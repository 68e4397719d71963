// Record errors as a file for spreadsheets.

const BYTE_ORDER_MARK = "\ufeff"; // without it Excel takes the file for Latin-1

/** What a spreadsheet takes for a formula, in its wide forms too. */
const FORMULA = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n|%]/u;

/**
 * Rows as CSV (RFC 4180). Whatever a spreadsheet would carry out stands behind an apostrophe, as text.
 * @param {(string | number)[][]} rows
 */
export function csv(rows) {
  return BYTE_ORDER_MARK + rows.map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** @param {string | number} value */
function cell(value) {
  if (typeof value === "number") return String(value);
  const text = FORMULA.test(value) ? `'${value}` : value;
  return `"${text.replaceAll('"', '""')}"`;
}

/** Has the browser save a text as a file. @param {string} name @param {string} content @param {string} type */
export function save(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
