// The view Compare: the same prompt to this server and to another one.

import { Asking } from "./asking.js";
import { quote } from "./code.js";
import { marked, words } from "./difference.js";
import { announce, el, problem, say, seconds, visible } from "./elements.js";
import { bodyOf, clearProblem, isBusy, showProblem, submitByKey, whileBusy } from "./form.js";
import { statusChip } from "./panel.js";
import { refusal } from "./retry.js";
import { ApiError, healthOf, Server } from "./server.js";
import { Timeline } from "./timeline.js";

export class CompareView {
  #asking = null;
  #isStopped = false;

  constructor({ server, askForKey }) {
    this.server = server;
    this.askForKey = askForKey;
    this.form = document.getElementById("compare-form");
    this.place = document.getElementById("comparison");
    this.stop = this.form.querySelector(".stop");
    this.button = this.form.querySelector("button[type=submit]");
    this.form.elements.other.value = sessionStorage.getItem("other server") ?? "";
    document.getElementById("cors-command").textContent = this.#command();
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#compare();
    });
    this.stop.addEventListener("click", () => {
      this.#isStopped = true;
      this.#asking?.cancel().catch(() => {});
      this.#asking?.leave();
    });
    this.form.elements.other.addEventListener("change", () => this.#check());
    submitByKey(this.form);
  }

  #command() {
    return `demo-api serve --engine direct --port 8081 --cors-origins ${quote(location.origin)}`;
  }

  async #compare() {
    if (isBusy(this.button)) return;
    clearProblem(this.form);
    this.#isStopped = false;
    this.stop.hidden = false;
    await whileBusy(this.button, "Comparing…", () => this.#askBoth());
    if (document.activeElement === this.stop) this.button.focus();
    this.stop.hidden = true;
  }

  /** Says before the form is sent that the other server could not be asked. Who needs a key is asked for it later. */
  async #check() {
    clearProblem(this.form);
    if (!this.form.elements.other.value.trim()) return;
    const typed = this.form.elements.other.value;
    try {
      await this.#other().json("health");
    } catch (error) {
      const isCurrent = this.form.elements.other.value === typed && !isBusy(this.button);
      if (isCurrent) this.form.querySelector(".problem-place").replaceChildren(problem(error)); // the focus stays
    }
  }

  async #askBoth() {
    try {
      await this.#ask(await this.#other());
    } catch (error) {
      if (this.#isStopped) this.place.replaceChildren(el("p", {}, "Stopped."));
      else if (error.retryAfter && error.side) await this.#refuse(error, error.side);
      else showProblem(this.form, error);
    }
  }

  /** What passes by itself is no fault of the form. */
  async #refuse(error, side) {
    const health = await healthOf(side.server).catch(() => null);
    this.place.replaceChildren(refusal(error, health, () => this.#compare(), side.name));
  }

  #other() {
    const typed = this.form.elements.other.value.trim();
    const url = URL.canParse(typed) ? new URL(typed) : null;
    if (!url || !/^https?:$/.test(url.protocol) || url.username || url.search || url.hash) {
      throw new ApiError(null, { error: "This is not the address of a server.", field: "other", next_step: "Type one such as http://127.0.0.1:8081" });
    }
    sessionStorage.setItem("other server", typed);
    const nextStep = `Start it with: ${this.#command()}`;
    return new Server(url.href, this.askForKey, nextStep, typed);
  }

  async #ask(other) {
    const body = bodyOf(this.form);
    const sides = [new Side("This server", this.server), new Side("The other server", other)];
    const verdict = el("div", { class: "verdict" });
    this.place.replaceChildren(verdict, el("div", { class: "pair" }, sides.map((side) => side.element)));
    for (const side of sides) await side.learn();
    for (const side of sides) {
      if (this.#isStopped) throw new DOMException("stopped", "AbortError");
      this.#asking = new Asking(side.server, { onChange: (progress) => side.show(progress) });
      await this.#asking.stream(body, side.engine).catch((error) => {
        throw Object.assign(error, { side });
      });
    }
    verdict.replaceChildren(...judge(sides));
    announce(verdict.querySelector("h2").textContent);
  }
}

