// Words that were on the screen, as one types: each stretch of time with the part of the picture.

import { get, view } from "./api.js";
import { el, note, svg } from "./dom.js";
import { clock, counted, dayLong, monthShort } from "./format.js";

const ROOM = 70;
const WIDE = 620, HIGH = 250;

// The part of a picture around the first words, with space beside them.
function part(hit) {
  const [x, y, width, height] = hit.places[0];
  const wide = Math.min(hit.width || 1e9, Math.max(WIDE, width + 2 * ROOM));
  const high = Math.min(hit.height || 1e9, Math.max(HIGH, height + 2 * ROOM));
  const left = Math.max(0, Math.min(x + width / 2 - wide / 2, (hit.width || 1e9) - wide));
  const top = Math.max(0, Math.min(y + height / 2 - high / 2, (hit.height || 1e9) - high));
  return [left, top, wide, high].map(Math.round);
}

// The words of the query, marked in a line of text. It is text that was on a screen: never HTML.
function marked(text, words) {
  const parts = [];
  let rest = text;
  while (rest) {
    const low = rest.toLowerCase();
    const found = words.map((word) => [low.indexOf(word), word.length]).filter(([at]) => at >= 0).sort((a, b) => a[0] - b[0])[0];
    if (!found || low.length !== rest.length) break;
    parts.push(rest.slice(0, found[0]), el("mark", {}, rest.slice(found[0], found[0] + found[1])));
    rest = rest.slice(found[0] + found[1]);
  }
  return [...parts, rest];
}

function duration(seconds) {
  if (seconds < 90) return "for a moment";
  if (seconds < 5400) return `for ${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `for ${Math.round(seconds / 3600)} h`;
  return `for ${Math.round(seconds / 86400)} days`;
}

function card(hit, query, words) {
  const box = hit.places.length ? part(hit) : null;
  const image = el("img", { src: view(hit.id, hit.object, 960, box || [0, 0, WIDE, HIGH]), alt: "", loading: "lazy", width: box ? box[2] : WIDE, height: box ? box[3] : HIGH });
  const marks = box
    ? hit.places.map(([x, y, width, height]) => {
        const share = (n, of) => `${((100 * n) / of).toFixed(2)}%`;
        return el("i", { style: { left: share(x - 2 - box[0], box[2]), top: share(y - 1 - box[1], box[3]), width: share(width + 4, box[2]), height: share(height + 2, box[3]) } });
      })
    : null;
  return el(
    "a",
    { class: "hit", href: `#/moment/${hit.id}?q=${encodeURIComponent(query)}`, data: { id: hit.id } },
    el("span", { class: "crop", "aria-hidden": "true" }, image, marks),
    el("span", { class: "told" }, el("b", {}, `${dayLong(hit.day)}, ${clock(hit.second)}`), el("span", { class: "hint" }, `On the screen ${duration(hit.seconds)}, in ${counted(hit.pictures, "picture")}`), el("q", {}, marked(hit.snippet, words))),
  );
}

// How many of the hits each month has.
function timeline(hits) {
  const months = new Map();
  for (const hit of hits) months.set(hit.day.slice(0, 7), (months.get(hit.day.slice(0, 7)) || 0) + 1);
  const first = [...months.keys()].sort()[0];
  const last = [...months.keys()].sort().pop();
  const all = [];
  for (let [year, month] = first.split("-").map(Number); all.length < 240; month++) {
    if (month > 12) [year, month] = [year + 1, 1];
    const name = `${year}-${String(month).padStart(2, "0")}`;
    all.push([name, months.get(name) || 0]);
    if (name >= last) break;
  }
  if (all.length < 2) return null;
  const most = Math.max(...all.map((row) => row[1]));
  const step = Math.min(40, 864 / all.length);
  const rects = all.map(([name, number], at) => svg("rect", { class: number ? "bar" : "bar soft", x: at * step, width: step * 0.8, y: 40 - (number ? Math.max(4, (36 * number) / most) : 2), height: number ? Math.max(4, (36 * number) / most) : 2 }, svg("title", {}, `${monthShort(name)}: ${number}`)));
  return el("figure", { class: "card clock" }, svg("svg", { viewBox: "0 0 864 40", role: "img", "aria-label": `Hits from ${monthShort(first)} to ${monthShort(last)}` }, rects), el("div", { class: "ticks", "aria-hidden": "true" }, el("span", {}, monthShort(first)), el("span", {}, monthShort(last))));
}

const frame = (...parts) => el("div", {}, el("div", { class: "head" }, el("h1", {}, "Search")), parts);

export async function show({ query, signal }) {
  const text = query.get("q") || "";
  const focus = document.activeElement?.id !== "query";
  if (!text.trim()) return { title: "Search", focus, element: frame(note("Type words that you have seen. \"Several words\" in quotes stand together.")) };
  const found = await get(`api/search?q=${encodeURIComponent(text)}`, signal);
  if (!found.has_words) return { title: "Search", focus, element: frame(note("The words of this store have not been read yet. To read them:", "fsmount text STORE")) };
  if (found.wrong) return { title: "Search", focus, element: frame(note(found.wrong)) };
  const words = (found.instead.length ? found.instead : text.toLowerCase().match(/[\p{L}\p{N}]+/gu) || []).map((word) => word.toLowerCase());
  const told = found.hits.length ? `${found.more ? "The newest " : ""}${counted(found.hits.length, "stretch").replace("stretchs", "stretches")} of time` : "Nothing found";
  const element = frame(
    el("p", { class: "lead", role: "status" }, told, found.instead.length ? ` with ${found.instead.join(", ")} instead` : ""),
    found.hits.length ? timeline(found.hits) : note("No picture that was read has these words."),
    el("div", { class: "hits" }, found.hits.map((hit) => card(hit, text, words))),
  );
  return { title: `${text} · Search`, focus, element };
}
