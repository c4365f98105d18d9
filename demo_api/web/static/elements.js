// Making what is shown. Texts go in as text nodes only, so nothing that a model or a person wrote becomes markup.

/**
 * A new element. Properties: `class`, `on` (listeners by event), and attributes; one that is false or null is left out.
 * Children that are strings become text.
 */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(key, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== false));
  return element;
}

// Controls of terminals, and what turns the direction of text round: a reader must see that they are there.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069]/g;

/** The text with characters that have no shape of their own made visible: U+001B as ␛. */
export function visible(text) {
  return text.replace(HIDDEN, (character) => {
    const code = character.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return code === 0x7f ? "\u2421" : `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  });
}

/** Replaces an element's text, if it is another one: who has selected some of it keeps the selection otherwise. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A number for people: as many digits as it is worth; null is unknown. */
export function figure(value, digits = 2) {
  return value === null || value === undefined ? "unknown" : value.toFixed(digits);
}

/** Seconds for people. */
export function seconds(value) {
  if (value === null || value === undefined) return "unknown";
  if (value < 10) return `${value.toFixed(2)} s`;
  if (value < 100) return `${value.toFixed(1)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

/** The range of an estimate for people. */
export function range({ low_seconds: low, high_seconds: high }) {
  const digits = high < 10 ? 1 : 0;
  const [from, to] = [low.toFixed(digits), high.toFixed(digits)];
  return from === to ? `${to} s` : `${from} to ${to} s`;
}

/** A button that saves a value as a file of JSON; `read` gives it, or a promise of it. */
export function saveButton(words, name, read, onError) {
  const save = async () => {
    const text = `${JSON.stringify(await read(), null, 2)}\n`;
    const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may still be asking where to save it
  };
  return el("button", { type: "button", on: { click: () => save().catch(onError) } }, words);
}

/** A button that copies a text, also where the browser lets a page only select it. */
export function copyButton(what, text, shown) {
  const button = el("button", { type: "button", class: "small", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    let told = "Copied";
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      window.getSelection().selectAllChildren(shown);
      told = "Selected: press Ctrl+C";
    }
    button.textContent = told;
    announce(told);
    setTimeout(() => say(button, "Copy"), 2500);
  });
  return button;
}

let lastAnnounced = 0;
let waiting = null;

/** Tells users of screen readers; of what comes faster than they can listen only the latest. */
export function announce(sentence) {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    lastAnnounced = Date.now();
    document.getElementById("announcer").textContent = sentence;
  }, Math.max(50, lastAnnounced + 1500 - Date.now()));
}

/** What went wrong, as the API tells it: the sentence, and the next step. */
export function problem(error) {
  const lines = [el("p", { class: "what" }, visible(error.message))];
  if (error.nextStep) lines.push(el("p", {}, el("b", {}, "Next step: "), visible(error.nextStep)));
  const told = [error.status, error.code, error.retryAfter && `again in ${error.retryAfter} s`, error.requestId && `request ${error.requestId}`].filter(Boolean).join(" · ");
  if (told) lines.push(el("p", { class: "told" }, visible(told)));
  return el("div", { class: "problem", role: "alert" }, lines);
}
