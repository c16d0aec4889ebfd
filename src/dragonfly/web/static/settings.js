// The page /dashboard/settings: name, mail, address, password, and where one is signed in.

import { call } from "./api.js";
import { address, fill, h, language, one } from "./dom.js";
import { inside } from "./dashboard.js";
import { onPress, onSend } from "./form.js";
import { moment, usd } from "./format.js";
import { button, isSure, table } from "./parts.js";
import { showSecondFactor } from "./second-factor.js";
import { forget } from "./session.js";
import { word } from "./words.js";

await inside(async () => {
  onSend(one("profile"), saveProfile);
  onSend(one("mail"), saveMail);
  onSend(one("email-form"), changeEmail);
  onSend(one("password-form"), changePassword);
  onPress(one("everywhere"), one("sessions-section"), signOutEverywhere);
  const [me, preferences] = await Promise.all([
    call("GET", "/api/me"), call("GET", "/api/preferences"), reloadSessions(), reloadIdentities(),
  ]);
  const profile = one("profile").elements;
  profile.name.value = me.name;
  profile.language.value = me.language;
  one("account-id").textContent = me.id;
  one("email-now").textContent = me.email;
  one("password-user").value = me.email;
  showSecondFactor(me.second_factor);
  showMail(preferences);
});

function say(form, text) {
  form.querySelector("p[role=status]").textContent = text;
}

async function saveProfile({ name, language: chosen }) {
  await call("PATCH", "/api/me", { name: name.trim(), language: chosen });
  say(one("profile"), word("script.saved"));
  if (chosen !== language) location.assign(`${location.pathname}?lang=${chosen}`);
}

function showMail(preferences) {
  const fields = one("mail").elements;
  for (const [choice, isOn] of Object.entries(preferences.mail)) fields[choice].checked = isOn;
  fields.low_balance_usd.value = preferences.low_balance_usd ?? "";
  one("low_balance_usd-hint").textContent = word("script.low_balance_hint", { amount: usd(preferences.low_balance_default_usd) });
}

async function saveMail({ low_balance_usd }) {
  const fields = one("mail").elements;
  const mail = Object.fromEntries(["welcome", "low_balance", "announcements"].map((name) => [name, fields[name].checked]));
  showMail(await call("PATCH", "/api/preferences", { mail, low_balance_usd: low_balance_usd.trim() || null }));
  say(one("mail"), word("script.saved"));
}

async function changeEmail({ email }) {
  await call("POST", "/api/me/email", { email: email.trim() });
  say(one("email-form"), word("script.email_mailed", { email }));
}

async function changePassword({ password }) {
  await call("POST", "/api/me/password", { password });
  one("password-form").elements.password.value = "";
  say(one("password-form"), word("script.password_changed"));
  await reloadSessions();
}

async function reloadSessions() {
  const { data } = await call("GET", "/api/me/sessions");
  const heads = ["device", "address", "since", "used"].map((name) => word(`script.session_${name}`));
  const place = one("sessions");
  fill(place, table(word("script.sessions"), [...heads, ""], data.map((session) => [
    h("span", { class: "device" }, deviceOf(session.device)),
    session.ip,
    moment(session.created_at),
    moment(session.refreshed_at),
    session.current
      ? h("span", { class: "tag" }, word("script.session_here"))
      : button(word("script.session_end"), one("sessions-section"), async () => {
          await call("DELETE", `/api/me/sessions/${session.id}`);
          await reloadSessions();
        }),
  ])));
}

/** A short name out of what a browser says of itself; all of it when nothing is recognised. */
function deviceOf(text) {
  const browser = /(Firefox|Edg|OPR|Chrome|Safari)\/(\d+)/.exec(text.replace(/Version\/(\d+)[\d.]* .*Safari/, "Safari/$1"));
  const system = /(Windows|Android|iPhone|iPad|Mac OS X|CrOS|Linux)/.exec(text);
  if (!browser && !system) return text;
  const names = { Edg: "Edge", OPR: "Opera", "Mac OS X": "macOS", CrOS: "ChromeOS" };
  return [browser && `${names[browser[1]] ?? browser[1]} ${browser[2]}`, system && (names[system[1]] ?? system[1])].filter(Boolean).join(", ");
}

async function signOutEverywhere() {
  if (!(await isSure(word("script.everywhere_title"), word("script.everywhere_text"), word("script.everywhere_title")))) return;
  await call("DELETE", "/api/me/sessions");
  forget();
  location.replace(address("/sign-in"));
}

async function reloadIdentities() {
  const place = document.getElementById("identities");
  if (!place) return; // this installation knows no providers
  const { data } = await call("GET", "/api/me/identities");
  fill(place, place.dataset.providers.split(" ").map((provider) => {
    const found = data.find((identity) => identity.provider === provider);
    const title = h("strong", {}, provider[0].toUpperCase() + provider.slice(1));
    return h("p", { class: "row" }, h("span", {}, title, " ", found ? found.email : word("script.not_connected")), found
      ? button(word("script.disconnect"), one("identities-section"), async () => {
          await call("DELETE", `/api/me/identities/${provider}`);
          await reloadIdentities();
        })
      : button(word("script.connect"), one("identities-section"), async () => {
          const { url } = await call("POST", `/api/me/identities/${provider}`);
          location.assign(url);
        }));
  }));
}
