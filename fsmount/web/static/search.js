// Words that were on the screen, as one types: each stretch of time with the part of the picture.

import { get, view } from "./api.js";
import { el, note, svg } from "./dom.js";
import { clock, counted, dayLong, dayShort, monthShort } from "./format.js";

const ROOM = 70;
const WIDE = 680, HIGH = 220;

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

function stretch(hit) {
  const pictures = `in ${counted(hit.pictures, "picture")}`;
  if (hit.first_day !== hit.day) return `On the screen since ${dayShort(hit.first_day)}, ${clock(hit.first_second)}, ${pictures}`;
  if (hit.seconds < 60) return `On the screen for a moment, ${pictures}`;
  return `On the screen from ${clock(hit.first_second)} to ${clock(hit.second)}, ${pictures}`;
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
    el("span", { class: "told" }, el("b", {}, `${dayLong(hit.day)}, ${clock(hit.second)}`), el("span", { class: "hint" }, stretch(hit)), el("q", {}, marked(hit.snippet, words))),
  );
}

const DAY_MS = 864e5;

// Days, or months if there are many days, from the first hit to the last one: [name, start, hits].
function spread(hits) {
  const times = hits.map((hit) => Date.parse(hit.day)).sort((a, b) => a - b);
  const [first, last] = [times[0], times[times.length - 1]];
  const found = [];
  if (last - first <= 70 * DAY_MS) {
    for (let day = first; day <= last; day += DAY_MS) found.push([dayShort(day), day, 0]);
  } else {
    const start = new Date(first);
    for (let month = 0; found.length < 360; month++) {
      const at = Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + month, 1);
      if (at > last) break;
      found.push([monthShort(new Date(at).toISOString().slice(0, 7)), at, 0]);
    }
  }
  for (const time of times) found.findLast((row) => row[1] <= time)[2]++;
  return found;
}

// How the hits are spread over the time.
function timeline(hits) {
  const rows = spread(hits);
  if (rows.length < 2) return null;
  const most = Math.max(...rows.map((row) => row[2]));
  const step = 864 / rows.length;
  const columns = rows.map(([name, , number], at) => {
    const tall = number ? Math.max(5, (38 * number) / most) : 1.5;
    return svg("rect", { class: number ? "bar" : "bar soft", x: (at * step).toFixed(2), width: (step * 0.8).toFixed(2), y: 40 - tall, height: tall }, svg("title", {}, `${name}: ${number}`));
  });
  const [first, last] = [rows[0][0], rows[rows.length - 1][0]];
  return el(
    "figure",
    { class: "card clock small" },
    svg("svg", { viewBox: "0 0 864 40", preserveAspectRatio: "none", role: "img", "aria-label": `Hits from ${first} to ${last}` }, columns),
    el("div", { class: "ticks", "aria-hidden": "true" }, el("span", {}, first), el("span", {}, last)),
  );
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
