// One run as it goes on, and what it came to.

import * as curl from "./curl.js";
import { announce, copyButton, el, figure, problem, say, seconds, visible } from "./elements.js";
import { logPart } from "./log.js";
import { ApiError } from "./server.js";
import { shares, Timeline } from "./timeline.js";

export const STATUS_WORDS = {
  queued: "queued", running: "running", succeeded: "succeeded", failed: "failed", cancelled: "cancelled", timed_out: "timed out",
};

const FINISH_WORDS = { stop: "ended by itself", length: "cut at max tokens" };

/** A status as a word with a sign: not by its colour alone. */
export function statusChip(status) {
  return el("span", { class: "chip", "data-status": status }, STATUS_WORDS[status] ?? status);
}

export class Panel {
  #timeline = new Timeline();
  #told = null;
  #timer = null;

  /**
   * @param server the one that runs it
   * @param onCancel cancels it
   * @param onAgain asks for the same once more; null where that cannot be
   * @param level of its headings
   */
  constructor(server, { onCancel, onAgain = null, level = 2 }) {
    this.server = server;
    this.onAgain = onAgain;
    this.level = level;
    this.chip = el("span", {});
    this.place = el("p", { class: "place-in-line" });
    this.facts = el("p", { class: "facts" });
    this.trouble = el("p", { class: "trouble", role: "status", hidden: true });
    this.answer = el("div", { class: "answer" });
    this.answerTitle = this.#title("Text so far");
    this.cancel = el("button", { type: "button", class: "cancel", on: { click: onCancel } }, "Cancel");
    this.ending = el("div", {});
    this.top = el("div", { class: "top" }, this.chip, this.place, this.facts, this.cancel);
    this.timeTitle = this.#title("Timeline");
    this.times = el("div", { class: "times" }, this.timeTitle, this.#timeline.element);
    this.element = el("article", { class: "card panel" }, this.top, this.trouble, this.answerTitle, this.answer, this.times, this.ending);
  }

  #title(words) {
    return el(`h${this.level}`, { tabindex: "-1" }, words);
  }

  /** Shows a course, and from now on how its time goes by. */
  show(course) {
    this.course = course;
    this.#draw();
    if (course.ended) this.stop();
    else this.#timer ??= setInterval(() => this.#timeline.show(this.course.rows()), 100);
  }

  /** The time no longer goes by. */
  stop() {
    clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Says that the connection was lost, and that it is there again. */
  showTrouble(wait, error) {
    this.trouble.hidden = false;
    this.trouble.textContent = wait === null
      ? "Connected again: nothing was missed."
      : `${error?.status ? visible(error.message) : "Server unreachable."} If it is still running, your run continues. Trying again in ${wait} s.`;
  }

  /** Shows that something about the run could not be done. */
  fail(error) {
    this.stop();
    this.ending.prepend(problem(error));
  }

  #draw() {
    const { course } = this;
    if (this.#told?.status !== course.status) this.chip.replaceChildren(statusChip(course.status));
    say(this.place, course.position === null ? "" : `Place ${course.position} in the queue`);
    say(this.facts, course.ended ? "" : this.#progress());
    this.#timeline.show(course.rows());
    if (course.ended) this.#drawEnd();
    else {
      say(this.answer, visible(course.text));
      this.answerTitle.hidden = this.answer.hidden = !course.text;
    }
    this.#tell();
  }

  #progress() {
    const { course } = this;
    const rate = course.rate === null ? "" : `${course.rate.toFixed(1)} tokens/s`;
    const count = course.iteration === null ? "" : `token ${course.iteration} of at most ${course.asked.max_tokens ?? 128}`;
    return [rate, count, course.device && course.device !== "device" && `on ${course.device}`].filter(Boolean).join(" · ");
  }

  /** Every change is told once to those who listen. */
  #tell() {
    const { course } = this;
    const now = { status: course.status, phase: course.phase?.name, position: course.position };
    const was = this.#told;
    this.#told = now;
    if (was !== null && course.ended && was.status !== now.status) {
      announce(course.end.success ? `Answered in ${seconds(course.end.time_seconds)}.` : `The run ${STATUS_WORDS[course.status]}.`);
    } else if (!course.ended && (was?.phase !== now.phase || was?.position !== now.position || was?.status !== now.status)) {
      const row = course.rows().findLast((each) => each.state === "now");
      if (row) announce(now.position === null ? `${row.label}: ${row.words}.` : `Place ${now.position} in the queue.`);
    }
  }

