// What is known of a run while it goes on, and after: its events and its record become one state.

/** The phases in their order; `timing` calls the last one teardown. */
export const PHASES = [
  { name: "startup", label: "Start-up", field: "startup_seconds", words: "starts Python, imports, collects the test" },
  { name: "load", label: "Load", field: "load_seconds", words: "opens the device, loads the model" },
  { name: "prefill_compile", label: "Prefill compile", field: "prefill_compile_seconds", words: "compiles the reading of a prompt" },
  { name: "prefill", label: "Prefill", field: "prefill_seconds", words: "reads the prompt" },
  { name: "decode_compile", label: "Decode compile", field: "decode_compile_seconds", words: "compiles the writing of a token" },
  { name: "decode", label: "Decode", field: "decode_seconds", words: "writes the answer" },
  { name: "output", label: "Close", field: "teardown_seconds", words: "prints the answer, closes the device" },
];

const DIRECT = ["prefill", "decode"]; // what is left of them when the model is in memory

export const ENDED = ["succeeded", "failed", "cancelled", "timed_out"];

export class Progress {
  #clock = Infinity; // how far this machine's clock is ahead of the server's: what came the quickest knows best

  /**
   * @param asked the fields of the request
   * @param engine `demo` or `direct`
   */
  constructor(asked, engine) {
    this.asked = asked;
    this.engine = engine;
    this.status = "queued";
    this.position = null;
    this.device = null;
    this.acceptedAt = null;
    this.startedAt = null;
    this.phases = [];
    this.batchSize = null;
    this.estimate = asked.estimate ?? null;
    this.iteration = null;
    this.rate = null;
    this.text = "";
    this.end = null;
  }

  /** The state that a run's record tells. */
  static ofRecord(record) {
    const progress = new Progress(record, record.engine);
    progress.status = record.status;
    progress.position = record.position;
    if (ENDED.includes(record.status)) progress.end = record;
    return progress;
  }

  get ended() {
    return this.end !== null;
  }

  get phase() {
    return this.phases.at(-1) ?? null;
  }

  /** How many tokens the answer has: the prefill made the first, iteration 0 the second. */
  get tokens() {
    return this.iteration === null ? null : Math.min(this.iteration + 2, this.mostTokens);
  }

  get mostTokens() {
    return this.asked.max_tokens ?? 128;
  }

  get isReading() {
    return ["prefill_compile", "prefill"].includes(this.phase?.name);
  }

  /** Seconds since it has its status: an estimate is of the time from the start. Null while not known. */
  get elapsed() {
    const since = this.status === "queued" ? this.acceptedAt : this.startedAt;
    return since === null ? null : Math.max(0, this.now() - since);
  }

  /** Takes in one event. */
  hear({ kind, data }) {
    const at = data.at ?? this.now();
    this.#clock = Math.min(this.#clock, Date.now() / 1000 - at);
    if (kind === "queued") this.#wait(data, at);
    else if (kind === "position") this.position = data.position;
    else if (kind === "started") this.#start(data, at);
    else if (kind === "phase") this.phases.push({ name: data.phase, at });
    else if (kind === "progress") {
      this.iteration = data.iteration;
      this.rate = data.tokens_per_second_per_user;
    } else if (kind === "text") this.text += data.added ?? "";
    else if (kind === "done") {
      this.status = data.status;
      this.position = null;
      this.end = data;
    }
  }

  /** Seconds of the server's clock. */
  now() {
    return Date.now() / 1000 - (Number.isFinite(this.#clock) ? this.#clock : 0);
  }

  #wait(data, at) {
    this.status = "queued";
    this.position = data.position ?? null;
    this.acceptedAt ??= at;
    this.phases = [];
  }

  #start(data, at) {
    this.status = "running";
    this.position = null;
    this.device = data.device ?? null;
    this.batchSize = data.batch_size ?? null;
    this.estimate = data.estimate ?? this.estimate;
    this.startedAt = at;
    this.phases = []; // of an earlier attempt
    this.iteration = this.rate = null;
    this.text = "";
  }

  /** The rows of the timeline: `{part, label, words, begin, seconds, state}`; begin and seconds are null while not known. */
  rows() {
    return this.ended ? this.#endedRows() : this.#liveRows();
  }

  #liveRows() {
    const now = this.now();
    const zero = this.acceptedAt ?? now;
    const waitedUntil = this.phases[0]?.at ?? this.startedAt ?? now;
    const isWaiting = this.status === "queued";
    const queue = row("queue", "Queued", "waits for the device", 0, (isWaiting ? now : waitedUntil) - zero, isWaiting ? "now" : "done");
    const phases = this.engine === "direct" ? PHASES.filter(({ name }) => DIRECT.includes(name)) : PHASES;
    return [queue, ...phases.map((phase) => {
      const index = this.phases.findLastIndex((each) => each.name === phase.name);
      if (index < 0) return row(phase.name, phase.label, phase.words, null, null, "ahead");
      const begin = this.phases[index].at;
      const next = this.phases[index + 1]?.at;
      return row(phase.name, phase.label, phase.words, begin - zero, (next ?? now) - begin, next === undefined ? "now" : "done");
    })];
  }

  #endedRows() {
    const timing = this.end.timing ?? {};
    const parts = [row("queue", "Queued", "waited for the device", null, timing.queue_seconds, "done")];
    for (const phase of PHASES) parts.push(row(phase.name, phase.label, phase.words, null, timing[phase.field], "done"));
    let begin = 0;
    for (const part of parts) {
      part.begin = begin;
      begin += part.seconds ?? 0;
    }
    const rest = (this.end.time_seconds ?? 0) - begin;
    if (parts.some((part) => part.seconds !== null) && rest > 0.005) {
      parts.push(row("rest", "The rest", "what no part tells", begin, rest, "done"));
    }
    return parts.filter((part) => part.seconds !== null);
  }
}

function row(part, label, words, begin, length, state) {
  const seconds = length === null || length === undefined ? null : Math.max(0, length);
  return { part, label, words, begin: begin === null ? null : Math.max(0, begin), seconds, state };
}
