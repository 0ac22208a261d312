// The tiers: groups are dragged, or chosen and put, into tiers; saved when the annotator says so.

import { insist, kept, makeId, picture } from "/net.js";
import { $, make, t } from "/texts.js";

const N_THUMBNAILS = 4;

let items = [];
let tiers = [];
let edition = "";
let chosen = null;

function name(item) {
  return t("group", { label: items[item].label ?? String(item + 1) });
}

function note(text) {
  $("tiers-status").textContent = text;
}

function unplaced() {
  const placed = new Set(tiers.flat());
  return items.map((side) => side.item).filter((item) => !placed.has(item));
}

// Puts an item into tier `place`, or with `fresh` into a new tier before it; null: out of all.
function put(item, place, fresh = false) {
  const rows = tiers.map((row) => row.filter((other) => other !== item));
  if (place !== null) {
    if (fresh) rows.splice(place, 0, [item]);
    else rows[place].push(item);
  }
  tiers = rows.filter((row) => row.length > 0);
  kept.set("tiers", { edition, tiers });
  render();
  const now = tiers.findIndex((row) => row.includes(item));
  const label = name(item);
  note(`${now < 0 ? t("moved_out", { label }) : t("moved", { label, n: now + 1 })} ${t("tiers_unsaved")}`);
}

// One step up or down: out of a shared tier into a new one, else into the neighbour.
function nudge(item, up) {
  const now = tiers.findIndex((row) => row.includes(item));
  if (now < 0) return put(item, up ? tiers.length : 0, true);
  if (tiers[now].length > 1) return put(item, up ? now : now + 1, true);
  const next = up ? now - 1 : now + 1;
  if (next < 0 || next >= tiers.length) return undefined;
  return put(item, next);
}

function choose(item) {
  chosen = chosen === item ? null : item;
  for (const card of document.querySelectorAll(".group")) {
    card.setAttribute("aria-pressed", String(Number(card.dataset.item) === chosen));
  }
  $("tiers").classList.toggle("choosing", chosen !== null);
}

function makeCard(item) {
  const images = items[item].images.slice(0, N_THUMBNAILS).map((number) => {
    const image = make("img", { alt: "", draggable: false });
    picture(number).then((address) => { image.src = address; }).catch(() => {});
    return image;
  });
  const grid = make("span", { class: images.length > 1 ? "thumbs four" : "thumbs" }, ...images);
  const card = make("button", { type: "button", class: "group", draggable: true }, grid, make("span", {}, name(item)));
  card.dataset.item = item;
  card.setAttribute("aria-pressed", String(chosen === item));
  card.addEventListener("click", () => choose(item));
  card.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("text/plain", String(item));
    event.dataTransfer.effectAllowed = "move";
  });
  card.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
    event.preventDefault();
    nudge(item, event.key === "ArrowUp");
    document.querySelector(`.group[data-item="${item}"]`)?.focus();
  });
  return card;
}

function makeZone(label, cards, place, fresh) {
  const here = make("button", { type: "button", class: "put" }, fresh ? t("new_tier") : t("put_here"));
  const zone = make("section", { class: fresh ? "zone fresh" : "zone", "aria-label": label });
  if (!fresh) zone.append(make("h2", {}, label));
  zone.append(make("div", { class: "cards" }, ...cards), here);
  const drop = (item) => {
    if (!Number.isInteger(item) || !(item in items)) return;
    chosen = null;
    put(item, place, fresh);
  };
  here.addEventListener("click", () => { if (chosen !== null) drop(chosen); });
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    drop(Number.parseInt(event.dataTransfer.getData("text/plain"), 10));
  });
  return zone;
}

function render() {
  const zones = [];
  tiers.forEach((row, place) => {
    zones.push(makeZone(t("new_tier"), [], place, true));
    zones.push(makeZone(t("tier", { n: place + 1 }), row.map(makeCard), place, false));
  });
  zones.push(makeZone(t("new_tier"), [], tiers.length, true));
  zones.push(makeZone(t("unplaced"), unplaced().map(makeCard), null, false));
  $("tier-list").replaceChildren(...zones);
  $("tiers").classList.toggle("choosing", chosen !== null);
}

export async function enterTiers() {
  const found = await insist("/api/tiers");
  ({ items, edition } = found);
  const draft = kept.get("tiers", null);
  tiers = draft !== null && draft.edition === edition ? draft.tiers : found.tiers;
  render();
  note("");
}

export function prepareTiers(step) {
  $("tiers-save").addEventListener("click", () =>
    step(async () => {
      if (tiers.flat().length < 2) return note(t("tiers_few"));
      const saved = await insist("/api/tiers", { id: makeId(), edition, tiers });
      kept.set("tiers", null);
      return note(t("tiers_saved", { n: saved.n_comparisons }));
    }),
  );
}
