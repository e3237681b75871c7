// Where one core spikes: the rate of each place of its output, features added up.

import { si } from './numbers.js';
import { ramp } from './theme.js';
import { sectionOf } from './wire.js';

const MEMORY_US = 250_000;

export class SpikeMap {
  /** `host` is filled; `onWatch(core or null)` hears of another core. */
  constructor(host, { onWatch }) {
    this.every = 0;
    this.top = 1;
    this.chooser = document.createElement('select');
    this.chooser.setAttribute('aria-label', 'Core of the spike map');
    this.chooser.addEventListener('change', () => {
      onWatch(this.chooser.value === '' ? null : Number(this.chooser.value));
    });
    this.stage = document.createElement('div');
    this.stage.className = 'stage';
    this.canvas = document.createElement('canvas');
    this.canvas.className = 'pixels';
    this.canvas.setAttribute('role', 'img');
    this.canvas.setAttribute('aria-label', 'Spike map');
    this.empty = document.createElement('p');
    this.empty.className = 'empty';
    this.empty.textContent = 'Choose a core to see where it spikes.';
    this.scaleBar = document.createElement('canvas');
    this.scaleBar.width = 256;
    this.scaleBar.height = 1;
    this.scaleBar.className = 'ramp';
    this.note = document.createElement('p');
    this.note.className = 'key';
    [this.low, this.high, this.pointed] = ['0', '', ''].map((text) => {
      const span = document.createElement('span');
      span.textContent = text;
      return span;
    });
    this.pointed.className = 'end';
    this.note.append(this.low, this.scaleBar, this.high, this.pointed);
    this.stage.append(this.canvas, this.empty);
    host.append(this.stage, this.note);
    new ResizeObserver(() => this.place()).observe(this.stage);
    this.canvas.addEventListener('pointermove', (event) => this.point(event));
    this.canvas.addEventListener('pointerleave', () => this.point(null));
    this.setTheme();
    this.setSize(0, 0);
  }

  setFacts({ cores, settings }) {
    const monitored = cores.filter((core) => core.monitored);
    const watched = settings.watch ?? null;
    this.isTold = watched === null || monitored.some(({ core }) => core === watched);
    const options = monitored.map(({ core, layer }) => new Option(`Core ${core}: ${layer}`, String(core)));
    if (!this.isTold) options.push(new Option(`Core ${watched}: not monitored`, String(watched)));
    this.chooser.replaceChildren(new Option(monitored.length ? 'No core' : 'No core is monitored', ''), ...options);
    this.chooser.value = watched === null ? '' : String(watched);
    this.setCore(watched);
  }

  /** Returns why there is no map. */
  sentence() {
    if (this.core === null || this.core === undefined) return 'Choose a core to see where it spikes.';
    return this.isTold ? 'No spikes of this core seen yet.' : 'This core is not monitored: its spikes are not told.';
  }

  setCore(core) {
    if (this.core === core) return;
    this.core = core;
    this.setSize(0, 0);
  }

  setSize(width, height) {
    Object.assign(this, { width, height, top: 1e-9 });
    this.canvas.hidden = !width;
    this.empty.hidden = Boolean(width);
    this.note.hidden = !width;
    this.empty.textContent = this.sentence();
    if (!width) return;
    this.canvas.width = width;
    this.canvas.height = height;
    this.sums = new Float32Array(width * height);
    this.span = 0;
    this.picture = this.canvas.getContext('2d').createImageData(width, height);
    this.words = new Uint32Array(this.picture.data.buffer);
    this.place();
  }

  setTheme() {
    this.table = ramp();
    const ctx = this.scaleBar.getContext('2d');
    const bar = ctx.createImageData(256, 1);
    new Uint32Array(bar.data.buffer).set(this.table);
    ctx.putImageData(bar, 0, 0);
    this.dirty = true;
  }

  place() {
    if (!this.width || !this.stage.clientWidth) return;
    const { clientWidth, clientHeight } = this.stage;
    const scale = Math.min(clientWidth / this.width, clientHeight / this.height);
    const { style } = this.canvas;
    style.width = `${this.width * scale}px`;
    style.height = `${this.height * scale}px`;
    style.left = `${(clientWidth - this.width * scale) / 2}px`;
    style.top = `${(clientHeight - this.height * scale) / 2}px`;
  }

  frame(frame) {
    const map = sectionOf(frame, 'map');
    if (frame.reset && this.width) this.setSize(this.width, this.height);
    if (map) {
      const [height, width] = map.shape;
      if (map.core !== this.core) this.setCore(map.core);
      if (width !== this.width || height !== this.height) this.setSize(width, height);
    }
    if (!this.width || !(frame.span_us > 0)) return;
    const keep = Math.exp(-frame.span_us / MEMORY_US);
    const { sums } = this;
    const data = map?.data;
    this.span = this.span * keep + frame.span_us;
    for (let i = 0; i < sums.length; i += 1) sums[i] = sums[i] * keep + (data ? data[i] : 0);
    this.dirty = true;
  }

  draw() {
    if (!this.width) return;
    const { sums, words, table } = this;
    let most = 0;
    for (const v of sums) if (v > most) most = v;
    const perSecond = this.span > 0 ? 1e6 / this.span : 0;
    const rate = most * perSecond;
    // Grows at once, shrinks slowly: a color keeps its meaning while one looks at it.
    this.top = Math.max(rate, this.top * 0.98, 1e-9);
    const factor = (255 * perSecond) / this.top;
    for (let i = 0; i < sums.length; i += 1) words[i] = table[Math.min(255, sums[i] * factor) | 0];
    this.canvas.getContext('2d').putImageData(this.picture, 0, 0);
    const text = si(this.top < 1e-6 ? 0 : Number(this.top.toPrecision(2)), '/s');
    if (text !== this.shownTop) {
      this.shownTop = text;
      this.high.textContent = text;
    }
    if (this.pointer) this.tell();
  }

  point(event) {
    if (!event) {
      this.pointer = null;
      this.pointed.textContent = '';
      return;
    }
    const box = this.canvas.getBoundingClientRect();
    const x = Math.min(this.width - 1, Math.floor(((event.clientX - box.left) / box.width) * this.width));
    const y = Math.min(this.height - 1, Math.floor(((event.clientY - box.top) / box.height) * this.height));
    this.pointer = { x: Math.max(0, x), y: Math.max(0, y) };
    this.tell();
  }

  tell() {
    const { x, y } = this.pointer;
    const rate = this.span > 0 ? (this.sums[y * this.width + x] * 1e6) / this.span : 0;
    this.pointed.textContent = `row ${y}, column ${x}: ${si(rate, '/s')}`;
  }
}
