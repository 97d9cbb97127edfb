// All days as calendars, a year below the other. The colour of a day says how long it was active.

import { get } from "./api.js";
import { el, note } from "./dom.js";
import { count, counted, dayLong, minutes, monthLong } from "./format.js";

const LEVELS = [1, 60, 180, 360];
const NAMES = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"];

const level = (active) => LEVELS.filter((least) => active >= least).length;
const pad = (n) => String(n).padStart(2, "0");

function cell(year, month, day, found) {
  if (!found) return el("span", {}, day);
  const [name, pictures, busy, active] = found;
  const label = `${dayLong(name)}: ${minutes(active)} active, ${counted(pictures, "picture")}`;
  return el(
    "a",
    { href: `#/day/${name}`, class: `level-${level(active)}`, "aria-label": label, title: label, tabindex: -1, data: { day: name, busy } },
    day,
  );
}

function monthOf(year, month, byDay, heading) {
  const first = new Date(Date.UTC(year, month, 1));
  const length = new Date(Date.UTC(year, month + 1, 0)).getUTCDate();
  const before = (first.getUTCDay() + 6) % 7;
  const cells = Array.from({ length: before }, () => el("span", {}));
  for (let day = 1; day <= length; day++) cells.push(cell(year, month, day, byDay.get(`${year}-${pad(month + 1)}-${pad(day)}`)));
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

function yearOf(year, days, ends) {
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
      top
        ? el(
            "p",
            { class: "legend" },
            el("span", {}, "idle"),
            [0, 1, 2, 3, 4].map((each) => el("i", { class: `level-${each}` })),
            el("span", {}, "6 h active and more"),
          )
        : null,
    ),
    el("p", { class: "lead" }, `${counted(days.length, "day")} with pictures · ${minutes(sum(3))} active · ${counted(sum(1), "picture")}`),
    el("div", { class: "months" }, months(days, ends).map((month) => monthOf(year, month, byDay, top ? "h2" : "h3"))),
  );
  keys(section);
  return section;
}

export async function show({ signal }) {
  const { days } = await get("api/days", signal);
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
  const sections = newest.map((year, number) => yearOf(year, years.get(year), { newest: number === 0, oldest: number === newest.length - 1 }));
  return { title: "Days", element: el("div", { data: { days: count(days.length) } }, sections) };
}
