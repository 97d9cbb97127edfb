// One picture, large, among those of its day: step, play, zoom, outline, copy its words, download.

import { exact, get } from "./api.js";
import { BUSY, FOLDER, ID, SECOND, columns } from "./day.js";
import { button, el, icon, note, say, svg } from "./dom.js";
import { bytes, clock, dayLong, dayShort, percent } from "./format.js";
import { Player } from "./player.js";
import { Sheet } from "./sheet.js";

const ZOOMS = [0, 0.5, 0.75, 1, 1.5, 2, 3, 4];
const WIDTHS = [960, 1440, 1920];
const KINDS = { key: "a whole picture", delta: "what earlier pictures lack", raw: "as it is", jpeg: "as JPEG XL", staged: "still to be encoded" };

// What the user chose last stays for the next picture.
const chosen = { outline: true, skip: true, letters: true, rate: 12 };

class Viewer {
  constructor(day, moments, start, wanted) {
    this.day = day;
    this.moments = moments;
    this.at = start;
    this.wanted = wanted;
    this.sheet = new Sheet();
    this.stop = new AbortController();
    this.about = null;
    const wide = Math.min(1920, window.innerWidth * Math.min(devicePixelRatio, 2));
    this.width = WIDTHS.find((each) => each >= wide * 0.7) || 1920;
    this.player = new Player(moments, this.width, (bitmap, at) => this.play(bitmap, at), () => this.pause());
    this.player.skip = (moment) => chosen.skip && !moment[BUSY];
    this.build();
  }

  get moment() {
    return this.moments[this.at];
  }

  build() {
    const toggle = (name, label, key, glyph) =>
      button(`${label} (${key})`, glyph, () => this.toggle(name), { "aria-pressed": String(chosen[name]), data: { toggle: name } });
    this.time = el("span", {});
    this.date = el("small", {});
    this.title = el("h1", {}, this.time, this.date);
    this.zoomed = el("span", { class: "zoom", role: "status" }, "fit");
    this.list = el("dl", {});
    this.save = el("a", { class: "button main" }, icon("down"), "Download the PNG");
    this.playButton = button("Play (space)", "play", () => this.toggleplay(1), { class: "button main" });
    this.backButton = button("Play backwards (shift and space)", "playBack", () => this.toggleplay(-1));
    this.from = Math.floor(this.moments[0][SECOND] / 3600) * 3600;
    this.to = Math.floor(this.moments[this.moments.length - 1][SECOND] / 3600 + 1) * 3600;
    this.range = el("input", { type: "range", min: this.from, max: this.to, step: 1, "aria-label": "Time of the day" });
    this.range.addEventListener("input", () => this.go(this.nearest(Number(this.range.value))));
    this.needle = svg("line", { y1: 0, y2: 26, stroke: "currentColor", "stroke-width": 2, "vector-effect": "non-scaling-stroke" });
    this.strip = svg("svg", { viewBox: "0 0 864 26", preserveAspectRatio: "none", "aria-hidden": "true" }, columns(this.moments, null, 864, 26, this.from, this.to), this.needle);
    this.rate = el("select", { class: "pick", "aria-label": "Pictures a second", onchange: () => (this.player.rate = chosen.rate = Number(this.rate.value)) }, [6, 12, 24].map((each) => el("option", { value: each, selected: each === chosen.rate }, `${each} a second`)));
    this.player.rate = chosen.rate;
    const skip = el("input", { type: "checkbox", onchange: () => (chosen.skip = skip.checked) });
    skip.checked = chosen.skip;
    this.element = el(
      "div",
      { class: "viewer", data: { ready: "" } },
      el(
        "div",
        { class: "topline" },
        el("a", { class: "button", href: `#/day/${this.day}`, "aria-label": "Back to the day", title: "Back to the day (escape)" }, icon("back"), el("span", { class: "wide" }, "Day")),
        this.title,
        toggle("outline", "Outline what changed", "o", "outline"),
        toggle("letters", "Select text", "t", "letters"),
        button("Smaller (-)", "minus", () => this.scale(-1)),
        this.zoomed,
        button("Larger (+)", "plus", () => this.scale(1)),
        button("Fit (0)", "fit", () => this.setZoom(0)),
      ),
      this.sheet.stage,
      el(
        "aside",
        { class: "about", "aria-label": "About the picture" },
        this.list,
        this.save,
        el("ul", { class: "keys", "aria-label": "Keys" }, [["Step", "← →"], ["Play", "space"], ["Backwards", "shift space"], ["Outline", "o"], ["Zoom", "+ − 0"], ["Download", "d"]].map(([what, key]) => el("li", {}, what, el("kbd", {}, key)))),
      ),
      el(
        "div",
        { class: "transport" },
        button("Step back (←)", "back", () => this.go(this.at - 1)),
        this.backButton,
        this.playButton,
        button("Step forward (→)", "next", () => this.go(this.at + 1)),
        el("div", { class: "along" }, this.strip, this.range),
        this.rate,
        el("label", { class: "check" }, skip, "Skip idle"),
      ),
    );
  }

