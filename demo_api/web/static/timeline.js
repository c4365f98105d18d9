// Where the time of a run goes: a row for each part, which fills while the run goes on.

import { el, say, seconds } from "./elements.js";

// What is done meanwhile, where a label does not say it.
const DOING = { queue: "waiting in the queue" };

const STATES = { ahead: "not yet", now: "now", done: "done" };

export class Timeline {
  #rows = new Map();

  constructor() {
    this.element = el("ol", { class: "timeline", "aria-label": "Where the time goes" });
  }

  /** Shows the rows of a progress, on a scale that ends with them. */
  show(rows) {
    const total = Math.max(0.05, ...rows.map((row) => (row.begin ?? 0) + (row.seconds ?? 0)));
    const labels = new Set(rows.map((row) => row.label));
    for (const [label, shown] of this.#rows) {
      if (!labels.has(label)) {
        shown.item.remove();
        this.#rows.delete(label);
      }
    }
    for (const row of rows) this.#show(row, total);
  }

  #show(row, total) {
    const shown = this.#rows.get(row.label) ?? this.#add(row);
    if (shown.item.dataset.state !== row.state) shown.item.dataset.state = row.state;
    say(shown.state, `${STATES[row.state]}: `);
    say(shown.figure, row.seconds === null ? "–" : seconds(row.seconds));
    shown.bar.style.left = `${(100 * (row.begin ?? 0)) / total}%`;
    shown.bar.style.width = `${(100 * (row.seconds ?? 0)) / total}%`;
  }

  #add(row) {
    const state = el("span", { class: "for-ears" });
    const bar = el("span", { class: "fill" });
    const amount = el("span", { class: "figure" });
    const label = el("span", { class: "label", title: row.words }, state, row.label);
    const item = el("li", { "data-part": row.part }, label, el("span", { class: "track", "aria-hidden": "true" }, bar), amount);
    this.element.append(item);
    const shown = { item, state, bar, figure: amount };
    this.#rows.set(row.label, shown);
    return shown;
  }
}

/** One bar with a segment for each part, its share written where there is room. */
export function shares(rows) {
  const total = rows.reduce((sum, row) => sum + row.seconds, 0);
  if (!total) return null;
  const bar = el("div", { class: "shares", "aria-hidden": "true" });
  rows.forEach((row) => {
    const share = row.seconds / total;
    const percent = `${Math.round(100 * share)} %`;
    const hasRoom = 100 * share > 3 + 1.1 * row.label.length;
    const title = `${row.label}: ${seconds(row.seconds)}, ${percent}`;
    const segment = el("span", { "data-part": row.part, title }, hasRoom ? row.label : "");
    segment.style.flexGrow = String(share);
    bar.append(segment);
  });
  const largest = rows.reduce((one, other) => (other.seconds > one.seconds ? other : one));
  const sentence = `Longest: ${DOING[largest.part] ?? largest.label.toLowerCase()} (${seconds(largest.seconds)}, ${Math.round((100 * largest.seconds) / total)} %)`;
  return el("div", {}, bar, el("p", { class: "hint" }, sentence));
}
