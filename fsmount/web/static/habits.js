// When the screen was used, and what it mostly looked like.

import { get, view } from "./api.js";
import { el, note } from "./dom.js";
import { bars } from "./charts.js";
import { count, counted, dayShort, minutes, monthShort, percent } from "./format.js";

const DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

function level(active, most) {
  if (!active) return 0;
  return Math.min(4, 1 + Math.floor((3.999 * active) / most));
}

function grid(found) {
  // Of each weekday there may be more days than of another.
  const means = found.hours.map((row, day) => row.map((active) => (found.weekdays[day] ? active / found.weekdays[day] : 0)));
  const most = Math.max(...means.flat(), 1);
  const head = Array.from({ length: 24 }, (_, hour) => el("th", { scope: "col" }, el("span", { class: hour % 3 ? "hidden" : "" }, String(hour).padStart(2, "0"))));
  const rows = means.map((row, day) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, el("span", { "aria-hidden": "true" }, DAYS[day].slice(0, 3)), el("span", { class: "hidden" }, DAYS[day])),
      row.map((active, hour) => {
        const text = `${DAYS[day]}, ${hour} to ${hour + 1} o'clock: ${Math.round(active)} of 60 minutes active`;
        return el("td", { class: `level-${level(active, most)}`, title: text }, el("span", { class: "hidden" }, `${Math.round(active)} min`));
      }),
    ),
  );
  return el("div", { class: "scroll" }, el("table", { class: "grid24" }, el("caption", { class: "hidden" }, "Active minutes by weekday and hour, as means"), el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", { class: "hidden" }, "Weekday")), head)), el("tbody", {}, rows)));
}

const list = (rows) => el("ul", { class: "rows" }, rows.map(([what, value]) => el("li", {}, what, el("b", {}, value))));

function longestIdle(found) {
  return list(
    found.idle.map(([start, end, length]) => {
      const [day, from] = start.split("T");
      const [last, to] = end.split("T");
      const until = last === day ? to : `${dayShort(last)}, ${to}`;
      return [el("a", { href: `#/day/${day}` }, `${dayShort(day)}, ${from} to ${until}`), minutes(length)];
    }),
  );
}

function layouts(place, year, signal) {
  get(`api/layouts${year ? `?year=${year}` : ""}`, signal).then(({ looked_at, layouts: found }) => {
    place.querySelector(".hint").textContent = `Of ${counted(looked_at, "busy moment")}, spread over the time, so many looked alike. Pixels do not tell which programs ran.`;
    place.lastChild.replaceWith(
      found.length
        ? el("div", { class: "layouts" }, found.map(([id, object, times, share]) => el("a", { class: "shot", href: `#/moment/${id}`, "aria-label": `A screen that makes ${percent(share)} of the moments` }, el("img", { src: view(id, object, 480), alt: "", loading: "lazy", width: 480, height: 300 }), el("span", {}, el("b", {}, percent(share)), el("small", {}, counted(times, "moment"))))))
        : note("Nothing recurs yet."),
    );
    place.dataset.ready = "habits";
  }).catch((error) => {
    if (error.name !== "AbortError") place.lastChild.replaceWith(note(error.message, null, true));
  });
}

export async function show({ query, signal }) {
  const year = query.get("year");
  const found = await get(`api/habits${year ? `?year=${year}` : ""}`, signal);
  const pick = el("select", { class: "pick", "aria-label": "Year" }, el("option", { value: "" }, "All years"), found.years.map((each) => el("option", { value: each, selected: String(each) === year }, each)));
  pick.addEventListener("change", () => (location.hash = pick.value ? `#/habits?year=${pick.value}` : "#/habits"));
  const head = el("div", { class: "head" }, el("h1", {}, "Habits"), pick);
  if (!found.days) return { title: "Habits", element: el("div", {}, head, note("There are no pictures of this time.")) };
  const hours = found.hours.reduce((sum, row) => row.map((active, hour) => sum[hour] + active), Array(24).fill(0));
  const top = hours.indexOf(Math.max(...hours));
  const tiles = [
    ["Active on a day", minutes(Math.round(found.active_min / found.days)), `mean of ${counted(found.days, "day")}`],
    ["Active in all", minutes(found.active_min), "minutes in which something was new"],
    ["Busiest hour", `${String(top).padStart(2, "0")}:00 to ${String((top + 1) % 24).padStart(2, "0")}:00`, `${percent(hours[top] / Math.max(1, found.active_min))} of the active time`],
    ["Busiest day", found.busiest.length ? minutes(found.busiest[0][1]) : "none", found.busiest.length ? dayShort(found.busiest[0][0]) : ""],
  ];
  const recurring = el("section", { class: "card across" }, el("h2", {}, "What the screen mostly looked like"), el("p", { class: "hint" }, "Looking at moments …"), el("div", { class: "layouts" }));
  const element = el(
    "div",
    {},
    head,
    el("p", { class: "lead" }, "A minute is active if the screen showed something that it had not shown before."),
    el("dl", { class: "tiles" }, tiles.map(([name, value, more]) => el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value, el("small", {}, more))))),
    el(
      "div",
      { class: "cards" },
      el("section", { class: "card across" }, el("h2", {}, "Hours of the week"), el("p", { class: "hint" }, "Darker: more of the hour was active."), grid(found)),
      el("section", { class: "card across" }, el("h2", {}, "Active hours by month"), bars(found.months.map(([month, active]) => [monthShort(month), active / 60]), (value) => `${count(Math.round(value))} h`)),
      el("section", { class: "card" }, el("h2", {}, "Busiest days"), list(found.busiest.map(([day, active]) => [el("a", { href: `#/day/${day}` }, dayShort(day)), minutes(active)]))),
      el("section", { class: "card" }, el("h2", {}, "Longest idle"), found.idle.length ? longestIdle(found) : note("There was no idle time.")),
      recurring,
    ),
  );
  return { title: "Habits", element, placed: () => layouts(recurring, year, signal) };
}
