// All days as calendars, a year below the other. The colour of a day says how much of the screen was
// new, or how long it was active.

import { get } from "./api.js";
import { el, note, say } from "./dom.js";
import { count, counted, dayLong, minutes, monthLong, percent, screens } from "./format.js";

const ACTIVE = 3;
const SCREENS = 4;
const SIX_HOURS = [1, 60, 180, 360];
const NAMES = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"];

const pad = (n) => String(n).padStart(2, "0");

// How days are coloured. Minutes have levels that people know; how much is new depends on what they do.
const MEASURES = {
  new: {
    name: "New on the screen",
    levels: (days) => {
      const some = days.map((row) => row[SCREENS]).filter((each) => each > 0).sort((a, b) => a - b);
      return [0, 0.25, 0.5, 0.75].map((part) => some[Math.floor(part * some.length)] ?? Infinity);
    },
    column: SCREENS,
    least: "nothing new",
    most: (levels) => `${screens(levels[3])} and more`,
  },
  active: { name: "Time active", levels: () => SIX_HOURS, column: ACTIVE, least: "idle", most: () => "6 h active and more" },
};
let chosen = "new";

function colour(link, { column }, levels, row) {
  link.className = `level-${levels.filter((least) => row[column] >= least).length}`;
}

function cell(day, found, links) {
  if (!found) return el("span", {}, day);
  const [name, pictures, busy, active, fresh] = found;
  const parts = [`${minutes(active)} active`, counted(pictures, "picture")];
  if (fresh !== null) parts.unshift(`${screens(fresh)} new`);
  const label = `${dayLong(name)}: ${parts.join(", ")}`;
  const link = el("a", { href: `#/day/${name}`, "aria-label": label, title: label, tabindex: -1, data: { day: name, busy } }, day);
  links.push([link, found]);
  return link;
}

function monthOf(year, month, byDay, heading, links) {
  const first = new Date(Date.UTC(year, month, 1));
  const length = new Date(Date.UTC(year, month + 1, 0)).getUTCDate();
  const before = (first.getUTCDay() + 6) % 7;
  const cells = Array.from({ length: before }, () => el("span", {}));
  for (let day = 1; day <= length; day++) cells.push(cell(day, byDay.get(`${year}-${pad(month + 1)}-${pad(day)}`), links));
  return el(
    "section",
    { class: cells.some((each) => each.href) ? "month" : "month empty" },
    el(heading, { class: "name" }, monthLong(month)),
    el("div", { class: "week", "aria-hidden": "true" }, NAMES.map((name) => el("span", {}, name))),
    el("div", { class: "weeks" }, cells),
  );
}

// One day of a year is reached by Tab, the others by arrow keys.
function keys(section) {
  const all = [...section.querySelectorAll("a[data-day]")];
  if (!all.length) return;
  all[all.length - 1].tabIndex = 0;
  const names = all.map((link) => Date.parse(link.dataset.day) / 864e5);
  section.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -7, ArrowDown: 7 }[event.key];
    const at = all.indexOf(event.target);
    if (at < 0 || (!step && event.key !== "Home" && event.key !== "End")) return;
    event.preventDefault();
    let next = event.key === "Home" ? 0 : all.length - 1;
    if (step) {
      const wanted = names[at] + step;
      // The nearest day with pictures in that direction.
      next = step > 0 ? names.findIndex((day) => day >= wanted) : names.findLastIndex((day) => day <= wanted);
    }
    if (next < 0) return;
    all[at].tabIndex = -1;
    all[next].tabIndex = 0;
    all[next].focus();
  });
}

// The months of a year, without those before the first and behind the last picture of all.
function months(days, { oldest, newest }) {
  const numbers = days.map((row) => Number(row[0].slice(5, 7)) - 1);
  const [first, last] = [oldest ? numbers[0] : 0, newest ? numbers[numbers.length - 1] : 11];
  return Array.from({ length: last - first + 1 }, (_, at) => first + at);
}

function yearOf(year, days, ends, links) {
  const top = ends.newest;
  const byDay = new Map(days.map((row) => [row[0], row]));
  const sum = (column) => days.reduce((total, row) => total + row[column], 0);
  const section = el(
    "section",
    { class: "year", id: `year-${year}`, "aria-labelledby": `name-${year}` },
    el(
      "div",
      { class: "head" },
      el(top ? "h1" : "h2", { id: `name-${year}` }, year),
      ends.legend,
    ),
    el("p", { class: "lead" }, `${counted(days.length, "day")} with pictures · ${minutes(sum(ACTIVE))} active · ${counted(sum(1), "picture")}`),
    ends.choice,
    el("div", { class: "months" }, months(days, ends).map((month) => monthOf(year, month, byDay, top ? "h2" : "h3", links))),
  );
  keys(section);
  return section;
}

// The buttons that choose a measure, and what the colours of it mean. `read` is the share of pictures
// of which it is known how much was new.
function measures(days, read, links) {
  const levels = Object.fromEntries(Object.entries(MEASURES).map(([name, { levels }]) => [name, levels(days)]));
  const [least, most] = [el("span", {}), el("span", {})];
  const legend = el("p", { class: "legend" }, least, [0, 1, 2, 3, 4].map((each) => el("i", { class: `level-${each}` })), most);
  const buttons = Object.entries(MEASURES).map(([name, { name: label }]) =>
    el("button", { type: "button", class: "button", data: { measure: name }, onclick: () => use(name, true) }, label),
  );
  function use(name, aloud) {
    chosen = name;
    const shown = read < 1 ? "active" : name;
    for (const each of buttons) each.setAttribute("aria-pressed", String(each.dataset.measure === shown));
    for (const [link, row] of links) colour(link, MEASURES[shown], levels[shown], row);
    least.textContent = MEASURES[shown].least;
    most.textContent = MEASURES[shown].most(levels[shown]);
    if (aloud) say(MEASURES[shown].name);
  }
  const choice =
    read < 1
      ? el("p", { class: "lead", data: { read } }, `The colours say how long days were active. How much of the screen was new has been read for ${percent(read)} of the pictures; open this view again later.`)
      : el("div", { class: "choice", role: "group", "aria-label": "Colours" }, buttons);
  return { legend, choice, colour: () => use(chosen) };
}

export async function show({ signal }) {
  const { days, read } = await get("api/days", signal);
  if (!days.length) {
    return {
      title: "Days",
      element: el("div", {}, el("div", { class: "head" }, el("h1", {}, "No pictures yet")), note("Copy screenshots into the mount, or import a folder:", "fsmount import FOLDER STORE")),
    };
  }
  const years = new Map();
  for (const row of days) {
    const year = Number(row[0].slice(0, 4));
    if (!years.has(year)) years.set(year, []);
    years.get(year).push(row);
  }
  const newest = [...years.keys()].sort((a, b) => b - a);
  const links = [];
  const { legend, choice, colour: colourAll } = measures(days, read, links);
  const sections = newest.map((year, number) => {
    const ends = { newest: number === 0, oldest: number === newest.length - 1 };
    return yearOf(year, years.get(year), ends.newest ? { ...ends, legend, choice } : ends, links);
  });
  colourAll();
  return { title: "Days", element: el("div", { data: { days: count(days.length) } }, sections) };
}
