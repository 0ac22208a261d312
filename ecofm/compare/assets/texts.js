// The page's words, in the language that the reader chose or their browser asks for.

let words = {};

export const $ = (id) => document.getElementById(id);

export function t(key, values = {}) {
  return (words[key] ?? key).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

// Tells screen readers and eyes alike what just happened; `routine` is not shown on small screens.
export function say(text, routine = false) {
  const line = document.querySelector("main:not([hidden]) [role=status]") ?? $("status");
  line.textContent = text;
  line.classList.toggle("routine", routine || text === "");
}

export function chosenLanguage(languages) {
  const wanted = [localStorage.getItem("language"), ...navigator.languages];
  const codes = wanted.map((code) => (code ?? "").toLowerCase().split("-")[0]);
  return codes.find((code) => code in languages) ?? "en";
}

export async function speak(language) {
  words = await (await fetch(`/texts/${language}.json`)).json();
  document.documentElement.lang = language;
  document.title = t("title_short");
  translate(document);
}

export function translate(root) {
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", t(element.dataset.label));
    element.title = element.getAttribute("aria-label");
  }
}

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
