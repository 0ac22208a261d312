// One's own answers: seen and deleted.

import { forgetPair, showProgress } from "/compare.js";
import { Refused, ask, insist, kept, makeId, picture } from "/net.js";
import { $, make, t } from "/texts.js";

let nShown = 0;

function makeSide(side) {
  if (side === null) return make("span", { class: "thumbs" }, t("gone"));
  const image = make("img", { alt: t("picture", { label: side.label ?? "" }), title: side.label ?? "" });
  picture(side.images[0]).then((address) => { image.src = address; }).catch(() => {});
  return make("span", { class: "thumbs" }, image);
}

function makeRow(vote, step) {
  const when = new Date(vote.created).toLocaleString();
  const button = make("button", { type: "button", "aria-label": t("delete_this", { when }) }, t("delete"));
  const row = make("li", {}, makeSide(vote.left), make("span", { class: "said" }, t(`said_${vote.outcome}`),
    make("time", { datetime: vote.created }, when)), makeSide(vote.right), button);
  button.addEventListener("click", () =>
    step(async () => {
      showProgress(await insist("/api/undo", { id: vote.id }));
      kept.set("votes", kept.get("votes", []).filter((known) => known.vote.id !== vote.id));
      row.remove();
      nShown -= 1;
      $("mine-status").textContent = t("deleted");
    }),
  );
  return row;
}

async function addRows(step) {
  const found = await insist(`/api/votes?skip=${nShown}`);
  $("mine-list").append(...found.votes.map((vote) => makeRow(vote, step)));
  nShown += found.votes.length;
  $("mine-more").hidden = nShown >= found.n_done;
  if ($("mine-list").childElementCount === 0) $("mine-status").textContent = t("mine_none");
}

// The saved tiers are one answer of many groups; taking them back leaves those that are being made.
function makeTiers({ items, edition, tiers }, step) {
  const button = make("button", { type: "button" }, t("delete_tiers"));
  const rows = tiers.map((tier) => make("li", {}, ...tier.map((item) => makeSide(items[item]))));
  const row = make("li", { class: "own-tiers" }, make("span", { class: "said" }, t("mine_tiers")), make("ol", {}, ...rows), button);
  button.addEventListener("click", () =>
    step(async () => {
      // Asked once: sent again and late, it would take back the tiers that were saved since.
      try {
        await ask("/api/tiers", { id: makeId(), edition, tiers: [] });
      } catch (error) {
        if (error instanceof Refused) throw error;
        $("mine-status").textContent = t("no_answer");
        return;
      }
      row.remove();
      $("mine-status").textContent = t("deleted");
    }),
  );
  return row;
}

// A secret link, shown once: with it the same person is let in by another browser.
async function showLink() {
  const { invite } = await insist("/api/link", { sure: true });
  const address = make("input", { readOnly: true, value: `${location.origin}/#invite=${invite}`, "aria-label": t("link") });
  $("mine-link-shown").replaceChildren(make("p", {}, t("link_shown")), address);
  address.select();
}

export async function enterMine(step) {
  $("mine-link").hidden = !kept.get("session", {}).has_link;
  $("mine-link-shown").replaceChildren();
  nShown = 0;
  $("mine-list").replaceChildren();
  $("mine-status").textContent = "";
  if (kept.get("session", {}).has_tiers) {
    const found = await insist("/api/tiers");
    if (found.tiers.length > 0) $("mine-list").append(makeTiers(found, step));
  }
  await addRows(step);
}

export function prepareMine(step) {
  $("mine-more").addEventListener("click", () => step(() => addRows(step)));
  $("mine-link").addEventListener("click", () => step(showLink));
  $("mine-forget").addEventListener("click", () => $("sure").showModal());
  $("sure").addEventListener("close", () => {
    if ($("sure").returnValue !== "yes") return;
    $("sure").returnValue = "";
    step(async () => {
      await insist("/api/forget", { sure: true });
      for (const [key, value] of [["votes", []], ["unsent", null], ["tiers", null]]) kept.set(key, value);
      forgetPair();
      showProgress(await insist("/api/progress"));
      await enterMine(step);
      $("mine-status").textContent = t("deleted_all");
    });
  });
}
