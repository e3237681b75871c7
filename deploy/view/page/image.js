// What the sensor sees: two polarities, fading with the reel's own time, and the region of interest drawn over it.

import { count } from './numbers.js';
import { colors } from './theme.js';
import { sectionOf } from './wire.js';

const LEVELS = 64;
const LEVELS_PER_EVENT = 16;
const GONE = 1 / 32;

/** Returns how much of the old is left after a stretch, and how much of its own events. */
export function fading(spanUs, fadeUs) {
  if (!(fadeUs > 0)) return { keep: 0, gain: 1 };
  const x = spanUs / fadeUs;
  // Events come without times: taken as even over the stretch, this is what is left of them at its end.
  return { keep: Math.exp(-x), gain: x > 1e-3 ? (1 - Math.exp(-x)) / x : 1 };
}

/** Returns a box of sensor pixels from two corners; bottom and right lie outside of it. */
export function boxOf(a, b, { width, height }) {
  const [left, right] = [Math.min(a.x, b.x), Math.max(a.x, b.x) + 1];
  const [top, bottom] = [Math.min(a.y, b.y), Math.max(a.y, b.y) + 1];
  return [Math.max(0, top), Math.min(height, bottom), Math.max(0, left), Math.min(width, right)];
}

export class EventImage {
  /** `host` is filled; `onRoi(box or null)` hears of a new region of interest. */
  constructor(host, { onRoi }) {
    this.onRoi = onRoi;
    this.every = 0;
    this.stage = document.createElement('div');
    this.stage.className = 'stage';
    this.canvas = document.createElement('canvas');
    this.canvas.className = 'pixels sensor';
    this.canvas.setAttribute('role', 'img');
    this.mark = document.createElement('div');
    this.mark.className = 'roi';
    this.mark.hidden = true;
    this.note = document.createElement('p');
    this.note.className = 'key';
    this.key = ['on', 'off'].map((name) => {
      const swatch = document.createElement('i');
      const text = document.createElement('span');
      text.textContent = name.toUpperCase();
      this.note.append(swatch, text);
      return swatch;
    });
    this.tail = document.createElement('span');
    this.tail.className = 'tail';
    this.clearer = document.createElement('button');
    this.clearer.type = 'button';
    this.clearer.className = 'link';
    this.clearer.textContent = 'Whole sensor';
    this.clearer.addEventListener('click', () => onRoi(null));
    this.note.append(this.tail, this.clearer);
    this.area = document.createElement('div');
    this.area.className = 'area';
    this.area.append(this.canvas, this.mark);
    this.stage.append(this.area);
    host.append(this.stage, this.note);
    this.stage.addEventListener('pointerdown', (event) => this.start(event));
    this.stage.addEventListener('pointermove', (event) => this.drag(event));
    this.stage.addEventListener('pointerup', (event) => this.finish(event));
    this.stage.addEventListener('pointercancel', () => this.cancel());
    new ResizeObserver(() => this.place()).observe(this.stage);
    this.setTheme();
  }

  setFacts({ sensor: [height, width], settings, device }) {
    this.fadeUs = settings.fade_ms * 1000;
    this.canvas.setAttribute('aria-label', `Events of ${device}, ${width} by ${height} pixels`);
    if (this.width === width && this.height === height) return;
    Object.assign(this, { width, height });
    this.canvas.width = width;
    this.canvas.height = height;
    this.levels = new Float32Array(2 * width * height);
    this.picture = this.canvas.getContext('2d').createImageData(width, height);
    this.words = new Uint32Array(this.picture.data.buffer);
    this.place();
  }

  setTheme() {
    const { on, off, both, groundRgb } = colors();
    this.table = new Uint32Array(LEVELS * LEVELS);
    for (let i = 0; i < LEVELS; i += 1) {
      for (let j = 0; j < LEVELS; j += 1) {
        const [a, b] = [i, j].map((level) => 1 - Math.exp((-2.2 * level) / LEVELS_PER_EVENT));
        const mixed = groundRgb.map((base, k) => {
          const hue = a + b > 0 ? (a * on[k] + b * off[k]) / (a + b) : base;
          const shared = hue + (both[k] - hue) * Math.min(a, b);
          return Math.round(base + (shared - base) * Math.max(a, b));
        });
        this.table[i * LEVELS + j] = 0xff000000 | (mixed[2] << 16) | (mixed[1] << 8) | mixed[0];
      }
    }
    this.key[0].style.background = `rgb(${on.join()})`;
    this.key[1].style.background = `rgb(${off.join()})`;
    this.dirty = true;
  }

