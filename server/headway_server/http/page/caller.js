// The session and the token of the reader, from the address or from this tab. They are sent to the server alone.

/**
 * @typedef {import("./connect.js").Caller} Caller
 * @typedef {{caller: Caller, job: string}} Link `job` = "": the list of jobs.
 */

const KEPT = "headway.caller";
/** Characters that are shown at each end of a session. Of a short session at most half is shown. */
const SHOWN_EACH = 4;

/** This page's own server. */
export const SERVER = new URL(".", import.meta.url).href;

/**
 * The session, token and job behind the # of the address, which no server sees: `#session=…`, `#token=…`, `job=…`. They
 * are removed from the address, and so from the tab's history, at once. Null if there are none.
 * @returns {Link | null}
 */
export function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [session, token, job] = ["session", "token", "job"].map((name) => given.get(name) ?? "");
  if (!session && !token) return null;
  history.replaceState(null, "", location.pathname);
  return { caller: caller(session, token), job };
}

/** A token without a session is an admin's, and shows all sessions. @param {string} session @param {string} token @returns {Caller} */
export function caller(session, token) {
  return { server: SERVER, session: session || (token ? "-" : ""), token };
}

/** The caller that this tab stored before it was reloaded. @returns {Caller | null} */
export function fromTab() {
  const { session, token } = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
  return session ? caller(session, token) : null;
}

/** Stores it until the tab is closed. @param {Caller} known */
export function keep(known) {
  sessionStorage.setItem(KEPT, JSON.stringify({ session: known.session, token: known.token }));
}

/** Enough of a session to tell it from another, and too little to use it: `ab…yz`. @param {string} session */
export function shortened(session) {
  const characters = [...session];
  const each = Math.min(SHOWN_EACH, Math.floor(characters.length / 4));
  return `${characters.slice(0, each).join("")}…${each ? characters.slice(-each).join("") : ""}`;
}

export function forget() {
  sessionStorage.removeItem(KEPT);
}
