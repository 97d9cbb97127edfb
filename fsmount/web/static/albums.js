// Albums and their photos.

import { get } from "./api.js";
import { el, icon, note } from "./dom.js";
import { counted } from "./format.js";

const at = (place) => `?at=${encodeURIComponent(place)}`;

const NAME = 0, PLACE = 1, KIND = 2;

function above(place) {
  const parts = place.split("/");
  return place ? parts.slice(0, -1).join("/") : null;
}

function albumCard([name, place]) {
  return el("a", { class: "shot album", href: `#/albums${at(place)}`, data: { place } }, el("img", { alt: "", width: 480, height: 300, hidden: true }), el("span", {}, el("b", {}, name), el("small", {}, "")));
}

function photoCard([name, place]) {
  const image = el("img", { src: `album/view${at(place)}&w=480`, alt: "", loading: "lazy", width: 480, height: 300 });
  const link = el("a", { class: "shot", href: `#/albums${at(place)}&photo=1` }, image, el("span", {}, el("b", {}, name)));
  image.addEventListener("error", () => link.classList.add("failed"));
  return link;
}

// The first photo of an album stands for it.
function covers(root, signal) {
  for (const link of root.querySelectorAll(".album")) {
    get(`api/albums${at(link.dataset.place)}`, signal).then(({ entries }) => {
      const photos = entries.filter((entry) => entry[KIND] === "photo");
      link.querySelector("small").textContent = counted(photos.length, "photo");
      if (!photos.length) return;
      const image = link.querySelector("img");
      image.src = `album/view${at(photos[0][PLACE])}&w=480`;
      image.hidden = false;
    }).catch(() => {});
  }
}

async function photo(place, signal) {
  const folder = above(place) || "";
  const { entries } = await get(`api/albums${at(folder)}`, signal);
  const photos = entries.filter((entry) => entry[KIND] === "photo");
  const number = photos.findIndex((entry) => entry[PLACE] === place);
  if (number < 0) return { title: "Albums", element: note("This photo is not in the album any more.") };
  const to = (entry) => `#/albums${at(entry[PLACE])}&photo=1`;
  const link = (entry, label, name) => (entry ? el("a", { class: "button", href: to(entry), "aria-label": label, title: label }, icon(name)) : el("span", { class: "button", "aria-disabled": "true" }, icon(name)));
  const [name] = photos[number];
  const keys = (event) => {
    const next = { ArrowLeft: photos[number - 1], ArrowRight: photos[number + 1] }[event.key];
    if (next && !event.target.matches("input, select")) location.hash = to(next);
    if (event.key === "Escape") location.hash = `#/albums${at(folder)}`;
  };
  document.addEventListener("keydown", keys);
  signal.addEventListener("abort", () => document.removeEventListener("keydown", keys));
  return {
    title: name,
    element: el(
      "div",
      {},
      el("div", { class: "head" }, el("a", { class: "button", href: `#/albums${at(folder)}` }, icon("back"), "Album"), el("h1", {}, name), link(photos[number - 1], "Photo before", "back"), link(photos[number + 1], "Next photo", "next"), el("a", { class: "button main", href: `album/exact${at(place)}`, download: name }, icon("down"), "Download")),
      el("img", { class: "photo", src: `album/view${at(place)}&w=1920`, alt: `Photo ${name}` }),
    ),
  };
}

export async function show({ query, signal }) {
  const place = query.get("at") || "";
  if (query.get("photo")) return photo(place, signal);
  const { name, entries } = await get(`api/albums${at(place)}`, signal);
  const albums = entries.filter((entry) => entry[KIND] === "album");
  const photos = entries.filter((entry) => entry[KIND] === "photo");
  const others = entries.length - albums.length - photos.length;
  const title = name.split("/").pop() || "Albums";
  const up = above(place);
  const element = el(
    "div",
    {},
    el("div", { class: "head" }, up === null ? null : el("a", { class: "button", href: `#/albums${at(up)}` }, icon("back"), "Albums"), el("h1", {}, title)),
    el("p", { class: "lead" }, [albums.length ? counted(albums.length, "album") : null, photos.length ? counted(photos.length, "photo") : null, others ? counted(others, "other file") : null].filter(Boolean).join(" · ")),
    entries.length ? null : note("There are no albums here. Make one:", "fsmount album create FOLDER"),
    el("div", { class: "strip gallery" }, albums.map(albumCard), photos.map(photoCard)),
  );
  return { title, element, placed: () => covers(element, signal) };
}
