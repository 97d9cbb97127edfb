// Makes elements. Text is always text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, each] of Object.entries(value)) element.style.setProperty(key, each);
    else if (name === "data") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false));
  return element;
}

export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

const PATHS = {
  back: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  play: "M8 5v14l11-7z",
  playBack: "M16 5v14L5 12z",
  pause: "M8 5v14M16 5v14",
  first: "M18 5l-7 7 7 7M7 5v14",
  last: "M6 5l7 7-7 7M17 5v14",
  down: "M12 4v11m-5-4l5 5 5-5M5 20h14",
  outline: "M4 4h6v6H4zM14 12h6v8h-6z",
  letters: "M5 6h14M12 6v13M9 19h6",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
};

export function icon(name) {
  const full = name === "play" || name === "playBack";
  return svg(
    "svg",
    { viewBox: "0 0 24 24", "aria-hidden": "true", fill: full ? "currentColor" : "none", stroke: "currentColor", "stroke-width": 2, "stroke-linecap": "round", "stroke-linejoin": "round" },
    svg("path", { d: PATHS[name] }),
  );
}

export function button(label, name, action, more = {}) {
  return el("button", { type: "button", class: "button", "aria-label": label, title: label, onclick: action, ...more }, icon(name));
}

// Shows a message where a view would be.
export function note(text, code, bad) {
  return el("p", { class: bad ? "note bad" : "note" }, text, code ? [" ", el("code", {}, code)] : null);
}

// Tells readers of the screen what has changed.
export function say(text) {
  document.getElementById("said").textContent = text;
}
