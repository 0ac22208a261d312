// Sheets of pictures, and the zoom that both sides share.

import { picture } from "/net.js";
import { $, make, t } from "/texts.js";

const MAX_SCALE = 8;
const view = { scale: 1, x: 0, y: 0 }; // x, y: how far moved, in widths of the window
let sheets = [];

// Shows an item's pictures in an element; resolves when all are there.
export function drawSheet(window, side, style, label) {
  const total = side.images.length;
  const columns = Math.ceil(Math.sqrt(total));
  const sheet = make("div", { class: `sheet columns-${columns}` });
  const loading = side.images.map(async (number, place) => {
    const name = t(label, { label: side.label ?? "", n: place + 1, total });
    const image = make("img", { alt: name, draggable: false });
    const cell = total > 1 ? make("button", { type: "button", class: "cell" }, image) : image;
    if (total > 1) {
      cell.setAttribute("aria-label", `${t("enlarge")}: ${name}`);
      cell.addEventListener("click", () => enlarge(number, style, name));
    }
    sheet.append(cell);
    image.src = await picture(number, style);
    await image.decode().catch(() => {});
  });
  window.replaceChildren(sheet);
  return Promise.all(loading);
}

export async function enlarge(number, style, name) {
  if (moved) return; // it was a drag
  const image = make("img", { alt: name });
  image.src = await picture(number, style);
  $("large-picture").replaceChildren(image);
  $("large").showModal();
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}

function apply() {
  const most = (view.scale - 1) / 2;
  view.x = clamp(view.x, -most, most);
  view.y = clamp(view.y, -most, most);
  for (const window of sheets) {
    window.classList.toggle("zoomed", view.scale > 1);
    const sheet = window.firstElementChild;
    if (sheet) {
      sheet.style.transform = `translate(${view.x * 100}%, ${view.y * 100}%) scale(${view.scale})`;
    }
  }
}

// Zooms by a factor, keeping the point (fx, fy) of the window (from its middle) where it is.
export function zoom(factor, fx = 0, fy = 0) {
  const scale = clamp(view.scale * factor, 1, MAX_SCALE);
  const grown = scale / view.scale;
  view.x = fx - (fx - view.x) * grown;
  view.y = fy - (fy - view.y) * grown;
  view.scale = scale;
  apply();
}

export function move(dx, dy) {
  view.x += dx;
  view.y += dy;
  apply();
}

export function showAll() {
  Object.assign(view, { scale: 1, x: 0, y: 0 });
  apply();
}

let moved = false;

// Wheel, drag and pinch on any of the windows move all of them.
export function link(...windows) {
  sheets = windows;
  const pointers = new Map();
  for (const window of windows) {
    const place = (event) => {
      const box = window.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width - 0.5, (event.clientY - box.top) / box.height - 0.5];
    };
    window.addEventListener("wheel", (event) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 400), ...place(event));
    }, { passive: false });
    window.addEventListener("dblclick", (event) => zoom(2, ...place(event)));
    window.addEventListener("pointerdown", (event) => {
      if (pointers.size === 0) moved = false;
      pointers.set(event.pointerId, place(event));
    });
    window.addEventListener("pointermove", (event) => {
      if (!pointers.has(event.pointerId)) return;
      const [x0, y0] = pointers.get(event.pointerId);
      const [x1, y1] = place(event);
      if (pointers.size === 1) {
        if (Math.hypot(x1 - x0, y1 - y0) < 0.01 && !moved) return;
        if (!moved && view.scale > 1) window.setPointerCapture(event.pointerId);
        moved = view.scale > 1;
        move(x1 - x0, y1 - y0);
      } else {
        const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
        const before = Math.hypot(x0 - other[0], y0 - other[1]);
        const after = Math.hypot(x1 - other[0], y1 - other[1]);
        moved = true;
        if (before > 0) zoom(after / before, (x1 + other[0]) / 2, (y1 + other[1]) / 2);
      }
      pointers.set(event.pointerId, [x1, y1]);
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
      window.addEventListener(end, (event) => {
        pointers.delete(event.pointerId);
        // The click that ends a drag comes right after, and opens nothing.
        setTimeout(() => { if (pointers.size === 0) moved = false; }, 0);
      });
    }
  }
}
