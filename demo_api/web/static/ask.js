// The view Ask: a form, and the run that came of it.

import { Asking, newKey, submit } from "./asking.js";
import { Progress } from "./progress.js";
import { bodyOf, clearProblem, fill, foldMore, isBusy, modelOf, offerModels, showProblem, submitByKey, whileBusy } from "./form.js";
import { Code, fieldsOf, post } from "./code.js";
import { problem } from "./elements.js";
import { refusal } from "./retry.js";
import { Panel } from "./panel.js";
import { healthOf, Unreachable } from "./server.js";
import { Several } from "./several.js";

export class AskView {
  #asking = null;
  #panel = null;
  #runId = null;
  #isNew = false; // asked for here, not found again
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
    foldMore(this.form);
    this.code = new Code(server);
    document.getElementById("form-code").append(this.code.element);
    this.form.addEventListener("input", () => this.#showCode());
    this.#showCode();
  }

  /** Before anything was asked: what would be sent. */
  #showCode() {
    const body = bodyOf(this.form);
    this.code.show([["The request", [post(body.prompts ? "runs" : "chat", body)]]]);
  }

  /** Shows the view; with a run's id that run, which may still go on: so a reload finds it again. */
  async open(runId) {
    if (!runId) {
      if (this.#runId) history.replaceState(null, "", `#ask/${this.#runId}`);
      return;
    }
    if (runId === this.#runId) return;
    this.#isNew = false;
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
    this.#run({ ...fieldsOf(asked), ...modelOf(this.form) });
  }

  /** Takes what /health said. */
  learn({ pools }) {
    offerModels(this.form, (pools ?? []).filter((pool) => pool.workers).map((pool) => pool.model));
  }

  async #run(body) {
    if (isBusy(this.button)) return;
    clearProblem(this.form);
    this.#isNew = true;
    await whileBusy(this.button, "Sending…", () => this.#send(body));
  }

  async #send(body) {
    try {
      const engine = await this.engine();
      if (body.prompts) await this.#askSeveral(body, engine);
      else if (engine === "direct") this.#stream(body);
      else this.#follow(await this.#submit(body), this.#begin());
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
    this.#showResult(refusal(error, health, () => this.#run(body)));
  }

  /** Shows what came of the form. On a narrow screen that is below it. */
  #showResult(element) {
    this.result.replaceChildren(element);
    if (this.#isNew && matchMedia("(max-width: 59.99rem)").matches) this.result.scrollIntoView();
  }

  async #askSeveral(body, engine) {
    const { prompts, ...rest } = body;
    const isDirect = engine === "direct";
    const asked = isDirect ? prompts.map((prompt) => ({ prompt, ...rest })) : (await this.#submit(body)).runs;
    const several = new Several(this.server, isDirect ? "direct" : "demo", asked);
    this.#take(several);
    history.replaceState(null, "", "#ask");
    this.#showResult(several.element);
    several.run().finally(this.onEnd);
  }

  async #submit(body) {
    const text = JSON.stringify(body);
    const key = this.#unsure?.text === text ? this.#unsure.key : newKey();
    this.#unsure = null;
    try {
      return await submit(this.server, body, key);
    } catch (error) {
      if (error instanceof Unreachable) this.#unsure = { text, key };
      throw error;
    }
  }

  #stream(body) {
    const asking = this.#begin();
    asking.stream(body, "direct").catch((error) => {
      if (asking.progress === null) this.#refuse(error, body);
      else if (error.name !== "AbortError") this.#panel.fail(error);
    });
  }

  #begin() {
    const asking = new Asking(this.server, {
      onChange: (progress) => asking === this.#asking && this.#show(progress),
      onTrouble: (wait, error) => asking === this.#asking && this.#panel?.showTrouble(wait, error),
    });
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
    const progress = Progress.ofRecord(record);
    if (progress.ended) {
      this.#show(progress);
      return;
    }
    try {
      await asking.follow(record);
    } catch (error) {
      if (error.name !== "AbortError") this.#panel?.fail(error);
    }
  }

  #show(progress) {
    if (this.#panel === null) {
      const { asked } = progress;
      const asking = this.#asking;
      this.#panel = new Panel(this.server, {
        onCancel: () => asking.cancel().catch((error) => this.#panel.fail(error)),
        onAgain: () => this.again(asked),
      });
      this.#showResult(this.#panel.element);
    }
    this.#panel.show(progress);
    if (progress.ended) this.onEnd();
  }
}
