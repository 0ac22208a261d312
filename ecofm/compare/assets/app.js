// The page: asks for pairs, sends answers until they are acknowledged, and takes the last one back.
"use strict";

const KEYS = { ArrowLeft: "left", ArrowRight: "right", " ": "tie", "=": "tie", "?": "skip" };
const RETRY_MS = [300, 1000, 2000, 4000, 8000];
const MAX_UNDO = 50;
const $ = (id) => document.getElementById(id);

// sessionStorage keeps the session, the unsent answer and the answers that can be taken back, so
// that a reload, or a restart of the server, loses nothing.
const kept = {
  get: (key, otherwise) => JSON.parse(sessionStorage.getItem(key) ?? JSON.stringify(otherwise)),
  set: (key, value) => sessionStorage.setItem(key, JSON.stringify(value)),
};

let pair = null;
let shownAt = 0;
let busy = false;

class Refused extends Error {
  constructor(status, detail) {
    super(typeof detail === "string" ? detail : `the server refused the request (${status})`);
    this.status = status;
  }
}

async function ask(path, body) {
  const headers = { "X-Ecofm-Token": kept.get("session", {}).token ?? "" };
  const options = { headers, signal: AbortSignal.timeout(20000) };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Refused(response.status, answer.detail);
  return answer;
}

// Network failures and server faults are tried again for as long as it takes; refusals are not.
async function askUntilAnswered(path, body) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await ask(path, body);
      say("");
      return answer;
    } catch (error) {
      if (error instanceof Refused && error.status < 500) throw error;
      say("The server does not answer. Trying again; nothing is lost.");
      const wait = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

function say(text) {
  $("status").textContent = text;
}

function showProgress(nDone) {
  const { goal } = kept.get("session", { goal: 100 });
  $("bar").max = goal;
  $("bar").value = Math.min(nDone, goal);
  $("count").textContent =
    nDone < goal ? `${nDone} of ${goal}` : `${nDone} answers: thank you! More are welcome`;
}

function drawSide(id, side) {
  const images = side.images.map((address) => {
    const image = new Image();
    image.src = address;
    image.alt = "Satellite picture";
    image.draggable = false;
    return image;
  });
  $(id).classList.toggle("many", images.length > 1);
  $(id).replaceChildren(...images);
  return Promise.all(images.map((image) => image.decode().catch(() => {})));
}

async function show(next) {
  pair = next;
  await Promise.all([drawSide("left", next.left), drawSide("right", next.right)]);
  shownAt = performance.now();
}

function setBusy(now) {
  busy = now;
  $("compare").classList.toggle("busy", now);
  $("undo").disabled = now || kept.get("votes", []).length === 0;
}

// Runs one step at a time; a session that the server does not know leads back to the start.
async function step(work) {
  if (busy) return;
  setBusy(true);
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) return start(error.message);
    say(`Not accepted: ${error.message}.`);
  } finally {
    setBusy(false);
  }
}

async function sendUnsent() {
  const unsent = kept.get("unsent", null);
  if (unsent === null) return;
  let progress;
  try {
    progress = await askUntilAnswered("/api/vote", unsent.vote);
  } catch (error) {
    // Refused for good: asking with it for ever would block every later answer.
    if (error.status !== 401) kept.set("unsent", null);
    throw error;
  }
  kept.set("votes", [...kept.get("votes", []), unsent].slice(-MAX_UNDO));
  kept.set("unsent", null);
  showProgress(progress.n_done);
}

// crypto.randomUUID exists on https and localhost only.
function makeId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}

function answer(outcome) {
  if (pair === null) return;
  return step(async () => {
    const vote = {
      id: makeId(),
      left: pair.left.item,
      right: pair.right.item,
      outcome,
      response_ms: Math.round(performance.now() - shownAt),
    };
    kept.set("unsent", { vote, pair });
    await sendUnsent();
    await show(await askUntilAnswered("/api/pair"));
  });
}

function undo() {
  const votes = kept.get("votes", []);
  if (votes.length === 0) return;
  return step(async () => {
    const last = votes[votes.length - 1];
    const progress = await askUntilAnswered("/api/undo", { id: last.vote.id });
    kept.set("votes", votes.slice(0, -1));
    showProgress(progress.n_done);
    await show(last.pair);
    say("Your last answer was taken back: here is the pair again.");
  });
}

function start(message = "") {
  pair = null;
  $("compare").hidden = true;
  $("start").hidden = false;
  $("start-error").textContent = message;
  $("name").value = kept.get("session", {}).annotator ?? "";
  $("name").focus();
}

async function enter() {
  $("start").hidden = true;
  $("compare").hidden = false;
  $("who").textContent = kept.get("session", {}).annotator;
  await step(async () => {
    await sendUnsent();
    showProgress((await askUntilAnswered("/api/progress")).n_done);
    await show(await askUntilAnswered("/api/pair"));
  });
}

$("start-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const annotator = $("name").value;
  try {
    const session = await ask("/api/session", { annotator });
    if (kept.get("session", {}).annotator !== session.annotator) {
      kept.set("votes", []);
      kept.set("unsent", null);
    }
    kept.set("session", session);
  } catch (error) {
    $("start-error").textContent =
      error instanceof Refused ? error.message : "The server does not answer; try again.";
    return;
  }
  await enter();
});

for (const button of document.querySelectorAll("[data-outcome]")) {
  button.addEventListener("click", () => answer(button.dataset.outcome));
}
$("undo").addEventListener("click", undo);
document.addEventListener("click", (event) => {
  // A button that keeps the focus of a mouse click would take the next space bar for itself.
  if (event.detail > 0) document.activeElement.blur();
});

document.addEventListener("keydown", (event) => {
  if ($("compare").hidden || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  // Who tabs to a button presses it with the space bar, as everywhere.
  if (event.key === " " && document.activeElement instanceof HTMLButtonElement) return;
  if (event.key === "Backspace") {
    event.preventDefault();
    undo();
  } else if (event.key in KEYS) {
    // The space bar and the arrows would scroll a small window.
    event.preventDefault();
    answer(KEYS[event.key]);
  }
});

if (kept.get("session", null) === null) start();
else enter();
