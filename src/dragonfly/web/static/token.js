// Takes the token of a mail's link out of the address bar and the history, before anything else happens.

/** The token behind '#'; "" when there is none. */
export const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? "";

if (token) history.replaceState(null, "", location.pathname + location.search);

// A link that differs from this page only behind '#' loads nothing by itself.
addEventListener("hashchange", () => location.hash.includes("token=") && location.reload());