class Side {
  #timeline = new Timeline();

  constructor(name, server) {
    this.name = name;
    this.server = server;
    this.engine = null;
    this.progress = null;
    this.chip = el("span", {}, el("span", { class: "hint" }, "not asked yet"));
    this.what = el("p", { class: "hint" }, server.base);
    this.answer = el("div", { class: "answer" });
    this.element = el("section", { class: "card", "aria-label": name },
      el("div", { class: "top" }, el("h2", {}, name), this.chip), this.what, this.answer, this.#timeline.element);
  }

  /** Finds out what it is. A server with keys tells that only to those who have one. */
  async learn() {
    const health = await healthOf(this.server.insist());
    this.engine = health.engine ?? "demo";
    this.what.textContent = [visible(this.server.base), `${this.engine} engine`, health.model && visible(String(health.model))].filter(Boolean).join(" · ");
  }

  get seconds() {
    return this.progress.end.time_seconds;
  }

  show(progress) {
    this.progress = progress;
    this.chip.replaceChildren(statusChip(progress.status));
    this.#timeline.show(progress.rows());
    if (!progress.ended) say(this.answer, visible(progress.text));
    else if (progress.end.success) say(this.answer, visible(progress.end.response));
    else {
      this.answer.classList.add("none");
      this.answer.replaceChildren(problem(new ApiError(null, progress.end)));
    }
  }

  /** Marks what the other side does not have: underlined, and told to those who listen. */
  mark(pieces) {
    this.answer.replaceChildren(...pieces.flatMap(({ text, shared }) => {
      if (shared) return visible(text);
      const space = text.trim() ? text.slice(0, -text.trimStart().length) : ""; // a line under it would look like a word
      return [visible(space), el("mark", {}, el("span", { class: "for-ears" }, " [only here:] "), visible(text.slice(space.length)), el("span", { class: "for-ears" }, " [end] "))];
    }));
  }
}

function judge(sides) {
  if (!sides.every((side) => side.progress.end.success)) {
    return [el("h2", {}, "There is nothing to compare: not both have answered.")];
  }
  const [one, other] = sides.map((side) => side.progress.end.response);
  const parts = one === other ? [el("h2", { class: "same" }, "✓ The answers are the same, to the character.")] : difference(sides, one, other);
  return [...parts, bars(sides)];
}

function difference(sides, one, other) {
  const pieces = marked(one, other);
  sides.forEach((side, number) => side.mark(pieces[number]));
  const shared = words(pieces[0].filter((piece) => piece.shared).map((piece) => piece.text).join("")).length;
  const first = words(one).findIndex((word, number) => word !== words(other)[number]);
  const place = (first < 0 ? words(one).length : first) + 1;
  return [el("h2", { class: "different" }, `≠ The answers differ, from word ${place} on.`),
    el("p", {}, `${shared} ${shared === 1 ? "word is" : "words are"} in both; of this server's ${words(one).length} words and the other's ${words(other).length}, those that are underlined are in one only.`)];
}

function bars(sides) {
  const longest = Math.max(...sides.map((side) => side.seconds), 0.001);
  const [one, other] = sides.map((side) => side.seconds);
  const [slow, fast] = one >= other ? [one, other] : [other, one];
  const quicker = one >= other ? "The other server" : "This server";
  const times = el("ol", { class: "timeline wide", "aria-label": "Total times" }, sides.map((side, number) => {
    const fill = el("span", { class: "fill" });
    fill.style.width = `${(100 * side.seconds) / longest}%`;
    return el("li", { "data-state": "done", "data-part": number ? "other" : "this" }, el("span", { class: "label" }, side.name), el("span", { class: "track", "aria-hidden": "true" }, fill), el("span", { class: "figure" }, seconds(side.seconds)));
  }));
  const sentence = fast > 0 && slow > fast ? `${quicker} was ${(slow / fast).toFixed(1)} times as fast. Below, each bar is on a scale of its own.` : "";
  return el("div", { class: "card" }, el("h3", {}, "Times"), times, el("p", { class: "hint" }, sentence));
}
