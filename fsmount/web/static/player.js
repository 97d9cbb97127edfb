// Plays pictures in either direction: fetches some ahead, and shows each when its turn comes.

import { ask, view } from "./api.js";
import { ID, OBJECT } from "./day.js";

const AHEAD = 14;
const KEPT = 28;
const AT_ONCE = 5;

export class Player {
  // `moments` are those of a day. `draw(bitmap, number)` shows one of them.
  constructor(moments, width, draw, ended) {
    this.moments = moments;
    this.width = width;
    this.draw = draw;
    this.ended = ended;
    this.direction = 0;
    this.rate = 12;
    this.skip = () => false;
    this.frames = new Map();
    this.asked = new Map();
    this.times = [];
    this.at = 0;
  }

  // Frames a second that were shown in the last second.
  get measured() {
    const now = performance.now();
    return this.times.filter((time) => now - time < 1000).length;
  }

  get playing() {
    return this.direction !== 0;
  }

  start(at, direction) {
    this.at = at;
    this.direction = direction;
    this.due = performance.now();
    this.times = [];
    this.fetchAhead();
    cancelAnimationFrame(this.timer);
    const tick = (now) => {
      if (!this.direction) return;
      this.step(now);
      this.timer = requestAnimationFrame(tick);
    };
    this.timer = requestAnimationFrame(tick);
  }

  stop() {
    this.direction = 0;
    cancelAnimationFrame(this.timer);
  }

  close() {
    this.stop();
    for (const stop of this.asked.values()) stop.abort();
    for (const bitmap of this.frames.values()) bitmap?.close();
    this.frames.clear();
  }

  following(at) {
    let next = at + this.direction;
    while (next >= 0 && next < this.moments.length && this.skip(this.moments[next])) next += this.direction;
    return next >= 0 && next < this.moments.length ? next : null;
  }

  step(now) {
    if (now < this.due) return;
    const next = this.following(this.at);
    if (next === null) {
      this.stop();
      this.ended();
      return;
    }
    const bitmap = this.frames.get(next);
    if (bitmap === undefined) {
      this.fetchAhead();
      return;
    }
    this.at = next;
    // A picture that came late moves those behind it.
    this.due = Math.max(this.due + 1000 / this.rate, now - 1000 / this.rate);
    this.times.push(now);
    if (this.times.length > 200) this.times.splice(0, 100);
    this.draw(bitmap, next);
    this.fetchAhead();
  }

  fetchAhead() {
    let at = this.at;
    const wanted = [];
    for (let number = 0; number < AHEAD; number++) {
      at = this.following(at);
      if (at === null) break;
      wanted.push(at);
    }
    for (const [number, stop] of this.asked) if (!wanted.includes(number)) stop.abort();
    for (const number of wanted) {
      if (this.asked.size >= AT_ONCE) break;
      if (!this.frames.has(number) && !this.asked.has(number)) this.fetch(number);
    }
    for (const [number, bitmap] of this.frames) {
      if (this.frames.size <= KEPT) break;
      if (wanted.includes(number) || number === this.at) continue;
      bitmap?.close();
      this.frames.delete(number);
    }
  }

  async fetch(number) {
    const stop = new AbortController();
    this.asked.set(number, stop);
    const moment = this.moments[number];
    try {
      const answer = await ask(view(moment[ID], moment[OBJECT], this.width), stop.signal);
      this.frames.set(number, await createImageBitmap(await answer.blob()));
    } catch (error) {
      // A picture that cannot be shown is passed over.
      if (error.name !== "AbortError") this.frames.set(number, null);
    } finally {
      this.asked.delete(number);
    }
    if (this.direction) this.fetchAhead();
  }
}
