// Looks up the words of the page's language.

const words = (await import(`./words-${document.documentElement.lang}.js`)).default;

/** The words of a key, with `values` in place of {…}. */
export function word(key, values = {}) {
  const text = words[key];
  if (text === undefined) throw new Error(`there are no words for ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** The words of a key that may be unknown, such as a kind that is newer than this page. */
export function wordOr(key, other) {
  return words[key] ?? other;
}

/** What to tell people about something that went wrong. */
export function troubleOf(error) {
  const known = words[`errors.${error.code}`];
  if (known !== undefined) return known.replace("{seconds}", String(error.retryAfterS ?? 60));
  if (error.code) return word("script.refused", { message: error.message });
  return word("script.unexpected");
}
