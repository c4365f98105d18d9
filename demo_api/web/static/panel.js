// One run as it goes on, and what it came to.

import { Code, fieldsOf, get, post } from "./code.js";
import { announce, copyButton, el, figure, problem, range, saveButton, say, seconds, visible } from "./elements.js";
import { logPart } from "./log.js";
import { ApiError } from "./server.js";
import { shares, Timeline } from "./timeline.js";

export const STATUS_WORDS = {
  queued: "queued", running: "running", succeeded: "succeeded", failed: "failed", cancelled: "cancelled", timed_out: "timed out",
};

export const FINISH_WORDS = { stop: "ended by itself", length: "cut at max tokens" };

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
    this.elapsed = el("p", { class: "elapsed" });
    this.place = el("p", { class: "position" });
    this.facts = el("p", { class: "facts" });
    this.trouble = el("p", { class: "trouble", role: "status", hidden: true });
    this.answer = el("div", { class: "answer" });
    this.answerTitle = this.#title("Text so far");
    this.cancel = el("button", { type: "button", class: "cancel", on: { click: onCancel } }, "Cancel");
    this.ending = el("div", {});
    this.top = el("div", { class: "top" }, this.chip, this.elapsed, this.place, this.facts, this.cancel);
    this.timeTitle = this.#title("Timeline");
    this.times = el("div", { class: "times" }, this.timeTitle, this.#timeline.element);
    this.element = el("article", { class: "card panel" }, this.top, this.trouble, this.answerTitle, this.answer, this.times, this.ending);
  }

  #title(words) {
    return el(`h${this.level}`, { tabindex: "-1" }, words);
  }

  /** Shows a progress, and from now on how its time goes by. */
  show(progress) {
    this.progress = progress;
    this.#draw();
    if (progress.ended) this.stop();
    else this.#timer ??= setInterval(() => this.#drawTime(), 100);
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
    const { progress } = this;
    if (this.#told?.status !== progress.status) this.chip.replaceChildren(statusChip(progress.status));
    say(this.place, progress.position === null ? "" : `Place ${progress.position} in the queue`);
    say(this.facts, progress.ended ? "" : speed(progress));
    this.#drawTime();
    if (progress.ended) this.#drawEnd();
    else {
      say(this.answer, visible(progress.text));
      this.answerTitle.hidden = this.answer.hidden = !progress.text;
    }
    this.#tell();
  }

  #drawTime() {
    const { progress } = this;
    this.#timeline.show(progress.rows());
    const { elapsed, estimate } = progress;
    const usually = estimate && progress.status === "running" && `usually ${range(estimate)}, by ${estimate.runs} earlier runs`;
    say(this.elapsed, progress.ended || elapsed === null ? "" : [`${elapsed.toFixed(1)} s`, usually].filter(Boolean).join(" · "));
  }

  /** Every change is told once to those who listen. */
  #tell() {
    const { progress } = this;
    const now = { status: progress.status, phase: progress.phase?.name, position: progress.position };
    const was = this.#told;
    this.#told = now;
    if (was !== null && progress.ended && was.status !== now.status) {
      announce(progress.end.success ? `Answered in ${seconds(progress.end.time_seconds)}.` : `The run ${STATUS_WORDS[progress.status]}.`);
    } else if (!progress.ended && (was?.phase !== now.phase || was?.position !== now.position || was?.status !== now.status)) {
      const row = progress.rows().findLast((each) => each.state === "now");
      if (row) announce(now.position === null ? `${row.label}: ${row.words}.` : `Place ${now.position} in the queue.`);
    }
  }

  #drawEnd() {
    if (this.element.dataset.ended) return;
    this.element.dataset.ended = "yes";
    const { progress } = this;
    const { end } = progress;
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
    const rows = this.progress.rows();
    this.timeTitle.textContent = "Where the time went";
    this.times.hidden = !rows.length;
    const bar = shares(rows);
    if (bar) this.timeTitle.after(bar);
    const { warm, startup_ahead_seconds: ahead } = this.progress.end.timing ?? {};
    if (warm && warm !== "off") {
      const child = warm === "model" ? "A warm child with the model loaded" : "A warm child";
      const sentence = `${child}: ${seconds(ahead)} of its start-up was done before the request.`;
      this.times.append(el("p", { class: "hint" }, sentence));
    }
  }

  #metrics() {
    const { end } = this.progress;
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
    const { progress, server } = this;
    const fields = fieldsOf(progress.asked);
    const runId = progress.asked.run_id ?? progress.end.run_id;
    const isDemo = progress.engine === "demo";
    const parts = [["In one request, which waits for the answer", [post("chat", fields)]]];
    if (isDemo) {
      parts.push(["As this page did it: accepted at once (202), then followed", [post("runs", fields)]],
        ["Its events, live or after the fact", [get(`runs/${runId}/events`, { streams: true })]],
        ["Its record, and all that was printed", [get(`runs/${runId}`), get(`runs/${runId}/log`)]]);
    } else parts.push(["As this page did it: the text token by token", [post("chat/stream", fields, { streams: true })]]);
    const read = () => (isDemo ? server.insist().json(`runs/${runId}`) : { ...progress.asked, ...progress.end });
    const save = el("p", { class: "actions" }, saveButton("Download as JSON", `${runId ?? "run"}.json`, read, (error) => this.fail(error)));
    const code = el("details", { class: "part", open: true }, el("summary", {}, "The same in code"), new Code(server).show(parts).element);
    return isDemo ? [save, code, logPart(server, runId)] : [save, code];
  }
}

/** How far the model is: that it reads the prompt, or how fast it writes. */
export function speed(progress) {
  const rate = progress.rate === null ? "" : `${progress.rate.toFixed(1)} tokens/s`;
  const count = progress.tokens === null ? "" : `token ${progress.tokens} of at most ${progress.mostTokens}`;
  const device = progress.device && progress.device !== "device" && `on ${progress.device}`;
  return [progress.isReading && "reading the prompt", rate, count, device].filter(Boolean).join(" · ");
}
