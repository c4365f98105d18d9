// Where the page begins: which view is shown, and what the server is.

import { AskView } from "./ask.js";
import { CompareView } from "./compare.js";
import { ConversationView } from "./conversation.js";
import { HealthView } from "./health.js";
import { askForKey } from "./keys.js";
import { RunsView, RunView } from "./runs.js";
import { healthOf, Server } from "./server.js";

const LOOK_AGAIN_MS = 4000;

// Of one dialog at a time: two servers may want a key.
let lastDialog = Promise.resolve();
function askInTurn(address, wasRefused) {
  lastDialog = lastDialog.then(() => askForKey(address, wasRefused));
  return lastDialog;
}

const server = new Server(new URL(".", location.href.split("#")[0]).href, askInTurn, "Is the server there? Start it with: demo-api serve");
let engineName = null;

/** `demo` or `direct`; asks the server if that is not known yet. Null where it does not say. */
async function engine() {
  if (engineName === null) await look();
  return engineName;
}

function again(asked) {
  location.hash = "#ask"; // the view follows it
  views.ask.again(asked);
}

function forget() {
  server.key = null;
  engineName = null;
  look();
}

const health = new HealthView({ server, onForget: forget });
const views = {
  ask: new AskView({ server, engine, onEnd: look }),
  runs: new RunsView({ server, engine, onAgain: again }),
  run: new RunView({ server, onAgain: again }),
  conversation: new ConversationView({ server, engine }),
  compare: new CompareView({ server, askForKey: askInTurn }),
  health: {
    open: () => {
      server.insist();
      look();
    },
  },
};
let shown = null;
let looking = null;

/** Asks the server what it is, and how it is; once at a time, as the user may have to find a key first. */
function look() {
  looking ??= lookNow().finally(() => (looking = null));
  return looking;
}

async function lookNow() {
  try {
    const told = await healthOf(server, (little) => health.show(little));
    health.show(told);
    views.ask.learn(told);
    if (told.engine && told.engine !== engineName) learn(told);
  } catch (error) {
    health.fail(error);
  }
}

function learn({ engine: name, note }) {
  engineName = name;
  document.getElementById("engine-note").textContent = note ?? "";
  document.querySelector("[data-view=runs]").parentElement.hidden = name === "direct";
}

/** Shows the view that the address names. */
function show() {
  const [name, id] = location.hash.slice(1).split("/"); // an id has nothing that an address must escape
  const isView = Object.hasOwn(views, name) && name !== "run";
  const view = name === "runs" && id ? "run" : isView ? name : "ask";
  if (shown !== view) views[shown]?.close?.();
  const isFirst = shown === null;
  shown = view;
  for (const section of document.querySelectorAll(".view")) section.hidden = section.id !== view;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === (view === "run" ? "runs" : view)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = document.querySelector(`#${view} h1`);
  document.title = `${title.textContent} · demo_api`;
  if (!isFirst) title.focus({ preventScroll: false });
  else if (view === "ask") document.getElementById("prompt").focus();
  views[view].open?.(id);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  document.getElementById("main").focus();
});
window.addEventListener("hashchange", show);
show();
look();
setInterval(() => document.hidden || look(), LOOK_AGAIN_MS);
