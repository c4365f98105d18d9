// The code that does what the page does: for a shell as POSIX describes it, for Python, and for JavaScript.

import { copyButton, el } from "./elements.js";

/** A request that is written as code; `streams` if its answer comes bit by bit. */
export function post(path, body, { streams = false } = {}) {
  return { method: "POST", path, body, streams };
}

export function get(path, { streams = false } = {}) {
  return { method: "GET", path, streams };
}

/** The fields of a request that a run was asked with; those that are null were left out. */
export function fieldsOf(asked) {
  const names = ["prompt", "prompts", "max_tokens", "temperature", "top_p", "seed"];
  const given = names.filter((name) => asked[name] !== null && asked[name] !== undefined);
  return Object.fromEntries(given.map((name) => [name, asked[name]]));
}

/** A word of a shell, in single quotes, in which nothing means anything. */
export function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** JSON on one line. What a terminal would obey, or not show, is escaped: it can be pasted anywhere. */
function json(value) {
  return JSON.stringify(value).replace(/[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (character) =>
    `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The command that sends a request; its key, if one is needed, is the shell's variable DEMO_API_KEY. */
export function curl(server, { method, path, body, streams }) {
  const words = [
    ["curl", streams && "-N", method === "POST" && "-X POST", quote(server.url(path))].filter(Boolean).join(" "),
    server.key !== null && '-H "Authorization: Bearer $DEMO_API_KEY"',
    body !== undefined && `-H ${quote("Content-Type: application/json")}`,
    body !== undefined && `-d ${quote(json(body))}`,
  ].filter(Boolean);
  const line = words.join(" ");
  return line.length <= 80 ? line : words.join(" \\\n  ");
}

/** What texts and numbers are in JSON they are in Python and JavaScript too. */
function python(server, { method, path, body, streams }) {
  const call = [
    `requests.${method.toLowerCase()}(`,
    `    ${json(server.url(path))},`,
    server.key !== null && `    headers={"Authorization": "Bearer " + os.environ["DEMO_API_KEY"]},`,
    body !== undefined && `    json=${json(body)},`,
    streams && "    stream=True,",
    "    timeout=900,",
    ")",
  ].filter(Boolean).join("\n");
  return streams
    ? `with ${call} as response:\n    for line in response.iter_lines(chunk_size=None, decode_unicode=True):\n        print(line)`
    : `response = ${call}\nprint(response.text)`;
}

function javascript(server, { method, path, body, streams }) {
  const headers = [
    body !== undefined && '"Content-Type": "application/json"',
    server.key !== null && "Authorization: `Bearer ${process.env.DEMO_API_KEY}`",
  ].filter(Boolean).join(", ");
  const options = [
    method === "POST" && '  method: "POST",',
    headers && `  headers: { ${headers} },`,
    body !== undefined && `  body: JSON.stringify(${json(body)}),`,
  ].filter(Boolean).join("\n");
  const response = `await fetch(${json(server.url(path))}${options && `, {\n${options}\n}`})`;
  return streams
    ? `for await (const chunk of (${response}).body.pipeThrough(new TextDecoderStream())) {\n  process.stdout.write(chunk);\n}`
    : `console.log(await (${response}).text());`;
}

const LANGUAGES = {
  curl: (server, requests) => requests.map((each) => curl(server, each)).join("\n"),
  Python: (server, requests) =>
    `${server.key === null ? "" : "import os\n\n"}import requests\n\n${requests.map((each) => python(server, each)).join("\n")}`,
  JavaScript: (server, requests) => requests.map((each) => javascript(server, each)).join("\n"),
};
const NEEDS = { Python: "Needs the package requests.", JavaScript: "For Node 20 or later, in a file that ends with .mjs." };

/** Code in the language that the user chose last, one block for each part: `[[words, [requests]]]`. */
export class Code {
  #parts = [];

  constructor(server) {
    this.server = server;
    const options = Object.keys(LANGUAGES).map((name) => el("option", {}, name));
    this.language = el("select", { on: { change: () => this.#choose() } }, options);
    this.language.value = sessionStorage.getItem("language") ?? "curl";
    this.needs = el("span", { class: "hint" });
    this.blocks = el("div", {});
    this.element = el("div", { class: "code" },
      el("p", { class: "language" }, el("label", {}, "Language ", this.language), this.needs), this.blocks);
    server.addEventListener("key", () => this.element.isConnected && this.#draw());
  }

  show(parts) {
    this.#parts = parts;
    this.#draw();
    return this;
  }

  #choose() {
    sessionStorage.setItem("language", this.language.value);
    this.#draw();
  }

  #draw() {
    this.needs.textContent = NEEDS[this.language.value] ?? "";
    this.blocks.replaceChildren(...this.#parts.map(([words, requests]) =>
      block(words, LANGUAGES[this.language.value](this.server, requests))));
  }
}

function block(words, text) {
  const shown = el("pre", { tabindex: "0", role: "region", "aria-label": words }, text);
  return el("div", { class: "command" }, el("p", {}, words, " ", copyButton(`the code: ${words}`, () => text, shown)), shown);
}
