// What an empty session shows: commands that create its first job.

import { SERVER } from "./caller.js";
import { byId, say } from "./dom.js";

/** Where gRPC is served if the server does not say. */
const DEFAULT_PORT = 50051;
/** How long the button says that the commands were copied (ms). */
const COPIED_FOR = 2000;

const STEPS = "for n in $(seq 20); do echo \"$n/20\"; sleep 0.5; done";

const button = byId("first-copy");
let session = "";
/** @type {Promise<string> | null} */
let target = null;

/** Shows the commands for this session, or hides them. @param {string} forSession "" hides them */
export async function showFirstJob(forSession) {
  byId("first").hidden = !forSession;
  if (session === forSession) return;
  session = forSession;
  if (!session) return;
  target ??= readTarget();
  const address = await target;
  // The session is a secret: it is copied, and not shown.
  if (session === forSession) say(byId("first-commands"), commands(address, "…"));
}

button.addEventListener("click", async () => {
  const whole = commands(await (target ?? readTarget()), session);
  try {
    await navigator.clipboard.writeText(whole);
    say(button, "Copied");
    setTimeout(() => say(button, "Copy with the session"), COPIED_FOR);
  } catch {
    // Only pages over HTTPS and on this machine may write to the clipboard.
    say(byId("first-commands"), whole);
    getSelection()?.selectAllChildren(byId("first-commands"));
  }
});

/** @param {string} address @param {string} id */
function commands(address, id) {
  return [
    `export HEADWAY_TARGET=${address}`,
    `export HEADWAY_SESSION='${id.replaceAll("'", "'\\''")}'`,
    `headway run --name 'First job' -- sh -c '${STEPS}'`,
  ].join("\n");
}

/** The gRPC address, as it is reached from here. */
async function readTarget() {
  let port = DEFAULT_PORT;
  try {
    port = (await (await fetch(`${SERVER}server.json`)).json()).grpcPort;
  } catch {
    // A proxy that serves only the page.
  }
  return `${new URL(SERVER).hostname}:${port}`;
}
