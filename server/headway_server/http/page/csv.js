// Record errors as a file for spreadsheets.

const BYTE_ORDER_MARK = "\ufeff"; // without it Excel takes the file for Latin-1

/** Characters that begin a formula in a spreadsheet, with their wide forms. */
const FORMULA = /^\s*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n|%]/u;

/**
 * Rows as CSV (RFC 4180). An apostrophe before a formula makes it text.
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

/** Makes the browser save a text as a file. @param {string} name @param {string} content @param {string} type */
export function save(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
