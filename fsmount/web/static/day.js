// A day: how much of the screen was new through its hours, and the moments that brought something.

import { get, view } from "./api.js";
import { el, icon, note, svg } from "./dom.js";
import { clock, counted, dayLong, minutes, percent } from "./format.js";

const BIN_S = 300;
// A stretch of fewer idle pictures is no idle time.
const FEWEST = 3;
// Cards that the first painting has.
const AT_ONCE = 120;

export const ID = 0, OBJECT = 1, SECOND = 2, STORED = 3, BUSY = 4, FOLDER = 5;

function card(moment, shares) {
  const [id, object, second] = moment;
  const when = clock(second);
  const share = shares?.get(object);
  const small = el("small", {}, share === undefined ? (moment[BUSY] ? "" : "idle") : `${percent(share)} new`);
  const image = el("img", { src: view(id, object, 320), loading: "lazy", decoding: "async", alt: "", width: 320, height: 200 });
  const link = el("a", { class: "shot", href: `#/moment/${id}`, "aria-label": named(when, share), data: { id, object } }, image, el("span", {}, el("b", {}, when), small));
  image.addEventListener("error", () => link.classList.add("failed"));
  return link;
}

const named = (when, share) => (share === undefined ? `${when}, open the picture` : `${when}, ${percent(share)} of the screen new`);

function idle(moments) {
  const [first, last] = [moments[0][SECOND], moments[moments.length - 1][SECOND]];
  const length = minutes(Math.max(1, Math.round((last - first) / 60)));
  const strip = el("div", { class: "strip" });
  const details = el(
    "details",
    { class: "idle" },
    el("summary", {}, `Idle for ${length}, ${clock(first)} to ${clock(last)} · ${counted(moments.length, "picture")}`),
    strip,
  );
  details.addEventListener("toggle", () => {
    if (details.open && !strip.firstChild) strip.append(...moments.map((moment) => card(moment)));
  });
  return details;
}

// Runs of busy and of idle moments, in order.
function runs(moments) {
  const found = [];
  for (const moment of moments) {
    const last = found[found.length - 1];
    if (last && last.busy === moment[BUSY]) last.moments.push(moment);
    else found.push({ busy: moment[BUSY], moments: [moment] });
  }
  return found;
}

// What each hour has, in order: a moment, or a stretch of idle ones.
function hours(moments) {
  const found = new Map();
  const add = (moment, make) => {
    const hour = Math.floor(moment[SECOND] / 3600);
    if (!found.has(hour)) found.set(hour, []);
    found.get(hour).push(make);
  };
  for (const run of runs(moments)) {
    if (!run.busy && run.moments.length >= FEWEST) add(run.moments[0], () => idle(run.moments));
    else for (const moment of run.moments) add(moment, (shares) => card(moment, shares));
  }
  return [...found];
}

function section([hour, parts], shares) {
  const name = `${String(hour).padStart(2, "0")}:00`;
  return el("section", { class: "hour", id: `hour-${hour}`, "aria-label": `From ${name}` }, el("h2", {}, name), el("div", { class: "strip" }, parts.map((make) => make(shares))));
}

// Columns of five minutes: the share of the screen that was new, or a line where nothing was.
// `from` and `to` are the seconds of the day at both sides.
export function columns(moments, shares, width, height, from = 0, to = 86400) {
  const bins = new Map();
  for (const moment of moments) {
    const bin = Math.floor(moment[SECOND] / BIN_S);
    const share = moment[BUSY] ? (shares ? shares.get(moment[OBJECT]) || 0.02 : 0.15) : 0;
    bins.set(bin, Math.max(bins.get(bin) || 0, share));
  }
  const step = (width * BIN_S) / (to - from);
  return [...bins].map(([bin, share]) => {
    const tall = share ? Math.max(0.06, Math.sqrt(share)) * height : 1.5;
    return svg("rect", { class: share ? "bar" : "bar soft", x: ((bin - from / BIN_S) * step).toFixed(2), y: (height - tall).toFixed(2), width: (step * 0.78).toFixed(2), height: tall.toFixed(2) });
  });
}

