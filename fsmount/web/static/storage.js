// What the pictures take, how the store grows, and whether all of it is whole.

import { get } from "./api.js";
import { bars } from "./charts.js";
import { el, note } from "./dom.js";
import { bytes, count, counted, monthShort, span } from "./format.js";

const tile = (name, value, more) => el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value, more ? el("small", {}, more) : null));
const times = (whole, stored) => (stored ? `${(whole / stored).toFixed(1)} times` : "none");

function table(months) {
  const head = ["Month", "Pictures", "As files", "In the store", "Smaller"];
  return el(
    "details",
    { class: "more" },
    el("summary", {}, "The same as a table"),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Figures by month" }, el("table", { class: "table" }, el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, months.map(([month, pictures, whole, stored]) => el("tr", {}, el("th", { scope: "row" }, monthShort(month)), el("td", {}, count(pictures)), el("td", {}, bytes(whole)), el("td", {}, bytes(stored)), el("td", {}, times(whole, stored))))))),
  );
}

function health(place, tiles, found, signal) {
  get("api/health", signal).then((whole) => {
    const perDay = found.per_day;
    tiles.replaceChildren(
      tile("As files", bytes(whole.logical_bytes), counted(whole.files, "file")),
      tile("In the store", bytes(whole.stored_bytes), `with ${bytes(whole.parity_bytes)} of parity`),
      tile("Smaller", `${whole.ratio.toFixed(1)} times`, whole.trash_files ? `${counted(whole.trash_files, "file")} in the trash` : "index and packs counted"),
      tile("Free on the disk", bytes(whole.free_bytes), perDay && perDay.stored > 0 ? `enough for ${span(whole.free_bytes / perDay.stored)}` : null),
    );
    const items = whole.findings.map((each) => el("li", {}, el("b", { class: "bad" }, each.what), `: ${each.why}` + (each.files ? ` (${counted(each.files, "file")})` : "")));
    if (whole.more_findings) items.push(el("li", {}, `and ${count(whole.more_findings)} more`));
    place.lastChild.replaceWith(
      el(
        "div",
        { class: "plain" },
        items.length
          ? [el("ul", {}, items), el("p", { class: "hint" }, "To heal what can be healed: ", el("code", {}, "fsmount check --repair STORE"))]
          : el("p", { class: "good" }, "No damage: rows, packs and files agree."),
        whole.notices.map((each) => el("p", { class: "hint" }, `${each.what}: ${each.why}`)),
        el("p", { class: "hint" }, "Each file is read and compared by ", el("code", {}, "fsmount check --full STORE")),
      ),
    );
    place.dataset.ready = "storage";
  }).catch((error) => {
    if (error.name !== "AbortError") place.lastChild.replaceWith(note(error.message, null, true));
  });
}

export async function show({ about, signal }) {
  const found = await get("api/storage", signal);
  const { months, per_day: perDay, staged } = found;
  const tiles = el("dl", { class: "tiles" }, ["As files", "In the store", "Smaller", "Free on the disk"].map((name) => tile(name, "…", " ")));
  const damage = el("section", { class: "card" }, el("h2", {}, "Damage"), el("p", { class: "hint" }, "Comparing rows, packs and files …"));
  const growth = perDay
    ? el("ul", { class: "rows" }, [["A day", perDay.stored], ["A month", perDay.stored * 30], ["A year", perDay.stored * 365]].map(([name, value]) => el("li", {}, name, el("b", {}, `${bytes(value)} · ${counted(Math.round((perDay.pictures * value) / Math.max(perDay.stored, 1e-9)), "picture")}`))))
    : note("There are no pictures yet.");
  const element = el(
    "div",
    {},
    el("div", { class: "head" }, el("h1", {}, "Storage")),
    el("p", { class: "lead" }, about.path),
    tiles,
    el(
      "div",
      { class: "cards" },
      el("section", { class: "card across" }, el("h2", {}, "What each month brought to the store"), bars(months.map(([month, , , stored]) => [monthShort(month), stored]), bytes), table(months)),
      el("div", { class: "cards across" }, el("section", { class: "card" }, el("h2", {}, "Growth"), el("p", { class: "hint" }, perDay ? `If it goes on as in the last ${counted(perDay.days, "day")}` : ""), growth),
      el("section", { class: "card" }, el("h2", {}, "Still to be encoded"), el("p", { class: "hint" }, "By a mount, or by fsmount import."), staged[0] ? el("p", {}, el("b", {}, counted(staged[0], "picture")), `, ${bytes(staged[1])}`) : el("p", { class: "good" }, "Nothing: every picture is encoded.")),
        damage,
      ),
    ),
  );
  return { title: "Storage", element, placed: () => health(damage, tiles, found, signal) };
}
