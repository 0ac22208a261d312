// Requests: answers are sent until they are acknowledged; pictures are fetched with the session.

import { say, t } from "/texts.js";

const RETRY_MS = [300, 1000, 2000, 4000, 8000];
const MAX_PICTURES = 160;

// sessionStorage keeps the session, the unsent answer and the answers that can be taken back, so
// that a reload, or a restart of the server, loses nothing.
export const kept = {
  get: (key, otherwise) => JSON.parse(sessionStorage.getItem(key) ?? JSON.stringify(otherwise)),
  set: (key, value) => sessionStorage.setItem(key, JSON.stringify(value)),
};

export class Refused extends Error {
  constructor(status, detail) {
    super(typeof detail === "string" ? detail : `the server refused the request (${status})`);
    this.status = status;
  }
}

async function send(path, body) {
  const headers = { "X-Ecofm-Token": kept.get("session", {}).token ?? "" };
  const options = { headers, signal: AbortSignal.timeout(20000) };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const response = await fetch(path, options);
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new Refused(response.status, answer.detail);
  }
  return response;
}

export async function ask(path, body) {
  return (await send(path, body)).json();
}

// Network failures and server faults are tried again for as long as it takes; refusals are not.
export async function insist(path, body) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await ask(path, body);
      if (attempt > 0) say("");
      return answer;
    } catch (error) {
      if (error instanceof Refused && error.status < 500) throw error;
      say(error instanceof Refused ? t("trouble", { reason: error.message }) : t("retrying"));
      const wait = RETRY_MS[Math.min(attempt, RETRY_MS.length - 1)];
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

const pictures = new Map();

// The address of a picture in this page's memory; the oldest are let go.
export function picture(number, style = "true") {
  const key = `/image/${number}?style=${style}`;
  if (!pictures.has(key)) {
    const address = send(key)
      .then((response) => response.blob())
      .then((blob) => URL.createObjectURL(blob));
    address.catch(() => pictures.delete(key));
    pictures.set(key, address);
    if (pictures.size > MAX_PICTURES) {
      const [oldest, gone] = pictures.entries().next().value;
      pictures.delete(oldest);
      gone.then((url) => URL.revokeObjectURL(url)).catch(() => {});
    }
  }
  return pictures.get(key);
}

// crypto.randomUUID exists on https and localhost only.
export function makeId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
    byte.toString(16).padStart(2, "0"),
  ).join("");
}
