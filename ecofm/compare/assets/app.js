// The page: lets annotators in, and leads from view to view.

import { enterMine, prepareMine } from "/answers.js";
import { enterCompare, forgetPair, prepareCompare, step } from "/compare.js";
import { Refused, ask, insist, kept } from "/net.js";
import { drawSheet } from "/pictures.js";
import { enterTiers, prepareTiers } from "/tiers.js";
import { $, chosenLanguage, make, speak, t } from "/texts.js";

const VIEWS = ["start", "guide", "compare", "tiers", "mine"];
let setup = { access: "name", languages: { en: "English" } };

function open(view) {
  for (const name of VIEWS) $(name).hidden = name !== view;
  $("bar-top").hidden = view === "start";
  for (const button of document.querySelectorAll("[data-view]")) {
    if (button.dataset.view === view) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  scrollTo(0, 0);
  $(view).querySelector("h1").focus({ preventScroll: true });
}

function start(message = "") {
  forgetPair();
  open("start");
  $("start-error").textContent = message;
  $("name").value = kept.get("session", {}).annotator ?? "";
  $("name-field").hidden = setup.access === "invite";
  $("password-field").hidden = setup.access !== "password";
  if (setup.access !== "invite") $("name").focus();
}

async function begin(body) {
  const session = await ask("/api/session", body);
  if (kept.get("session", {}).annotator !== session.annotator) {
    kept.set("votes", []);
    kept.set("unsent", null);
    kept.set("tiers", null);
  }
  kept.set("session", session);
  await enter("guide");
}

// The owner's own instructions stand in place of the built-in ones.
async function drawGuide() {
  const session = kept.get("session", {});
  // Only what works here is promised.
  $("guide-enlarge").hidden = $("guide-reshuffle").hidden = !session.can_shuffle;
  $("guide-colours").hidden = (session.styles ?? []).length < 2;
  const pieces = await insist("/api/instructions");
  $("guide-built-in").hidden = pieces.length > 0;
  const tags = { heading: "h2", point: "li", text: "p" };
  const blocks = pieces.map((piece) => {
    if (piece.kind !== "example") return make(tags[piece.kind], {}, piece.text);
    const figures = [piece.better, piece.worse].map((side) => {
      const window = make("div", { class: "window" });
      drawSheet(window, side, "true", "picture").catch(() => {});
      return window;
    });
    return make("figure", { class: "example" }, figures[0], make("span", { class: "over-sign" }, ">"), figures[1],
      make("figcaption", {}, piece.text));
  });
  $("guide-own").replaceChildren(...blocks);
}

const ENTER = {
  guide: drawGuide,
  compare: () => enterCompare(start),
  tiers: enterTiers,
  mine: () => enterMine(step),
};

async function enter(view) {
  const session = kept.get("session", {});
  open(view);
  $("who").textContent = session.annotator;
  $("nav-tiers").hidden = !session.has_tiers;
  try {
    await ENTER[view]();
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 401) throw error;
    start(error.message);
  }
}

function fillLanguages(language) {
  const options = Object.entries(setup.languages).map(([code, name]) =>
    make("option", { value: code, selected: code === language }, name),
  );
  $("language").replaceChildren(...options);
  $("language").addEventListener("change", async () => {
    localStorage.setItem("language", $("language").value);
    await speak($("language").value);
  });
}

$("start-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const body = { annotator: $("name").value };
  if (setup.access === "password") body.password = $("password").value;
  try {
    await begin(body);
  } catch (error) {
    $("start-error").textContent = error instanceof Refused ? error.message : t("no_answer");
  }
});
for (const button of document.querySelectorAll("[data-view]")) {
  button.addEventListener("click", () => enter(button.dataset.view));
}
$("begin").addEventListener("click", () => enter("compare"));
prepareCompare();
prepareTiers(step);
prepareMine(step);

setup = await insist("/api/setup");
const language = chosenLanguage(setup.languages);
await speak(language);
fillLanguages(language);
const invite = new URLSearchParams(location.hash.slice(1)).get("invite");
if (invite !== null) {
  // The secret leaves the address bar, so that it is not copied along with the address.
  history.replaceState(null, "", "/");
  await begin({ invite }).catch((error) => start(error.message));
} else if (kept.get("session", null) === null) start();
else await enter("compare");
