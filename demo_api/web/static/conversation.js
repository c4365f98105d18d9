// The view Conversation: messages above each other, for the direct engine. Only this browser keeps them, as long as its tab.

import { Code, post } from "./code.js";
import { announce, el, say, seconds, visible } from "./elements.js";
import { bodyOf, clearProblem, isBusy, showProblem, submitByKey, whileBusy } from "./form.js";
import { FINISH_WORDS } from "./panel.js";
import { refusal } from "./retry.js";
import { ApiError, events, healthOf } from "./server.js";

const KEPT = "conversation";

export class ConversationView {
  #abort = null;
  #model = null;
  #messages = JSON.parse(sessionStorage.getItem(KEPT) ?? "[]"); // {role, content}, and of answers {note}

  constructor({ server, engine }) {
    this.server = server;
    this.engine = engine;
    this.list = document.getElementById("messages");
    this.form = document.getElementById("conversation-form");
    this.refusal = document.getElementById("conversation-refusal");
    this.button = this.form.querySelector("button[type=submit]");
    this.stop = this.form.querySelector(".stop");
    this.code = new Code(server);
    document.getElementById("conversation-code").append(this.code.element);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.stop.addEventListener("click", () => this.#abort?.abort());
    this.form.querySelector(".new").addEventListener("click", () => this.#restart());
    submitByKey(this.form);
    this.list.replaceChildren(...this.#messages.map(item));
    this.#keep();
  }

  async open() {
    const isDemo = (await this.engine().catch(() => null)) === "demo";
    document.getElementById("conversation-demo").hidden = !isDemo;
    document.getElementById("conversation-direct").hidden = isDemo;
    if (!isDemo && this.#messages.length) await this.#learnModel().then(() => this.#keep()).catch(() => {});
  }

  async #ask() {
    if (isBusy(this.button)) return;
    clearProblem(this.form);
    this.refusal.replaceChildren();
    this.stop.hidden = false;
    this.#abort = new AbortController();
    await whileBusy(this.button, "Answering…", () => this.#send(this.#abort));
    if (document.activeElement === this.stop) this.form.elements.prompt.focus();
    this.stop.hidden = true;
  }

  /** Sends the whole conversation: the server keeps none of it. A message without any answer goes back into the form. */
  async #send(abort) {
    const { prompt, ...sampling } = bodyOf(this.form);
    const question = { role: "user", content: prompt };
    const answer = { role: "assistant", content: "" };
    const [asked, shown] = [item(question), item(answer)];
    this.list.append(asked, shown);
    this.form.elements.prompt.value = "";
    this.#scroll();
    try {
      await this.#stream([...this.#messages, question], sampling, answer, shown, abort.signal);
    } catch (error) {
      const isStopped = abort.signal.aborted;
      answer.note = isStopped ? "stopped" : "not complete: the answer broke off";
      if (!isStopped) await this.#refuse(error);
    }
    if (this.#abort !== abort) return; // a new conversation has begun
    if (answer.content || answer.isComplete) this.#messages.push(question, { ...answer, isComplete: undefined });
    else {
      asked.remove();
      shown.remove();
      this.form.elements.prompt.value ||= prompt;
    }
    say(shown.querySelector(".facts"), answer.note);
    this.#keep(sampling);
    announce(answer.isComplete ? "The model has answered." : "There is no complete answer.");
  }

  async #stream(messages, sampling, answer, shown, signal) {
    const started = performance.now();
    const took = () => (performance.now() - started) / 1000;
    const facts = shown.querySelector(".facts");
    const tick = () => say(facts, `${answer.content ? "" : "reading the prompt · "}${took().toFixed(1)} s`);
    const timer = setInterval(tick, 100);
    try {
      await this.#learnModel();
      const body = { model: this.#model, messages: messages.map(plain), ...sampling, stream: true, stream_options: { include_usage: true } };
      const response = await this.server.insist().post("v1/chat/completions", body, { signal });
      let [finish, usage] = [null, null];
      for await (const { data } of events(response)) {
        if (data.error) throw ApiError.from(null, data);
        const [choice] = data.choices;
        this.#say(shown, (answer.content += choice?.delta.content ?? ""));
        finish = choice?.finish_reason ?? finish;
        usage = data.usage ?? usage;
      }
      if (finish === null) throw new ApiError(null, { error: "The connection was lost before the answer was complete.", next_step: "Send the message again." });
      answer.isComplete = true;
      answer.note = [usage && `${usage.completion_tokens} tokens in ${seconds(took())}`, finish === "length" && FINISH_WORDS.length].filter(Boolean).join(" · ");
    } finally {
      clearInterval(timer);
    }
  }

  async #learnModel() {
    this.#model ??= (await this.server.insist().json("v1/models")).data[0].id;
  }

  async #refuse(error) {
    if (error.name === "TypeError") showProblem(this.form, new ApiError(null, { error: "The connection was lost.", next_step: "Send the message again." }));
    else if (!error.retryAfter) showProblem(this.form, error);
    else this.refusal.replaceChildren(refusal(error, await healthOf(this.server).catch(() => null), () => this.#ask()));
  }

  #say(shown, text) {
    const isAtEnd = this.form.getBoundingClientRect().bottom < innerHeight + 200;
    say(shown.querySelector(".answer"), visible(text));
    if (isAtEnd) this.#scroll();
  }

  #scroll() {
    this.form.scrollIntoView({ block: "nearest" });
  }

  #restart() {
    this.#abort?.abort();
    this.#abort = null;
    this.#messages = [];
    this.list.replaceChildren();
    this.refusal.replaceChildren();
    clearProblem(this.form);
    this.#keep();
    this.form.elements.prompt.focus();
  }

  /** Keeps the conversation, and shows the request that asked for its last answer. */
  #keep(sampling = bodyOf(this.form)) {
    sessionStorage.setItem(KEPT, JSON.stringify(this.#messages));
    const { prompt, ...fields } = sampling;
    const asked = this.#messages.slice(0, -1).map(plain); // without the answer
    this.code.element.parentElement.hidden = !asked.length;
    this.code.show([["The whole conversation, in one request", [post("v1/chat/completions", { model: this.#model, messages: asked, ...fields })]]]);
  }
}

function plain({ role, content }) {
  return { role, content };
}

function item({ role, content, note = "" }) {
  return el("li", { "data-role": role },
    el("p", { class: "who" }, role === "user" ? "You" : "Model"),
    el("div", { class: "answer" }, visible(content)), el("p", { class: "facts hint" }, note));
}
