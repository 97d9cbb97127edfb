// Columns with their names. Readers of the screen get them as a list of names and values.

import { el } from "./dom.js";

// `rows` are [name, value]. `told` writes a value.
export function bars(rows, told) {
  const most = Math.max(...rows.map((row) => row[1]), 1e-9);
  // Names and values must not run into each other.
  const every = Math.ceil(rows.length / 14);
  const items = rows.map(([name, value], at) => {
    const shown = at % every === 0;
    return el(
      "li",
      { title: `${name}: ${told(value)}` },
      el("span", { class: "hidden" }, `${name}: ${told(value)}`),
      el("i", { "aria-hidden": "true", style: { height: `${((84 * value) / most).toFixed(1)}%` } }, every === 1 ? el("span", {}, told(value)) : null),
      el("b", { "aria-hidden": "true" }, shown ? name : ""),
    );
  });
  return el("ul", { class: "bars" }, items);
}
