// The view Health, and the words about the server's state in the head of the page.

import { curl, get } from "./code.js";
import { el, problem, range, say, visible } from "./elements.js";

// The words of docs/devices.md: a test compares them.
const DEVICE = {
  free: ["nobody has its lock", "the next run takes it"],
  busy: ["a child runs on it", "wait for the run that runs, or cancel it"],
  suspect: [
    "the last child may not have closed it: it had to be terminated or killed, it crashed, or something it had started outlived it",
    "it is reset, if there is a command for that; otherwise the next run tries it, and a run that succeeds makes it free. By hand: demo-api device reset; or demo-api device clear, if you know that it is well",
  ],
  resetting: ["the reset command runs", "wait until it is over"],
  drained: ["somebody has drained it", "waiting runs keep waiting; if no other device can take them, new ones get 503 device_failed, until you resume it: demo-api device resume"],
  failed: [
    "the reset did not help",
    "runs in the queue wait, new ones are refused with 503 device_failed, until somebody resets or clears it. Look at the device (on Tenstorrent: tt-smi), then: demo-api device reset; or demo-api device clear, when it is well",
  ],
};

const WARM = {
  off: "No warm child.",
  imports: "A warm child has done its imports: the next run does not wait for start-up.",
  model: "A warm child has loaded the model: the next run waits for neither start-up nor load.",
};

export class HealthView {
  #shown = "";

  constructor({ server, onForget }) {
    this.server = server;
    this.onForget = onForget;
    this.place = document.querySelector("#health .place");
    this.status = document.getElementById("server-status");
  }

  /** Shows what /health said. */
  show(health) {
    const isInDoubt = ["suspect", "resetting", "failed"].includes(health.device?.state);
    this.#showStatus(health.status === "healthy" && isInDoubt ? "doubt" : health.status, headline(health));
    const key = this.server.key;
    const text = JSON.stringify([health, key === null]);
    if (text === this.#shown) return; // who reads, or has a button under the finger, is left alone
    this.#shown = text;
    const devices = health.devices ?? (health.device ? [health.device] : []);
    this.place.replaceChildren(
      el("div", { class: "card" }, el("h2", {}, "Server"), facts(health),
        key !== null && el("p", { class: "actions" }, el("button", { type: "button", on: { click: this.onForget } }, "Forget the key"))),
      ...(health.pools ?? []).map(poolCard),
      ...(health.nodes ?? []).map(nodeCard),
      ...devices.map(deviceCard),
      el("p", { class: "hint" }, "From a shell: ", el("code", {}, curl(this.server, get("health")))),
    );
  }

  /** Shows that there was no answer. */
  fail(error) {
    this.#showStatus("unreachable", error.status ? visible(error.message) : "no answer from the server");
    this.#shown = "";
    this.place.replaceChildren(problem(error));
  }

  #showStatus(status, words) {
    this.status.dataset.status = status;
    say(this.status.querySelector(".words"), words);
  }
}

function headline({ status, engine, model, queue, device }) {
  const line = queue && (queue.waiting || queue.running) ? `${queue.running} running, ${queue.waiting} waiting` : null;
  const state = device && device.state !== "free" && device.state !== "busy" ? `device ${device.state}` : null;
  return [status, engine && `${engine} engine`, model && visible(String(model)), state, line].filter(Boolean).join(" · ");
}

function facts(health) {
  const { queue, estimate } = health;
  return factsList([
    ["Status", health.status],
    ["What to know", health.note],
    ["Engine", health.engine],
    ["Model", health.model],
    ["In memory", health.engine === "direct" ? (health.model_loaded ? "yes" : "not yet") : null],
    ["Model's folder", health.llama_dir ?? health.hf_model],
    ["Queue", queue && `${queue.running} running, ${queue.waiting} waiting, ${queue.limit} may wait`],
    ["A run usually takes", estimate && `${range(estimate)}, by the latest ${estimate.runs}`],
  ]);
}

function factsList(rows) {
  return el("dl", { class: "facts-list" }, rows.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, visible(String(value))))));
}

function poolCard({ model, workers, devices, waiting, running }) {
  return el("div", { class: "card pool" }, el("h2", {}, model === null ? "Any model" : `Model ${visible(model)}`),
    factsList([["Workers", workers], ["Devices", devices], ["Queue", `${running} running, ${waiting} waiting`]]));
}

function nodeCard({ node, model, version, since, devices }) {
  return el("div", { class: "card node" }, el("h2", {}, `Node ${visible(node)}`),
    factsList([["Model", model], ["Version", version], ["Since", when(since)],
      ["Devices", devices.map((device) => `${device.name} ${device.state}`).join(", ")]]));
}

function sentence(words) {
  return words ? `${words[0].toUpperCase()}${words.slice(1)}.` : null;
}

function when(unixSeconds) {
  return typeof unixSeconds === "number" ? new Date(unixSeconds * 1000).toLocaleString() : null;
}

function deviceCard(device) {
  const [means, next] = DEVICE[device.state] ?? ["", ""];
  const rows = [
    ["What it means", sentence(means)], ["Reason", device.reason], ["Since", when(device.since)],
    ["What happens next", sentence(next)],
    ["Warm", WARM[device.warm] ?? device.warm],
  ];
  return el("div", { class: "card device", "data-state": device.state },
    el("h2", {}, device.name === "device" ? "Device " : `Device ${visible(String(device.name))} `, el("span", { class: "chip", "data-status": device.state }, device.state)),
    factsList(rows));
}
