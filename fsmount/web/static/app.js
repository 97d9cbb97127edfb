// The frame of the page: which view the address names, the links above it, and the search field.

import { expect, get } from "./api.js";
import { el, note } from "./dom.js";

const VIEWS = {
  days: () => import("./days.js"),
  day: () => import("./day.js"),
  moment: () => import("./moment.js"),
  search: () => import("./search.js"),
  habits: () => import("./habits.js"),
  storage: () => import("./storage.js"),
  albums: () => import("./albums.js"),
};

const main = document.getElementById("main");
const query = document.getElementById("query");
let about = null;
let leave = null;
let shown = 0;

function place() {
  const [path, rest] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...parts] = path.split("/");
  return { name: name || (about.has_store ? "days" : "albums"), parts, query: new URLSearchParams(rest || "") };
}

function links() {
  const found = [];
  if (about.has_store) found.push(["days", "Days"], ["habits", "Habits"], ["storage", "Storage"]);
  if (about.has_albums) found.push(["albums", "Albums"]);
  document.getElementById("views").append(...found.map(([name, text]) => el("a", { href: `#/${name}`, data: { view: name } }, text)));
}

function mark(name) {
  const top = { day: "days", moment: "days" }[name] || name;
  for (const link of document.querySelectorAll("#views a")) {
    if (link.dataset.view === top) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.classList.toggle("viewing", name === "moment");
}

async function show() {
  if (location.hash === "#main") return;
  const at = place();
  const turn = ++shown;
  if (leave) leave();
  leave = null;
  mark(at.name);
  if (document.activeElement !== query) query.value = at.query.get("q") || "";
  const load = VIEWS[at.name];
  const stop = new AbortController();
  leave = () => stop.abort();
  try {
    if (!load) throw new Error("There is no such view.");
    const view = await load();
    if (turn !== shown) return;
    const made = await view.show({ parts: at.parts, query: at.query, about, signal: stop.signal, main });
    if (turn !== shown) return;
    if (made && made.element) {
      main.replaceChildren(made.element);
      if (made.placed) made.placed();
    }
    document.title = `${(made && made.title) || "fsmount"} · ${about.store}`;
    if (!made || made.focus !== false) {
      const heading = main.querySelector("h1");
      if (heading) {
        heading.tabIndex = -1;
        heading.focus({ preventScroll: true });
      }
      window.scrollTo(0, 0);
    }
  } catch (error) {
    if (error.name === "AbortError" || turn !== shown) return;
    main.replaceChildren(el("div", { class: "head" }, el("h1", {}, "This cannot be shown")), note(error.message, null, true));
    document.title = "fsmount";
  }
}

function search() {
  const form = document.getElementById("find");
  form.hidden = !about.has_store;
  let waiting = 0;
  const go = () => {
    const text = query.value;
    const target = text.trim() ? `#/search?q=${encodeURIComponent(text.toWellFormed ? text.toWellFormed() : text)}` : "#/search";
    // Typing goes on in one entry of the history.
    if (location.hash.startsWith("#/search")) {
      history.replaceState(null, "", target);
      show();
    } else location.hash = target;
  };
  query.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(go, 120);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    go();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      query.focus();
      query.select();
    }
  });
}

// Reading all names of a large store takes some seconds, once.
async function ready() {
  for (;;) {
    about = await get("api/about");
    if (about.ready) return;
    main.replaceChildren(note(`Reading the names of all pictures: ${about.names_read.toLocaleString("en-GB")} so far`));
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
}

try {
  // What the first view needs comes while the server tells what there is.
  const [, first = "days", day] = location.hash.match(/^#\/(\w+)(?:\/([\d-]+)$)?/) || [];
  VIEWS[first]?.().catch(() => {});
  if (first === "days") expect("api/days");
  if (first === "day" && day) expect(`api/day/${day}`);
  await ready();
  document.getElementById("store").textContent = about.store;
  links();
  search();
  window.addEventListener("hashchange", show);
  await show();
} catch (error) {
  main.replaceChildren(note(error.message, null, true));
}
