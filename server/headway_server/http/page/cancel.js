// The dialog that asks for the reason before a job is cancelled.

import { call } from "./connect.js";
import { byId, say } from "./dom.js";

const dialog = /** @type {HTMLDialogElement} */ (byId("cancel"));
const reason = /** @type {HTMLTextAreaElement} */ (byId("cancel-reason"));
const grace = /** @type {HTMLSelectElement} */ (byId("cancel-grace"));
const confirm = /** @type {HTMLButtonElement} */ (byId("cancel-confirm"));
const fault = byId("cancel-error");
const form = /** @type {HTMLFormElement} */ (byId("cancel-form"));

byId("cancel-back").addEventListener("click", () => dialog.close());

/** Closes the dialog, because its job is no longer shown. */
export function dismiss() {
  dialog.close();
}

/**
 * Asks the reader, then the server. Returns once the dialog is closed. The feed brings the change of the job, as it brings
 * every change.
 * @param {import("./connect.js").Caller} caller @param {import("./jobs.js").Job} job
 * @returns {Promise<void>}
 */
export function askToCancel(caller, job) {
  say(byId("cancel-name"), job.name || job.id);
  say(fault, "");
  reason.value = "";
  grace.value = "";
  confirm.disabled = false;
  form.onsubmit = async (event) => {
    event.preventDefault();
    confirm.disabled = true;
    say(fault, "");
    const request = { jobId: job.id, reason: reason.value.trim(), ...(grace.value && { gracePeriod: grace.value }) };
    try {
      await call(caller, "CancelJob", request);
      dialog.close();
    } catch (error) {
      say(fault, /** @type {Error} */ (error).message);
      confirm.disabled = false;
    }
  };
  dialog.showModal();
  reason.focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(), { once: true }));
}
