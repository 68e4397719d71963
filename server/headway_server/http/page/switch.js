// The dialog that asks before a link takes this tab to another session.

import { byId } from "./dom.js";

const dialog = /** @type {HTMLDialogElement} */ (byId("switch"));

/** Called if the reader agrees. Only the last link counts. @type {() => void} */
let agreed = () => {};

dialog.addEventListener("close", () => {
  if (dialog.returnValue === "switch") agreed();
});

/** @param {() => void} then */
export function askToSwitch(then) {
  agreed = then;
  dialog.returnValue = "";
  if (!dialog.open) dialog.showModal();
}
