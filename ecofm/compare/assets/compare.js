// The questions: shows pairs, sends answers until they are acknowledged, takes the last one back.

import { Refused, insist, kept, makeId, picture } from "/net.js";
import { drawSheet, link, move, showAll, zoom } from "/pictures.js";
import { $, say, t } from "/texts.js";

const KEYS = { ArrowLeft: "left", ArrowRight: "right", " ": "tie", "=": "tie", "?": "skip" };
const MOVES = { ArrowLeft: [0.15, 0], ArrowRight: [-0.15, 0], ArrowUp: [0, 0.15], ArrowDown: [0, -0.15] };
const MAX_UNDO = 50;

let pair = null;
let shownAt = 0;
let busy = false;
let style = "true";
let draw = 0;
let leave = () => {};

export function showProgress({ n_done: done, goal, seconds_left: seconds }) {
  $("bar").max = goal;
  $("bar").value = Math.min(done, goal);
  const parts = [t(done < goal ? "progress" : "progress_done", { done, goal })];
  if (done < goal && seconds !== null) {
    const minutes = Math.round(seconds / 60);
    parts.push(minutes < 1 ? t("minute_left") : t("minutes_left", { minutes }));
  }
  $("count").textContent = parts.join(" · ");
}

async function drawPair() {
  await Promise.all(
    ["left", "right"].map((name) => {
      $(`place-${name}`).textContent =
        pair[name].place ?? (pair[name].label === null ? "" : t("group", { label: pair[name].label }));
      return drawSheet($(name), pair[name], style, `picture_${name}`);
    }),
  );
}

async function show(next) {
  pair = next;
  draw = 0;
  showAll();
  // A picture that cannot be had is no reason to stop: the other side and its words remain.
  await drawPair().catch(() => say(t("retrying")));
  shownAt = performance.now();
  loadEarly();
}

// The next pair's pictures come while this one is looked at.
async function loadEarly() {
  try {
    const next = await insist("/api/next");
    for (const number of [...next.left.images, ...next.right.images]) picture(number, style).catch(() => {});
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
}

function setBusy(now) {
  busy = now;
  $("compare").classList.toggle("busy", now);
  $("undo").disabled = now || kept.get("votes", []).length === 0;
}

// Runs one step at a time; a session that the server does not know leads back to the start.
export async function step(work) {
  if (busy) return;
  setBusy(true);
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (error.status === 401) return leave(error.message);
    say(t("refused", { reason: error.message }));
  } finally {
    setBusy(false);
  }
}

async function sendUnsent() {
  const unsent = kept.get("unsent", null);
  if (unsent === null) return;
  let progress;
  try {
    progress = await insist("/api/vote", unsent.vote);
  } catch (error) {
    // Refused for good: asking with it for ever would block every later answer.
    if (error.status !== 401) kept.set("unsent", null);
    throw error;
  }
  kept.set("votes", [...kept.get("votes", []), unsent].slice(-MAX_UNDO));
  kept.set("unsent", null);
  showProgress(progress);
}

function answer(outcome) {
  if (pair === null) return undefined;
  return step(async () => {
    const vote = {
      id: makeId(),
      edition: pair.edition,
      left: pair.left.item,
      right: pair.right.item,
      outcome,
      asked: pair.asked,
      response_ms: Math.round(performance.now() - shownAt),
    };
    kept.set("unsent", { vote, pair });
    await sendUnsent();
    await show(await insist("/api/pair"));
    say(t("question", { progress: $("count").textContent }), true);
  });
}

function undo() {
  const votes = kept.get("votes", []);
  if (votes.length === 0) return undefined;
  return step(async () => {
    const last = votes[votes.length - 1];
    const progress = await insist("/api/undo", { id: last.vote.id });
    kept.set("votes", votes.slice(0, -1));
    showProgress(progress);
    await show(last.pair);
    say(t("undone"));
  });
}

async function redraw() {
  if (pair === null) return;
  await drawPair();
}

function switchColours() {
  style = style === "true" ? "false" : "true";
  $("colours").setAttribute("aria-pressed", String(style === "false"));
  return redraw();
}

function reshuffle() {
  return step(async () => {
    draw += 1;
    const sides = [pair.left, pair.right].map((side) => insist(`/api/sheet/${side.item}?draw=${draw}`));
    const [left, right] = await Promise.all(sides);
    pair = { ...pair, left, right };
    await redraw();
  });
}

// Opens the view; `onUnknown` is called when the server does not know the session.
export async function enterCompare(onUnknown) {
  leave = (reason) => {
    pair = null;
    onUnknown(reason);
  };
  const session = kept.get("session", {});
  $("colours").hidden = session.styles.length < 2;
  const bands = session.bands_shown ?? []; // a session of before has none
  $("bands-shown").hidden = bands.length === 0;
  $("bands-shown").textContent = t("bands_shown", { bands: bands.join(", ") });
  $("reshuffle").hidden = !session.can_shuffle;
  await step(async () => {
    await sendUnsent();
    showProgress(await insist("/api/progress"));
    if (pair === null) await show(await insist("/api/pair"));
  });
}

export function forgetPair() {
  pair = null;
}

function pressKey(event) {
  if ($("compare").hidden || $("large").open || event.repeat) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const focused = document.activeElement;
  // Who tabs to a button presses it with the space bar, as everywhere.
  if (event.key === " " && focused instanceof HTMLButtonElement) return;
  const actions = {
    Backspace: undo,
    "+": () => zoom(1.5),
    "-": () => zoom(1 / 1.5),
    0: showAll,
    f: () => $("colours").hidden || switchColours(),
    r: () => $("reshuffle").hidden || reshuffle(),
  };
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  let action = key in actions ? actions[key] : undefined;
  if (event.shiftKey && event.key in MOVES) action = () => move(...MOVES[event.key]);
  else if (event.key in KEYS) action = () => answer(KEYS[event.key]);
  if (action === undefined) return;
  // The space bar and the arrows would scroll a small window.
  event.preventDefault();
  action();
}

export function prepareCompare() {
  link($("left"), $("right"));
  for (const button of document.querySelectorAll("[data-outcome]")) {
    button.addEventListener("click", () => answer(button.dataset.outcome));
  }
  $("undo").addEventListener("click", undo);
  $("zoom-in").addEventListener("click", () => zoom(1.5));
  $("zoom-out").addEventListener("click", () => zoom(1 / 1.5));
  $("zoom-all").addEventListener("click", showAll);
  $("colours").addEventListener("click", switchColours);
  $("reshuffle").addEventListener("click", reshuffle);
  document.addEventListener("keydown", pressKey);
  document.addEventListener("click", (event) => {
    // A button that keeps the focus of a mouse click would take the next space bar for itself.
    if (event.detail > 0 && !$("compare").hidden) document.activeElement.blur();
  });
}
