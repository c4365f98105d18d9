// All that a run's child has printed: read when it is opened, searched, copied.

import { copyButton, el, problem, visible } from "./elements.js";

const SHOWN = 500_000; // characters; more makes a browser slow
const MARKED = 2_000;
let opened = 0;

/** A part of the page that opens. */
export function logPart(server, runId) {
  const place = el("div", { class: "log" });
  const part = el("details", { class: "part" }, el("summary", {}, "All that was printed"), place);
  part.addEventListener("toggle", async () => {
    if (!part.open) return;
    try {
      place.replaceChildren(...viewer(await (await server.insist().fetch(`runs/${runId}/log`)).text()));
    } catch (error) {
      place.replaceChildren(problem(error));
    }
  });
  return part;
}

function viewer(whole) {
  const text = whole.slice(-SHOWN);
  const shown = el("pre", { tabindex: "0", role: "region", "aria-label": "Log" }, visible(text));
  const id = `log-search-${(opened += 1)}`;
  const search = el("input", { type: "search", id, spellcheck: "false" });
  const found = el("span", { class: "hint", role: "status" });
  const finder = new Finder(visible(text), shown);
  search.addEventListener("input", () => (found.textContent = finder.find(search.value)));
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    found.textContent = finder.step(event.shiftKey ? -1 : 1);
  });
  const tools = el("div", { class: "tools" }, el("label", { for: id }, "Search"), search, found,
    copyButton("the log", () => whole, shown));
  const cut = whole.length > SHOWN && el("p", { class: "hint" }, `The last ${SHOWN} of ${whole.length} characters are shown; Copy takes all.`);
  return [tools, cut, shown].filter(Boolean);
}

class Finder {
  #marks = [];
  #current = -1;

  constructor(text, shown) {
    this.text = text;
    this.lower = text.toLowerCase();
    this.shown = shown;
  }

  /** Marks every place. Returns what to tell. */
  find(wanted) {
    const needle = wanted.toLowerCase();
    const parts = [];
    this.#marks = [];
    let from = 0;
    // Lower case may have another length in some languages: then places would be wrong, and case counts.
    const hay = this.lower.length === this.text.length ? this.lower : this.text;
    for (let at; needle && this.#marks.length < MARKED && (at = hay.indexOf(needle, from)) >= 0; from = at + needle.length) {
      const mark = el("mark", {}, this.text.slice(at, at + needle.length));
      parts.push(this.text.slice(from, at), mark);
      this.#marks.push(mark);
    }
    this.shown.replaceChildren(...parts, this.text.slice(from));
    this.#current = -1;
    return needle ? this.step(1) : "";
  }

  /** Goes to the next place, or the one before. */
  step(by) {
    const count = this.#marks.length;
    if (!count) return "not found";
    this.#marks[this.#current]?.classList.remove("current");
    this.#current = (this.#current + by + count) % count;
    const mark = this.#marks[this.#current];
    mark.classList.add("current");
    this.shown.scrollTop = mark.offsetTop - this.shown.clientHeight / 2; // style.css makes the log what offsets count from
    return `${this.#current + 1} of ${count === MARKED ? `the first ${MARKED}` : count}`;
  }
}
