// The views Runs and Run: what the ledger keeps, the newest first, and one of them.

import { Asking } from "./asking.js";
import { Progress, ENDED } from "./progress.js";
import { fieldsOf } from "./code.js";
import { el, problem, say, seconds, visible } from "./elements.js";
import { nothing } from "./form.js";
import { Panel, STATUS_WORDS, statusChip } from "./panel.js";

const LOOK_AGAIN_MS = 3000;
const PAGE = 20;

const NO_RUNS = "The direct engine keeps no runs: an answer is gone when it has been read. The demo engine keeps every run that it has accepted.";

export class RunsView {
  #records = new Map();
  #order = []; // as the server gives them: ids of one second do not sort
  #items = new Map();
  #next = null;
  #timer = null;

  constructor({ server, engine, onAgain }) {
    this.server = server;
    this.engine = engine;
    this.onAgain = onAgain;
    this.place = document.querySelector("#runs .place");
    this.status = el("select", { id: "status-filter" }, el("option", { value: "" }, "all"),
      Object.entries(STATUS_WORDS).map(([value, words]) => el("option", { value }, words)));
    this.text = el("input", { id: "text-filter", type: "search", spellcheck: "false" });
    this.count = el("p", { class: "hint", role: "status" });
    this.list = el("ol", { class: "history", "aria-label": "Runs, the newest first" });
    this.older = el("button", { type: "button", on: { click: () => this.#read(this.#next) } }, "Older runs");
    this.trouble = el("div", {});
    this.status.addEventListener("change", () => this.#restart());
    this.text.addEventListener("input", () => this.#draw());
  }

  async open() {
    this.server.insist();
    if ((await this.engine().catch(() => null)) === "direct") {
      this.place.replaceChildren(nothing(NO_RUNS));
      return;
    }
    if (!this.list.isConnected) {
      const filters = el("div", { class: "filters card" },
        el("div", { class: "field" }, el("label", { for: "status-filter" }, "Status"), this.status),
        el("div", { class: "field" }, el("label", { for: "text-filter" }, "Prompt or answer contains"), this.text));
      this.place.replaceChildren(filters, this.count, this.trouble, this.list, el("p", {}, this.older));
    }
    clearInterval(this.#timer);
    this.#timer = setInterval(() => document.hidden || this.server.hasGivenUp || this.#read(null), LOOK_AGAIN_MS);
    await this.#read(null);
  }

  close() {
    clearInterval(this.#timer);
  }

  #restart() {
    this.#forget();
    this.#read(null);
  }

  /** Reads a page: the newest one again, or the next older one. */
  async #read(path) {
    const wanted = this.status.value;
    const query = wanted ? `&status=${wanted}` : "";
    try {
      const page = await this.server.json(path ?? `runs?limit=${PAGE}${query}`);
      if (wanted !== this.status.value) return; // another filter was chosen meanwhile
      this.#take(page, path !== null);
      this.trouble.replaceChildren();
      if (path === null) await this.#readOpenOnes(page.runs);
    } catch (error) {
      this.trouble.replaceChildren(problem(error));
    }
    this.#draw();
  }

  #forget() {
    this.#records.clear();
    this.#order = [];
    this.#next = null;
  }

  #take(page, isOlder) {
    const fresh = page.runs.map((record) => record.run_id).filter((runId) => !this.#records.has(runId));
    // More new runs than a page has: what is between them and those that are known is not known.
    if (!isOlder && fresh.length === page.runs.length) this.#forget();
    if (isOlder || this.#order.length === 0) this.#next = page.next;
    this.#order = isOlder ? [...this.#order, ...fresh] : [...fresh, ...this.#order];
    for (const record of page.runs) this.#records.set(record.run_id, record);
  }

  /** Runs that were shown as not ended, and are not on the newest page any more, or not in this status. */
  async #readOpenOnes(fresh) {
    const seen = new Set(fresh.map((record) => record.run_id));
    const open = [...this.#records.values()].filter((each) => !ENDED.includes(each.status) && !seen.has(each.run_id));
    for (const { run_id: runId } of open.slice(0, PAGE)) {
      this.#records.set(runId, await this.server.json(`runs/${runId}`));
    }
  }

  #draw() {
    const needle = this.text.value.toLowerCase();
    const wanted = this.#order.map((runId) => this.#records.get(runId))
      .filter((record) => !this.status.value || record.status === this.status.value)
      .filter((record) => `${record.prompt ?? ""}\n${record.response ?? ""}`.toLowerCase().includes(needle));
    const items = wanted.map((record) => this.#item(record));
    items.forEach((item, place) => {
      if (this.list.children[place] !== item) this.list.insertBefore(item, this.list.children[place] ?? null);
    });
    while (this.list.children.length > items.length) this.list.lastChild.remove();
    this.older.hidden = this.#next === null;
    say(this.count, this.#words(wanted.length));
  }

  #words(shown) {
    const read = this.#records.size;
    if (!read && this.trouble.firstChild) return ""; // nobody knows
    if (!read) return this.status.value ? "No run has this status." : "There are no runs yet: ask something.";
    const more = this.#next === null ? "" : " read so far";
    const runs = read === 1 ? "run" : "runs";
    return this.text.value || this.status.value ? `${shown} of ${read} ${runs}${more}` : `${read} ${runs}${more}`;
  }

  #item(record) {
    let item = this.#items.get(record.run_id);
    if (!item) {
      item = this.#newItem(record);
      this.#items.set(record.run_id, item);
    }
    if (item.dataset.status !== record.status) {
      item.dataset.status = record.status;
      item.querySelector(".status").replaceChildren(statusChip(record.status));
    }
    say(item.querySelector(".facts"), facts(record));
    return item;
  }

  #newItem(record) {
    const when = new Date(record.accepted_at);
    return el("li", {},
      el("span", { class: "status" }),
      el("a", { class: "prompt", href: `#runs/${record.run_id}` }, visible(record.prompt?.slice(0, 300) ?? "")),
      el("span", { class: "facts" }),
      el("time", { datetime: record.accepted_at, title: record.accepted_at }, when.toLocaleString()),
      el("button", { type: "button", class: "small", "aria-label": `Run again: ${visible(record.prompt?.slice(0, 60) ?? "")}`, on: { click: () => this.onAgain(record) } }, "Run again"));
  }
}

function facts(record) {
  if (record.status === "queued") return record.position === null ? "" : `place ${record.position}`;
  if (!ENDED.includes(record.status)) return "";
  const tokens = record.tokens_generated ?? null;
  return [record.time_seconds === null ? null : seconds(record.time_seconds),
    tokens === null ? record.code : `${tokens} tokens`].filter(Boolean).join(" · ");
}

export class RunView {
  #asking = null;
  #panel = null;

  constructor({ server, onAgain }) {
    this.server = server;
    this.onAgain = onAgain;
    this.place = document.querySelector("#run .place");
  }

  async open(runId) {
    this.close();
    this.place.replaceChildren(nothing("Reading the run."));
    try {
      const record = await this.server.insist().json(`runs/${encodeURIComponent(runId)}`);
      await this.#show(record);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (this.#panel) this.#panel.fail(error);
      else this.place.replaceChildren(problem(error));
    }
  }

  close() {
    this.#asking?.leave();
    this.#panel?.stop();
    this.#asking = this.#panel = null;
  }

  async #show(record) {
    const asking = new Asking(this.server, {
      onChange: (progress) => panel.show(progress),
      onTrouble: (wait, error) => panel.showTrouble(wait, error),
    });
    const panel = new Panel(this.server, {
      onCancel: () => asking.cancel().catch((error) => panel.fail(error)),
      onAgain: () => this.onAgain(record),
    });
    this.#asking = asking;
    this.#panel = panel;
    const progress = Progress.ofRecord(record);
    panel.show(progress);
    this.place.replaceChildren(askedPart(record), panel.element);
    if (!progress.ended) await asking.follow(record);
  }
}

/** What was asked for. */
function askedPart(record) {
  const { prompt, ...rest } = fieldsOf(record);
  const sampling = Object.entries(rest).map(([name, value]) => `${name} ${value}`).join(", ");
  return el("div", { class: "asked card" },
    el("h2", {}, "Prompt"),
    el("div", { class: "answer" }, visible(prompt)),
    el("p", { class: "hint" }, `${sampling} · accepted ${new Date(record.accepted_at).toLocaleString()} · ${record.run_id}`));
}
