// A refusal that says when to come back: counted down, with a button that does not wait.

import { el, say, visible } from "./elements.js";

/**
 * Shows the refusal. The countdown ends at the button, or when the element is gone.
 *
 * @param health of the server that refused, or null
 * @param retry is called by the button
 * @param name of the server, where there are two
 */
export function refusal(error, health, retry, name = null) {
  const queue = error.code === "queue_full" ? health?.queue : null;
  const sentence = queue ? `The queue is full (${queue.waiting} of ${queue.limit}).` : visible(error.message);
  const what = name ? `${name}: ${sentence}` : sentence;
  const when = el("span", {});
  const until = Date.now() + 1000 * error.retryAfter;
  const button = el("button", { type: "button", on: { click: retry } }, "Retry");
  const element = el("div", { class: "card" },
    el("div", { class: "problem", role: "alert" }, el("p", { class: "what" }, what)),
    el("p", {}, when), el("p", { class: "actions" }, button));
  const count = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    say(when, left > 0 ? `Try again in ${left} s.` : "Try again now.");
    if (left <= 0) clearInterval(timer);
  };
  const timer = setInterval(() => (element.isConnected ? count() : clearInterval(timer)), 250);
  count();
  return element;
}