  /** Keep the pixels square, as large as they fit. */
  place() {
    if (!this.width || !this.stage.clientWidth) return;
    const { clientWidth, clientHeight } = this.stage;
    this.scale = Math.min(clientWidth / this.width, clientHeight / this.height);
    this.left = (clientWidth - this.width * this.scale) / 2;
    this.top = (clientHeight - this.height * this.scale) / 2;
    const { style } = this.area;
    style.left = `${this.left}px`;
    style.top = `${this.top}px`;
    style.width = `${this.width * this.scale}px`;
    style.height = `${this.height * this.scale}px`;
  }

  clear() {
    this.levels?.fill(0);
    this.dirty = true;
  }

  frame(frame) {
    if (!this.levels) return;
    if (frame.reset) this.clear();
    this.setRoi(frame.position.roi);
    const points = sectionOf(frame, 'points');
    const image = sectionOf(frame, 'image');
    if (!points && !image && !(frame.span_us > 0)) return;
    const fresh = fading(frame.span_us, this.fadeUs);
    // The past comes as it has faded, in the steps of the table.
    const { keep, gain } = frame.past ? { keep: 0, gain: 1 / LEVELS_PER_EVENT } : fresh;
    const { levels } = this;
    let anyLeft = false;
    if (keep < 1) {
      for (let i = 0; i < levels.length; i += 1) {
        if (levels[i] === 0) continue;
        const left = levels[i] * keep;
        levels[i] = left < GONE ? 0 : left;
        anyLeft = true;
      }
    }
    if (points) for (const at of points.data) levels[at] += gain;
    if (image) {
      const n = this.width * this.height;
      const { data } = image;
      for (let i = 0; i < n; i += 1) {
        if (data[i]) levels[2 * i] += gain * data[i];
        if (data[n + i]) levels[2 * i + 1] += gain * data[n + i];
      }
    }
    if (anyLeft || points?.data.length || image) this.dirty = true;
  }

  draw() {
    if (!this.levels) return;
    const { levels, words, table } = this;
    const last = LEVELS - 1;
    for (let i = 0, at = 0; i < words.length; i += 1, at += 2) {
      const off = Math.min(last, levels[at] * LEVELS_PER_EVENT) | 0;
      const on = Math.min(last, levels[at + 1] * LEVELS_PER_EVENT) | 0;
      words[i] = table[(on << 6) | off];
    }
    this.canvas.getContext('2d').putImageData(this.picture, 0, 0);
  }

  setRoi(box) {
    const text = box ? box.join() : '';
    if (text === this.shownRoi && this.box !== undefined) return;
    this.shownRoi = text;
    this.box = box;
    this.clearer.hidden = !box;
    this.tail.textContent = box
      ? `Rows ${box[0]}–${box[1] - 1}, columns ${box[2]}–${box[3] - 1}`
      : `${this.width} × ${this.height}; drag to select a region`;
    this.tail.title = box ? `${count((box[1] - box[0]) * (box[3] - box[2]))} pixels go to the program` : '';
    this.placeMark(box);
  }

  placeMark(box) {
    this.mark.hidden = !box;
    if (!box) return;
    const [top, bottom, left, right] = box;
    const { style } = this.mark;
    style.left = `${(100 * left) / this.width}%`;
    style.top = `${(100 * top) / this.height}%`;
    style.width = `${(100 * (right - left)) / this.width}%`;
    style.height = `${(100 * (bottom - top)) / this.height}%`;
  }

  pixel(event) {
    const place = this.stage.getBoundingClientRect();
    const x = Math.floor((event.clientX - place.left - this.left) / this.scale);
    const y = Math.floor((event.clientY - place.top - this.top) / this.scale);
    return { x: Math.max(0, Math.min(this.width - 1, x)), y: Math.max(0, Math.min(this.height - 1, y)) };
  }

  start(event) {
    if (event.button !== 0 || !this.width) return;
    this.corner = this.pixel(event);
    this.stage.setPointerCapture(event.pointerId);
  }

  drag(event) {
    if (!this.corner) return;
    const now = this.pixel(event);
    if (now.x !== this.corner.x || now.y !== this.corner.y) this.placeMark(boxOf(this.corner, now, this));
  }

  /** A click without a drag selects nothing: one pixel is hardly meant. */
  finish(event) {
    const { corner } = this;
    if (!corner) return;
    this.corner = null;
    const now = this.pixel(event);
    if (now.x === corner.x && now.y === corner.y) this.placeMark(this.box);
    else this.onRoi(boxOf(corner, now, this));
  }

  cancel() {
    this.corner = null;
    this.placeMark(this.box);
  }
}
