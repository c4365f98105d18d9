// The view Ask: a form, and the run that came of it.

import { Asking, newKey } from "./asking.js";
import { Course } from "./course.js";
import { bodyOf, clearProblem, fill, isBusy, showProblem, submitByKey, whileBusy } from "./form.js";
import { fieldsOf, post } from "./curl.js";
import { problem } from "./elements.js";
import { refusal } from "./retry.js";
import { Panel } from "./panel.js";
import { healthOf, Unreachable } from "./server.js";

export class AskView {
  #asking = null;
  #panel = null;
  #runId = null;
  #unsure = null; // a request of which nobody knows whether it arrived: sent again, it has the same key

  /** @param onEnd is called when a run has ended */
  constructor({ server, engine, onEnd }) {
    this.server = server;
    this.engine = engine;
    this.onEnd = onEnd;
    this.form = document.getElementById("ask-form");
    this.result = document.getElementById("ask-result");
    this.button = this.form.querySelector("button[type=submit]");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run(bodyOf(this.form));
    });
    submitByKey(this.form);
    this.form.addEventListener("input", () => this.#showCommand());
    server.addEventListener("key", () => this.#showCommand());
    this.#showCommand();
  }

  /** Before anything was asked: what would be sent. */
  #showCommand() {
    const place = document.getElementById("form-curl");
    if (place) place.textContent = post(this.server, "chat", bodyOf(this.form));
  }

  /** Shows the view; with a run's id that run, which may still go on: so a reload finds it again. */
  async open(runId) {
    if (!runId) {
      if (this.#runId) history.replaceState(null, "", `#ask/${this.#runId}`);
      return;
    }
    if (runId === this.#runId) return;
    try {
      const record = await this.server.insist().json(`runs/${encodeURIComponent(runId)}`);
      fill(this.form, record);
      await this.#follow(record, this.#begin());
    } catch (error) {
      this.result.replaceChildren(problem(error));
    }
  }

  /** Asks the same as a run did: not what the form makes of it, which knows one kind of line end only. */
  again(asked) {
    fill(this.form, asked);
    this.#run(fieldsOf(asked));
  }

  async #run(body) {
    if (isBusy(this.button)) return;
    clearProblem(this.form);
    await whileBusy(this.button, "Sending…", () => this.#send(body));
  }

  async #send(body) {
    try {
      const engine = await this.engine();
      await (engine === "direct" ? this.#stream(body) : this.#submit(body));
    } catch (error) {
      if (error.name !== "AbortError") await this.#refuse(error, body);
    }
  }

  /** Shows why there is no run: at the form what must be corrected, in the answer's place what passes by itself. */
  async #refuse(error, body) {
    if (!error.retryAfter) {
      showProblem(this.form, error);
      return;
    }
    const health = await healthOf(this.server).catch(() => null);
    this.#take(null);
    this.result.replaceChildren(refusal(error, health, () => this.#run(body)));
  }

  async #submit(body) {
    const text = JSON.stringify(body);
    const key = this.#unsure?.text === text ? this.#unsure.key : newKey();
    this.#unsure = null;
    const asking = this.#newAsking();
    try {
      await asking.submit(body, key);
    } catch (error) {
      if (error instanceof Unreachable) this.#unsure = { text, key };
      throw error;
    }
    this.#take(asking);
    this.#follow(asking.course.asked, asking);
  }

  async #stream(body) {
    const asking = this.#newAsking();
    this.#take(asking);
    asking.stream(body, "direct").catch((error) => {
      if (asking.course === null) this.#refuse(error, body);
      else if (error.name !== "AbortError") this.#panel.fail(error);
    });
  }

  #newAsking() {
    const asking = new Asking(this.server, {
      onChange: (course) => asking === this.#asking && this.#show(course),
      onTrouble: (wait, error) => asking === this.#asking && this.#panel?.showTrouble(wait, error),
    });
    return asking;
  }

  #begin() {
    const asking = this.#newAsking();
    this.#take(asking);
    return asking;
  }

  /** The run that was shown before goes on without being looked at. */
  #take(asking) {
    this.#asking?.leave();
    this.#panel?.stop();
    this.#asking = asking;
    this.#panel = null;
    this.#runId = null;
  }

  async #follow(record, asking) {
    this.#runId = record.run_id;
    if (/^(#ask|$)/.test(location.hash)) history.replaceState(null, "", `#ask/${record.run_id}`);
    const course = Course.ofRecord(record);
    if (course.ended) {
      this.#show(course);
      return;
    }
    try {
      await asking.follow(record);
    } catch (error) {
      if (error.name !== "AbortError") this.#panel?.fail(error);
    }
  }

  #show(course) {
    if (this.#panel === null) {
      const { asked } = course;
      const asking = this.#asking;
      this.#panel = new Panel(this.server, {
        onCancel: () => asking.cancel().catch((error) => this.#panel.fail(error)),
        onAgain: () => this.again(asked),
      });
      this.result.replaceChildren(this.#panel.element);
    }
    this.#panel.show(course);
    if (course.ended) this.onEnd();
  }
}
