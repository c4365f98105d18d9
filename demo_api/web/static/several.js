// Several prompts at once: each is shown with its answer, and above them what it was to ask for them together.

import { Asking } from "./asking.js";
import { announce, el, problem, say, seconds, visible } from "./elements.js";
import { speed, statusChip } from "./panel.js";
import { ENDED } from "./progress.js";
import { ApiError } from "./server.js";

const AT_ONCE = 4; // a browser opens six connections to a server, and the page has other requests too

export class Several {
  #started = performance.now();
  #isStopped = false;
  #hasLooked = false;

  /**
   * @param asked the fields of each prompt's request; or the records of accepted runs
   * @param engine the one that answers; `demo` has accepted the runs
   */
  constructor(server, engine, asked) {
    this.server = server;
    this.engine = engine;
    this.items = asked.map((fields) => new Item(server, engine, fields, () => this.#draw()));
    this.summary = el("p", { class: "facts", role: "status" });
    this.cancel = el("button", { type: "button", class: "cancel", on: { click: () => this.#cancel() } }, "Cancel all");
    this.element = el("section", { class: "several", "aria-label": "Answers" },
      el("div", { class: "card top" }, el("h2", {}, `${asked.length} prompts`), this.summary, this.cancel),
      el("ol", {}, this.items.map((item) => item.element)));
  }

  /** Follows them all to their ends. */
  async run() {
    this.#draw();
    const waiting = [...this.items];
    const work = async () => {
      while (waiting.length && !this.#isStopped) await waiting.shift().run();
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    this.#drawEnd();
  }

  /** Nobody looks any more. */
  leave() {
    this.#isStopped = true;
    for (const item of this.items) item.asking.leave();
  }

  async #cancel() {
    this.#isStopped = this.engine === "direct"; // runs that were accepted are followed to their ends
    await Promise.all(this.items.map((item) => item.cancel()));
  }

  #draw() {
    say(this.summary, this.#words());
    if (this.#sizes.length && !this.#hasLooked) this.#look();
  }

  /** The sizes of the batches; the model in memory has none. */
  get #sizes() {
    if (this.engine === "direct") return [];
    return [...new Set(this.items.map((item) => item.asking.progress?.batchSize).filter(Boolean))];
  }

  #words(took = "") {
    const ended = this.items.filter((item) => item.hasEnded).length;
    const [size, ...others] = this.#sizes;
    const batches = size === this.items.length ? ", in one batch" : size ? `, in batches of ${[size, ...others].join(" and ")}` : "";
    return `${ended} of ${this.items.length} ended${took}${batches}`;
  }

  /** Of runs that are not followed yet only the list tells that they run; once is enough, a batch starts together. */
  async #look() {
    this.#hasLooked = true;
    const page = await this.server.json("runs?status=running&limit=200").catch(() => ({ runs: [] }));
    for (const { run_id: runId } of page.runs) this.items.find((item) => item.asked.run_id === runId)?.showRunning();
  }

  #drawEnd() {
    this.cancel.remove();
    const took = (performance.now() - this.#started) / 1000;
    const tokens = this.items.reduce((sum, item) => sum + (item.asking.progress?.end?.tokens_generated ?? 0), 0);
    const speedOfAll = tokens ? ` · ${tokens} tokens, ${(tokens / took).toFixed(1)} tokens/s together` : "";
    say(this.summary, this.#words(` in ${seconds(took)}`) + speedOfAll);
    announce(this.summary.textContent);
  }
}

class Item {
  constructor(server, engine, asked, onChange) {
    this.asked = asked;
    this.engine = engine;
    this.server = server;
    this.asking = new Asking(server, {
      onChange: (progress) => {
        this.#show(progress);
        onChange();
      },
      onTrouble: (wait) => say(this.facts, wait === null ? "" : `Server unreachable. Trying again in ${wait} s.`),
    });
    this.chip = el("span", {}, statusChip("queued"));
    this.facts = el("span", { class: "facts" });
    this.answer = el("div", { class: "answer", hidden: true });
    const link = engine === "demo" && el("a", { href: `#runs/${asked.run_id}` }, "Show the run");
    this.element = el("li", { class: "card" },
      el("p", { class: "asked" }, visible(asked.prompt)), el("div", { class: "top" }, this.chip, this.facts, link), this.answer);
  }

  get hasEnded() {
    return this.asking.progress?.ended ?? false;
  }

  async run() {
    try {
      if (this.engine === "demo") await this.#follow();
      else await this.asking.stream(this.asked, this.engine);
    } catch (error) {
      if (error.name !== "AbortError") this.#fail(error);
    }
  }

  /** One that was accepted before, under the same key, may have ended. */
  async #follow() {
    if (ENDED.includes(this.asked.status)) this.asking.end(this.asked);
    else await this.asking.follow(this.asked);
  }

  async cancel() {
    if (this.hasEnded) return;
    if (this.asking.progress) await this.asking.cancel().catch((error) => this.#fail(error));
    else if (this.engine === "demo") await this.server.post(`runs/${this.asked.run_id}/cancel`).catch(() => {});
    else this.chip.replaceChildren(statusChip("cancelled"));
  }

  showRunning() {
    if (this.asking.progress === null) this.chip.replaceChildren(statusChip("running"));
  }

  #show(progress) {
    const { end } = progress;
    this.chip.replaceChildren(statusChip(progress.status));
    say(this.facts, !end ? speed(progress) : end.success ? `${end.tokens_generated ?? "unknown"} tokens in ${seconds(end.time_seconds)}` : "");
    if (end && !end.success) this.#fail(new ApiError(null, end));
    else this.#say(end ? end.response || "The answer is empty." : progress.text);
  }

  #say(text) {
    this.answer.hidden = text === "";
    say(this.answer, visible(text));
  }

  #fail(error) {
    this.answer.hidden = false;
    this.answer.classList.add("none");
    this.answer.replaceChildren(problem(error));
  }
}
