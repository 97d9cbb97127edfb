// A picture with what lies on it: a preview, then the exact file, what changed, and its words.

import { ask, exact, get, view } from "./api.js";
import { el, svg } from "./dom.js";

export class Sheet {
  constructor() {
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.image = el("img", { alt: "", hidden: true, draggable: "false" });
    this.outline = svg("svg", { class: "outline", "aria-hidden": "true" });
    this.words = el("div", { class: "words" });
    this.element = el("div", { class: "sheet" }, this.canvas, this.image, this.outline, this.words);
    this.message = el("p", { class: "message", hidden: true });
    this.stage = el("div", { class: "stage", tabindex: 0, role: "region", "aria-label": "Picture" }, this.element, this.message);
    this.width = 0;
    this.height = 0;
    this.zoom = 0; // 0: as large as fits
    this.url = null;
  }

  resize(width, height) {
    if (!width || !height) return;
    if (width !== this.width || height !== this.height) {
      this.width = width;
      this.height = height;
      this.outline.setAttribute("viewBox", `0 0 ${width} ${height}`);
    }
    this.place();
  }

  // The scale at which the picture is shown now.
  get scale() {
    if (this.zoom) return this.zoom;
    const style = getComputedStyle(this.stage);
    const free = this.stage.clientWidth - parseFloat(style.paddingLeft) * 2;
    const narrow = matchMedia("(max-width: 900px)").matches;
    const high = narrow ? Infinity : this.stage.clientHeight;
    return Math.min(free / this.width, high / this.height, 2);
  }

  place() {
    if (!this.width) return;
    const scale = this.scale;
    const left = this.element.style;
    left.setProperty("width", `${Math.floor(this.width * scale)}px`);
    left.setProperty("height", `${Math.floor(this.height * scale)}px`);
    const spare = matchMedia("(max-width: 900px)").matches ? 0 : (this.stage.clientHeight - this.height * scale) / 2;
    left.setProperty("margin-top", `${Math.max(0, Math.floor(spare))}px`);
    this.element.classList.toggle("sharp", scale >= 2);
    this.layWords();
  }

  draw(bitmap) {
    if (!bitmap) return;
    this.image.hidden = true;
    this.canvas.width = bitmap.width;
    this.canvas.height = bitmap.height;
    this.canvas.getContext("2d", { alpha: false }).drawImage(bitmap, 0, 0);
  }

  clear() {
    this.outline.replaceChildren();
    this.words.replaceChildren();
    this.spans = [];
    this.message.hidden = true;
  }

  fail(text) {
    this.image.hidden = true;
    this.canvas.width = this.canvas.height = 1;
    this.message.textContent = text;
    this.message.hidden = false;
  }

  async preview(id, object, width, signal) {
    const answer = await ask(view(id, object, width), signal);
    const size = [Number(answer.headers.get("x-width")), Number(answer.headers.get("x-height"))];
    const bitmap = await createImageBitmap(await answer.blob());
    if (signal.aborted) return;
    this.draw(bitmap);
    bitmap.close();
    this.resize(...size);
  }

  async exact(id, text, signal) {
    const blob = await (await ask(exact(id), signal)).blob();
    if (signal.aborted) return;
    const before = this.url;
    this.url = URL.createObjectURL(blob);
    this.image.src = this.url;
    try {
      await this.image.decode();
    } finally {
      if (before) URL.revokeObjectURL(before);
    }
    if (signal.aborted) return;
    this.image.alt = text;
    this.image.hidden = false;
    this.resize(this.image.naturalWidth, this.image.naturalHeight);
  }

  async changes(id, before, signal) {
    const { rectangles } = await get(`api/picture/${id}/changes?before=${before}`, signal);
    if (signal.aborted || !rectangles) return 0;
    const shape = ([x, y, width, height], more) => svg("rect", { x, y, width, height, ...more });
    // Only the outside of all rectangles together is drawn.
    const mask = svg("mask", { id: "outside", maskUnits: "userSpaceOnUse", x: 0, y: 0, width: this.width, height: this.height }, shape([0, 0, this.width, this.height], { class: "keep" }), rectangles.map(([x, y, width, height]) => shape([x - 0.7, y - 0.7, width + 1.4, height + 1.4], { class: "cut" })));
    const lines = (name) => svg("g", { class: name, mask: "url(#outside)" }, rectangles.map((box) => shape(box)));
    this.outline.replaceChildren(mask, lines("halo"), lines("line"));
    return rectangles.length;
  }

  // Words that can be selected and copied, each above its letters.
  async read(id, signal, wanted) {
    const { words, read } = await get(`api/picture/${id}/words`, signal);
    if (signal.aborted) return 0;
    const hits = (wanted || "").toLowerCase().match(/[\p{L}\p{N}]+/gu) || [];
    this.spans = words.map(([text, x, y, width, height], at) => {
      const next = words[at + 1];
      const ends = !next || next[2] > y + height / 2 || next[1] < x;
      const span = el("span", {}, text + (ends ? "\n" : " "));
      if (hits.some((hit) => text.toLowerCase().includes(hit))) span.className = "hit";
      return { span, x, y, width, height };
    });
    this.words.classList.toggle("found", hits.length > 0);
    this.words.replaceChildren(...this.spans.map((each) => each.span));
    this.layWords();
    return read ? words.length : null;
  }

  layWords() {
    const scale = this.scale;
    for (const { span, x, y, width, height } of this.spans || []) {
      span.style.setProperty("left", `${x * scale}px`);
      span.style.setProperty("top", `${y * scale}px`);
      span.style.setProperty("font-size", `${height * scale}px`);
      span.style.setProperty("height", `${height * scale}px`);
    }
    // Widths are measured together, so that the page is laid out once.
    const widths = (this.spans || []).map(({ span }) => {
      span.style.setProperty("transform", "none");
      return span;
    }).map((span) => span.offsetWidth);
    (this.spans || []).forEach(({ span, width }, at) => {
      if (widths[at]) span.style.setProperty("transform", `scaleX(${((width * scale) / widths[at]).toFixed(3)})`);
    });
  }

  close() {
    if (this.url) URL.revokeObjectURL(this.url);
  }
}