  #drawEnd() {
    if (this.element.dataset.ended) return;
    this.element.dataset.ended = "yes";
    const { course } = this;
    const { end } = course;
    if (end.finish_reason === "length") this.chip.append(" ", el("span", { class: "chip", "data-status": "cut" }, FINISH_WORDS.length));
    const hadFocus = this.cancel.contains(document.activeElement);
    this.cancel.remove();
    this.trouble.hidden = true;
    if (this.onAgain) this.top.append(el("button", { type: "button", class: "again", on: { click: this.onAgain } }, "Run again"));
    this.answerTitle.hidden = this.answer.hidden = false;
    if (end.success) {
      this.answerTitle.replaceChildren("Answer ", copyButton("the answer", () => end.response, this.answer));
      this.answer.replaceChildren(end.response === "" ? el("i", {}, "The answer is empty.") : visible(end.response));
      if (end.note) this.answer.after(el("p", { class: "hint" }, end.note));
    } else {
      this.answerTitle.textContent = "No answer";
      this.answer.classList.add("none");
      const told = { error: end.error, code: end.code, next_step: end.next_step };
      this.answer.replaceChildren(problem(new ApiError(null, told)));
    }
    if (hadFocus) this.answerTitle.focus();
    this.#drawTimes();
    this.ending.replaceChildren(this.#metrics(), ...this.#parts());
  }

  #drawTimes() {
    const rows = this.course.rows();
    this.timeTitle.textContent = "Where the time went";
    this.times.hidden = !rows.length;
    const bar = shares(rows);
    if (bar) this.timeTitle.after(bar);
    const { warm, startup_ahead_seconds: ahead } = this.course.end.timing ?? {};
    if (warm && warm !== "off") {
      const sentence = `The child was started ahead of this run: ${seconds(ahead)} of its start-up were over when the run came.`;
      this.times.append(el("p", { class: "hint" }, sentence));
    }
  }

  #metrics() {
    const { end } = this.course;
    const timing = end.timing ?? {};
    const facts = [
      ["Total", seconds(end.time_seconds), "from accepted to finished"],
      ["Tokens", end.tokens_generated ?? "unknown", FINISH_WORDS[end.finish_reason] ?? ""],
      ["Tokens/s", figure(end.tokens_per_second), "of the total"],
      ["Decode", timing.decode_tokens_per_second == null ? "unknown" : `${timing.decode_tokens_per_second.toFixed(1)} tokens/s`, "the engine's own figure"],
      ["First token", timing.ttft_ms == null ? "unknown" : `${timing.ttft_ms.toFixed(0)} ms`, "the engine's own figure"],
      ["Model", end.model ?? "unknown", end.device ? `on ${end.device}` : ""],
    ];
    const shown = end.success ? facts : facts.filter(([, value]) => value !== "unknown");
    return el("dl", { class: "metrics" }, shown.map(([name, value, words]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, visible(String(value)), words && el("span", { class: "hint" }, visible(words))))));
  }

  #parts() {
    const { course, server } = this;
    const fields = curl.fieldsOf(course.asked);
    const runId = course.asked.run_id ?? course.end.run_id;
    const isDemo = course.engine === "demo";
    const parts = [["In one request, which waits for the answer", curl.post(server, "chat", fields)]];
    if (isDemo) {
      parts.push(["As this page did it: accepted at once (202), then followed", curl.post(server, "runs", fields)],
        ["Its events, live or after the fact", curl.get(server, `runs/${runId}/events`, "-N")],
        ["Its record, and all that was printed", `${curl.get(server, `runs/${runId}`)}\n${curl.get(server, `runs/${runId}/log`)}`]);
    } else parts.push(["As this page did it: the text token by token", curl.post(server, "chat/stream", fields).replace("curl ", "curl -N ")]);
    const commands = el("details", { class: "part curl", open: true }, el("summary", {}, "The same with curl"),
      parts.map(([words, command]) => commandBlock(words, command)));
    return isDemo ? [commands, logPart(server, runId)] : [commands];
  }
}

function commandBlock(words, command) {
  const shown = el("pre", { tabindex: "0", role: "region", "aria-label": words }, command);
  return el("div", { class: "command" }, el("p", {}, words, " ", copyButton(`the command: ${words}`, () => command, shown)), shown);
}
