// The commands that create the first job, for an empty session.

import { SERVER } from "./caller.js";
import { byId, say } from "./dom.js";

/** The gRPC port if the server does not name it. */
const DEFAULT_PORT = 50051;
/** How long the button confirms that the commands were copied (ms). */
const COPIED_DURATION = 2000;

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
  // The session is a secret: it is copied but not shown.
  if (session === forSession) say(byId("first-commands"), commands(address, "…"));
}

button.addEventListener("click", async () => {
  const whole = commands(await (target ?? readTarget()), session);
  try {
    await navigator.clipboard.writeText(whole);
    say(button, "Copied");
    setTimeout(() => say(button, "Copy with the session"), COPIED_DURATION);
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

/** The gRPC address as seen from this browser. */
async function readTarget() {
  let port = DEFAULT_PORT;
  try {
    port = (await (await fetch(`${SERVER}server.json`)).json()).grpcPort;
  } catch {
    // The page is behind a proxy that does not pass on this path.
  }
  return `${new URL(SERVER).hostname}:${port}`;
}
