// Asking a server over HTTP: this one, or the other one of Compare.

const SILENT_MS = 45_000; // a server says something every 15 seconds, if only a comment

/** An error that the server told: the body of docs/errors.md, and the status. */
export class ApiError extends Error {
  constructor(status, body, retryAfter = null) {
    super(body.error ?? `The server answered ${status}.`);
    this.status = status;
    this.code = body.code ?? null;
    this.field = body.field ?? null;
    this.nextStep = body.next_step ?? null;
    this.requestId = body.request_id ?? null;
    this.retryAfter = retryAfter;
  }

  static async of(response) {
    const told = (await response.json().catch(() => null)) ?? {}; // a proxy may answer with a page
    return ApiError.from(response.status, told, Number(response.headers.get("Retry-After")) || null);
  }

  /** Also of OpenAI's shape, in an answer or within a stream. */
  static from(status, { error, ...rest }, retryAfter = null) {
    const body = typeof error === "object" ? { ...error, error: error?.message, field: error?.param } : { error, ...rest };
    return new ApiError(status, body, retryAfter);
  }
}

/** No answer at all. */
export class Unreachable extends Error {
  constructor(url, nextStep) {
    super(`${url} does not answer.`);
    this.nextStep = nextStep;
  }
}

/** An answer that the browser keeps from this page: its server does not name this origin. */
export class NotAllowed extends Error {
  constructor(url) {
    super(`${url} answers, but does not let this page ask.`);
    this.nextStep = `Start it with: --cors-origins ${location.origin}`;
  }
}

/** Gives the event `key` when its key changes: what shows commands shows them anew. */
export class Server extends EventTarget {
  #asking = null;
  #givenUp = false;

  /**
   * @param base its address, which paths are added to
   * @param askForKey gives a key when the user has typed one, or null: (address, whether the last one was refused)
   * @param nextStep what helps when it does not answer
   * @param name the address as somebody typed it
   */
  constructor(base, askForKey, nextStep, name = base) {
    super();
    this.base = base.endsWith("/") ? base : `${base}/`;
    this.askForKey = askForKey;
    this.nextStep = nextStep;
    this.name = name;
  }

  /** The key that was typed, for as long as the tab is open. */
  get key() {
    return sessionStorage.getItem(`key of ${this.base}`);
  }

  set key(key) {
    if (key === null) sessionStorage.removeItem(`key of ${this.base}`);
    else sessionStorage.setItem(`key of ${this.base}`, key);
    this.#givenUp = key === null;
    this.dispatchEvent(new Event("key"));
  }

  url(path) {
    return this.base + path.replace(/^\//, "");
  }

  /** Whether the user was asked for a key and did not give one. */
  get hasGivenUp() {
    return this.#givenUp;
  }

  /** A user wants something now: they may be asked for the key again, if they did not give one. */
  insist() {
    this.#givenUp = false;
    return this;
  }

  /** An answer whose status says that it went well. Throws ApiError, Unreachable, or an AbortError. */
  async fetch(path, options = {}) {
    for (;;) {
      const key = this.key;
      const response = await this.#send(path, options, key);
      if (response.ok) return response;
      const error = await ApiError.of(response);
      if (response.status !== 401 || !(await this.#hasNewKey(key))) throw error;
    }
  }

  /** An answer of JSON. */
  async json(path, options) {
    const response = await this.fetch(path, options);
    try {
      return await response.json();
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      throw new ApiError(response.status, { error: `${response.url} does not answer in JSON.`, next_step: "Is this the address of a demo_api server?" });
    }
  }

  /** Sends a body of JSON. */
  post(path, body, { headers, signal } = {}) {
    // Also without a body: no other site's page can send this without asking.
    const kind = { "Content-Type": "application/json" };
    const text = body === undefined ? undefined : JSON.stringify(body);
    return this.fetch(path, { method: "POST", headers: { ...kind, ...headers }, body: text, signal });
  }

  async #send(path, { headers = {}, ...options }, key) {
    const given = key === null ? headers : { ...headers, Authorization: `Bearer ${key}` };
    try {
      return await fetch(this.url(path), { ...options, headers: given, credentials: "omit", cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw (await this.#isThere()) ? new NotAllowed(this.name) : new Unreachable(this.name, this.nextStep);
    }
  }

  /** Whether another origin's server answers at all. A browser tells that even where it keeps the answer to itself. */
  async #isThere() {
    if (new URL(this.base).origin === location.origin) return false;
    try {
      await fetch(this.url("health"), { mode: "no-cors", credentials: "omit", cache: "no-store" });
      return true;
    } catch {
      return false;
    }
  }

  async #hasNewKey(refused) {
    if (this.key !== refused) return true; // another request has asked meanwhile
    if (this.#givenUp) return false;
    this.#asking ??= this.askForKey(this.base, refused !== null).finally(() => (this.#asking = null));
    const key = await this.#asking;
    if (this.key === refused) this.key = key;
    return key !== null;
  }

  /**
   * A run's events as they come, up to `done`. A connection that is lost is made again, and goes on where it broke off.
   *
   * @param onTrouble is called with the seconds until the next try and the error, if there was one; with null when the connection is there again
   */
  async *follow(runId, signal, onTrouble) {
    let last = 0;
    for (let tries = 0; ; tries += 1) {
      let wait = Math.min(tries + 1, 5);
      let trouble = null;
      try {
        const headers = last ? { "Last-Event-ID": String(last) } : {};
        const response = await this.fetch(`runs/${runId}/events`, { headers, signal });
        if (tries) onTrouble(null);
        tries = 0;
        for await (const event of events(response)) {
          last = event.id;
          yield event;
          if (event.kind === "done") return;
        }
      } catch (error) {
        const isRefused = error instanceof ApiError && error.status < 500 && error.status !== 429; // too many: later
        if (signal.aborted || isRefused) throw error;
        wait = error.retryAfter ?? wait;
        trouble = error;
      }
      onTrouble(wait, trouble);
      await pause(wait * 1000, signal);
    }
  }
}

/**
 * What `GET /health` tells. Who has no key is told little: an answer that needs one makes the page ask for it.
 *
 * @param onLittle is called with that little, before somebody is asked
 */
export async function healthOf(server, onLittle = () => {}) {
  const health = await server.json("health");
  if (health.queue !== undefined || server.hasGivenUp) return health;
  onLittle(health);
  try {
    await server.json("v1/models");
  } catch (error) {
    if (error.status === 401) return health;
    throw error;
  }
  return server.json("health");
}

/** The server-sent events of an answer: `{id, kind, data}`. It ends when the answer does, or has said nothing for long. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let fields = {};
  let watchdog = null;
  try {
    for (;;) {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => reader.cancel().catch(() => {}), SILENT_MS);
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "" && fields.data === "[DONE]") return; // the end of OpenAI's streams
        if (line === "" && fields.data !== undefined) {
          yield { id: Number(fields.id), kind: fields.event, data: JSON.parse(fields.data) };
        }
        if (line === "") fields = {};
        else if (!line.startsWith(":")) fields[line.slice(0, line.indexOf(":"))] = line.slice(line.indexOf(":") + 1).trim();
      }
    }
  } finally {
    clearTimeout(watchdog);
    reader.cancel().catch(() => {});
  }
}

/** Waits, unless the signal is given before. */
function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