function chart(moments) {
  const drawing = svg("svg", { viewBox: "0 0 864 92", preserveAspectRatio: "none", role: "img", "aria-label": "Share of the screen that was new, in steps of five minutes" });
  drawing.append(...columns(moments, null, 864, 90));
  drawing.addEventListener("click", (event) => {
    const box = drawing.getBoundingClientRect();
    const hour = Math.floor(((event.clientX - box.left) / box.width) * 24);
    for (let each = hour; each >= 0; each--) {
      const found = document.getElementById(`hour-${each}`);
      if (found) return found.scrollIntoView({ behavior: "smooth" });
    }
  });
  const ticks = ["00:00", "06:00", "12:00", "18:00", "24:00"].map((text) => el("span", {}, text));
  return [drawing, el("figure", { class: "card clock" }, el("figcaption", { class: "hint" }, "How much of the screen was new"), drawing, el("div", { class: "ticks", "aria-hidden": "true" }, ticks))];
}

function activeMinutes(moments) {
  const busy = new Map();
  for (const moment of moments) {
    const minute = Math.floor(moment[SECOND] / 60);
    busy.set(minute, busy.get(minute) || moment[BUSY]);
  }
  const all = [...busy.keys()].sort((a, b) => a - b);
  return all.reduce((sum, minute, at) => sum + (busy.get(minute) ? Math.min(5, (all[at + 1] || minute + 1) - minute) : 0), 0);
}

function step(day, label, name) {
  if (!day) return el("span", { class: "button", "aria-disabled": "true" }, icon(name));
  return el("a", { class: "button", href: `#/day/${day}`, "aria-label": `${label}: ${dayLong(day)}`, title: label, rel: name === "back" ? "prev" : "next" }, icon(name));
}

function folderPicker(found, chosen) {
  if (found.folders.length < 2) return null;
  const pick = el("select", { class: "pick", "aria-label": "Folder" }, el("option", { value: "" }, "All folders"), found.folders.map((name, number) => el("option", { value: number, selected: String(number) === chosen }, name || "/")));
  pick.addEventListener("change", () => {
    location.hash = `#/day/${found.day}` + (pick.value === "" ? "" : `?folder=${pick.value}`);
  });
  return pick;
}

// Cards are reached by arrow keys, too.
function keys(root) {
  root.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move || !event.target.matches(".shot")) return;
    const all = [...root.querySelectorAll(".shot")];
    const next = all[all.indexOf(event.target) + move];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  });
}

export async function show({ parts, query, signal }) {
  const found = await get(`api/day/${parts[0]}`, signal);
  const chosen = query.get("folder");
  const moments = chosen === null ? found.moments : found.moments.filter((moment) => String(moment[FOLDER]) === chosen);
  const busy = moments.filter((moment) => moment[BUSY]);
  const head = el(
    "div",
    { class: "head of-day" },
    el("h1", {}, dayLong(found.day)),
    folderPicker(found, chosen),
    busy.length ? el("a", { class: "button", href: `#/moment/${busy[0][ID]}?play=1` }, icon("play"), "Play") : null,
    step(found.before, "Day before", "back"),
    step(found.after, "Next day", "next"),
  );
  if (!moments.length) return { title: dayLong(found.day), element: el("div", {}, head, note("There are no pictures of this day.")) };
  const [drawing, figure] = chart(moments);
  const byHour = hours(moments);
  // The first hours are drawn at once, and the others behind them a moment later.
  let first = 0;
  for (let cards = 0; first < byHour.length && cards < AT_ONCE; first++) cards += byHour[first][1].length;
  const root = el(
    "div",
    {},
    head,
    el("p", { class: "lead" }, `${minutes(activeMinutes(moments))} active · ${counted(busy.length, "moment")} that brought something new · ${counted(moments.length, "picture")}`),
    figure,
    byHour.slice(0, first).map((part) => section(part)),
  );
  keys(root);
  const later = new Promise((resolve) => {
    requestAnimationFrame(() => setTimeout(resolve));
  });
  later.then(async () => {
    const { shares } = await get(`api/day/${found.day}/shares`, signal);
    const known = new Map(shares);
    drawing.replaceChildren(...columns(moments, known, 864, 90));
    tell(root, known);
    root.append(...byHour.slice(first).map((part) => section(part, known)));
    root.dataset.shares = "known";
  }).catch((error) => {
    if (error.name !== "AbortError") root.append(...byHour.slice(first).map((part) => section(part)));
  });
  return { title: dayLong(found.day), element: root };
}

// Write the shares on cards that are there already.
function tell(root, known) {
  for (const link of root.querySelectorAll(".shot")) {
    const share = known.get(Number(link.dataset.object));
    if (share === undefined) continue;
    link.querySelector("small").textContent = `${percent(share)} new`;
    link.setAttribute("aria-label", named(link.querySelector("b").textContent, share));
  }
}