  // The moment that is nearest to a second of the day.
  nearest(second) {
    let best = 0;
    this.moments.forEach((moment, at) => {
      if (Math.abs(moment[SECOND] - second) < Math.abs(this.moments[best][SECOND] - second)) best = at;
    });
    return best;
  }

  mark() {
    const moment = this.moment;
    this.time.textContent = clock(moment[SECOND], true);
    this.date.textContent = dayShort(this.day);
    this.range.value = moment[SECOND];
    this.range.setAttribute("aria-valuetext", clock(moment[SECOND], true));
    const x = ((moment[SECOND] - this.from) / (this.to - this.from)) * 864;
    this.needle.setAttribute("x1", x);
    this.needle.setAttribute("x2", x);
  }

  // Show a picture that stands still.
  async go(at) {
    if (at < 0 || at >= this.moments.length) return;
    this.halt();
    this.at = at;
    this.mark();
    const [id, object, second] = this.moment;
    history.replaceState(null, "", `#/moment/${id}` + (this.wanted ? `?q=${encodeURIComponent(this.wanted)}` : ""));
    document.title = `${clock(second, true)}, ${dayLong(this.day)}`;
    this.stop.abort();
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.sheet.clear();
    this.element.dataset.ready = "";
    try {
      await this.sheet.preview(id, object, this.width, signal);
      this.element.dataset.ready = "preview";
      const told = get(`api/picture/${id}`, signal).then((about) => this.tell(about, signal));
      const file = this.sheet.exact(id, `Screenshot of ${dayLong(this.day)}, ${clock(second, true)}`, signal);
      await told;
      await Promise.all([file, this.marks(signal)]);
      if (!signal.aborted) this.element.dataset.ready = "exact";
    } catch (error) {
      if (error.name !== "AbortError" && !signal.aborted) this.sheet.fail(error.message);
    }
  }

  async marks(signal) {
    const about = this.about;
    this.sheet.outline.replaceChildren();
    this.sheet.words.replaceChildren();
    this.sheet.spans = [];
    const jobs = [];
    if (chosen.outline && about.before) jobs.push(this.sheet.changes(about.id, about.before, signal).then((n) => (this.element.dataset.changes = n)));
    if (chosen.letters) jobs.push(this.sheet.read(about.id, signal, this.wanted).then((n) => (this.element.dataset.words = n)));
    await Promise.all(jobs);
  }

