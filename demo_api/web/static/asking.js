// One run of one server on its way: asked for, followed, cancelled. Both engines are asked in the way that fits them.

import { Progress } from "./progress.js";
import { ApiError, events, Unreachable } from "./server.js";

const LOST = "The connection was lost before the answer was there.";

export class Asking {
  #abort = new AbortController();

  /** @param onChange is called with the progress whenever something happened */
  constructor(server, { onChange, onTrouble = () => {} }) {
    this.server = server;
    this.onChange = onChange;
    this.onTrouble = onTrouble;
    this.progress = null;
  }

  /** Follows a run that has been accepted, to its end. */
  async follow(record) {
    this.progress ??= Progress.ofRecord(record);
    if (!this.progress.ended) this.onChange(this.progress);
    for await (const event of this.server.follow(record.run_id, this.#abort.signal, this.onTrouble)) this.#hear(event);
  }

  /** Asks by one request that is answered by a stream, to its end: either engine can. */
  async stream(body, engine) {
    const response = await this.server.insist().post("chat/stream", body, { signal: this.#abort.signal });
    this.progress = new Progress(body, engine);
    this.onChange(this.progress);
    try {
      for await (const event of events(response)) {
        this.progress.asked = { ...body, run_id: event.data.run_id };
        this.#hear(event);
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // a lost connection is one
    }
    if (this.progress.ended) return;
    if (engine === "demo") throw lost(this.server, "The run goes on: look for it in Runs.");
    this.#end("failed", LOST, "The direct engine keeps nothing: ask again.");
  }

  /** Shows a run that has ended already. */
  end(record) {
    this.progress = Progress.ofRecord(record);
    this.onChange(this.progress);
  }

  #hear(event) {
    this.progress.hear(event);
    this.onChange(this.progress);
  }

  /** The end of what nobody is left to tell. */
  #end(status, error, nextStep, code = null) {
    this.#hear({ kind: "done", data: { status, success: false, error, code, next_step: nextStep } });
  }

  /** Cancels the run. */
  async cancel() {
    if (this.progress.engine === "direct") {
      this.#abort.abort(); // who leaves the stream cancels
      this.#end("cancelled", "The request was cancelled.", "Send the request again.", "cancelled");
      return;
    }
    try {
      await this.server.insist().post(`runs/${this.progress.asked.run_id}/cancel`);
    } catch (error) {
      if (!(error instanceof ApiError && error.code === "run_ended")) throw error;
    }
  }

  /** Nobody looks any more. The run of a demo engine goes on. */
  leave() {
    this.#abort.abort();
  }
}

/** Submits one run or several to the demo engine. Returns the answer of `POST /runs`; nothing is followed yet. */
export async function submit(server, body, idempotencyKey) {
  const response = await server.insist().post("runs", body, { headers: { "Idempotency-Key": idempotencyKey } });
  return response.json();
}

function lost(server, nextStep) {
  const error = new Unreachable(server.base, nextStep);
  error.message = LOST;
  return error;
}

/** A key that no other request has. Not crypto.randomUUID: pages of plain http from another host do not have it. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
