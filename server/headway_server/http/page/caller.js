// Who looks: the session and the token, from the address or from this tab. They leave neither.

/**
 * @typedef {import("./connect.js").Caller} Caller
 * @typedef {{caller: Caller, job: string}} Link `job` = "": the list of jobs.
 */

const KEPT = "headway.caller";
/** Letters at each end of a session that are shown; fewer of a short one, half of it at most. */
const SHOWN_EACH = 4;

/** This page's own server. */
export const SERVER = new URL(".", import.meta.url).href;

/**
 * What the address gives behind its #, which no server sees: `#session=…`, `#token=…`, and `job=…` where to begin. It
 * is taken out of the address, and so out of the tab's history, at once. Null if there is nothing of it.
 * @returns {Link | null}
 */
export function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [session, token, job] = ["session", "token", "job"].map((name) => given.get(name) ?? "");
  if (!session && !token) return null;
  history.replaceState(null, "", location.pathname);
  return { caller: caller(session, token), job };
}

/** A token alone is that of an admin, who sees all sessions. @param {string} session @param {string} token @returns {Caller} */
export function caller(session, token) {
  return { server: SERVER, session: session || (token ? "-" : ""), token };
}

/** What this tab was told before it was loaded again. @returns {Caller | null} */
export function fromTab() {
  const { session, token } = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
  return session ? caller(session, token) : null;
}

/** Keeps it for as long as this tab lives. @param {Caller} known */
export function keep(known) {
  sessionStorage.setItem(KEPT, JSON.stringify({ session: known.session, token: known.token }));
}

/** Enough of a session to tell it from another, and too little to use it: `ab…yz`. @param {string} session */
export function shortened(session) {
  const letters = [...session];
  const each = Math.min(SHOWN_EACH, Math.floor(letters.length / 4));
  return `${letters.slice(0, each).join("")}…${each ? letters.slice(-each).join("") : ""}`;
}

export function forget() {
  sessionStorage.removeItem(KEPT);
}