  tell(about, signal) {
    if (signal.aborted) return;
    this.about = about;
    const rows = [
      ["File", about.path],
      ["New on the screen", about.share === null ? null : percent(about.share)],
      ["Size", bytes(about.size)],
      ["In the store", about.stored === null ? KINDS.staged : `${bytes(about.stored)}, ${KINDS[about.kind] || about.kind}`],
    ];
    this.list.replaceChildren(...rows.filter((row) => row[1]).map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text))));
    this.save.href = exact(about.id);
    this.save.setAttribute("download", about.name.toWellFormed ? about.name.toWellFormed() : about.name);
  }

  toggle(name) {
    chosen[name] = !chosen[name];
    this.element.querySelector(`[data-toggle=${name}]`).setAttribute("aria-pressed", String(chosen[name]));
    if (this.about) this.marks(this.stop.signal).catch(() => {});
    say(`${name === "outline" ? "Outline" : "Text"} ${chosen[name] ? "on" : "off"}`);
  }

  scale(step) {
    const now = this.sheet.scale;
    const steps = ZOOMS.slice(1);
    const next = step > 0 ? steps.find((each) => each > now + 0.01) : steps.findLast((each) => each < now - 0.01);
    if (next) this.setZoom(next);
  }

  setZoom(zoom) {
    const { stage } = this.sheet;
    const centre = [(stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth, (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight];
    this.sheet.zoom = zoom;
    this.sheet.place();
    stage.scrollLeft = centre[0] * stage.scrollWidth - stage.clientWidth / 2;
    stage.scrollTop = centre[1] * stage.scrollHeight - stage.clientHeight / 2;
    this.zoomed.textContent = zoom ? percent(zoom) : "fit";
  }

  // -- playing

  toggleplay(direction) {
    if (this.player.direction === direction) return this.pause();
    this.stop.abort();
    this.sheet.clear();
    this.player.start(this.at, direction);
    this.buttons();
    say(direction > 0 ? "Playing" : "Playing backwards");
  }

  play(bitmap, at) {
    this.at = at;
    this.sheet.draw(bitmap);
    this.mark();
    this.element.dataset.rate = this.player.measured;
  }

  halt() {
    this.player.stop();
    this.buttons();
  }

  pause() {
    this.halt();
    say("Paused");
    this.go(this.at);
  }

  buttons() {
    const { direction } = this.player;
    this.playButton.replaceChildren(icon(direction > 0 ? "pause" : "play"));
    this.backButton.replaceChildren(icon(direction < 0 ? "pause" : "playBack"));
    this.element.dataset.playing = direction;
  }

  keys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input:not([type=range])")) return;
    const on = event.target.matches("button, a, summary");
    const act = {
      ArrowLeft: () => this.go(this.at - 1),
      ArrowRight: () => this.go(this.at + 1),
      Home: () => this.go(0),
      End: () => this.go(this.moments.length - 1),
      " ": on ? null : () => this.toggleplay(event.shiftKey ? -1 : 1),
      o: () => this.toggle("outline"),
      t: () => this.toggle("letters"),
      d: () => this.save.click(),
      "+": () => this.scale(1),
      "=": () => this.scale(1),
      "-": () => this.scale(-1),
      0: () => this.setZoom(0),
      Escape: () => (location.hash = `#/day/${this.day}`),
    }[event.key];
    // In a large picture the arrows move it.
    if (!act || (event.key.startsWith("Arrow") && this.sheet.zoom && event.target === this.sheet.stage)) return;
    event.preventDefault();
    act();
  }

  close() {
    this.stop.abort();
    this.player.close();
    this.sheet.close();
  }
}

export async function show({ parts, query, signal, main }) {
  const about = await get(`api/picture/${parts[0]}`, signal);
  if (about.day === null) return { title: "Moment", element: note("This picture came a moment ago. Load the page again.") };
  const found = await get(`api/day/${about.day}`, signal);
  const own = found.moments.find((moment) => moment[ID] === about.id);
  // Pictures of another folder are those of another screen.
  const moments = found.moments.filter((moment) => own && moment[FOLDER] === own[FOLDER]);
  if (!own) return { title: "Moment", element: note("This picture is not in the store any more.") };
  const viewer = new Viewer(about.day, moments, moments.indexOf(own), query.get("q"));
  const keys = (event) => viewer.keys(event);
  const resized = () => viewer.sheet.place();
  document.addEventListener("keydown", keys);
  window.addEventListener("resize", resized);
  signal.addEventListener("abort", () => {
    document.removeEventListener("keydown", keys);
    window.removeEventListener("resize", resized);
    viewer.close();
  });
  main.replaceChildren(viewer.element);
  viewer.sheet.stage.focus({ preventScroll: true });
  window.scrollTo(0, 0);
  get(`api/day/${about.day}/shares`, signal).then(({ shares }) => {
    viewer.strip.replaceChildren(...columns(moments, new Map(shares), 864, 26, viewer.from, viewer.to), viewer.needle);
  }).catch(() => {});
  viewer.go(viewer.at).then(() => {
    if (query.get("play")) viewer.toggleplay(1);
  });
  return { title: `${clock(own[SECOND], true)}, ${dayLong(about.day)}`, focus: false };
}
