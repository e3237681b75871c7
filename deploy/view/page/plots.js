// A small line plot on a canvas: reel time across, a range that fits itself, direct labels, and a legend that tells
// the values under the pointer.

import { clock } from './numbers.js';
import { fitCanvas, shorten, watchSize } from './canvas.js';
import { colors, seriesStyle } from './theme.js';

const MARGIN = { top: 8, bottom: 20 };
const LABEL_HEIGHT = 13;
const N_LABELS = 4;
const LEAST_LABELED = 0.12;
const LEGEND_MS = 200;
const HEADROOM = 1.2;

/** The newest points of some lines: memory is fixed by the capacity. */
export class Ring {
  constructor(nLines, capacity) {
    this.t = new Float64Array(capacity);
    this.values = Array.from({ length: nLines }, () => new Float32Array(capacity));
    this.clear();
  }

  clear() {
    this.start = 0;
    this.length = 0;
  }

  /** Returns where the i-th oldest point lies. */
  at(i) {
    return (this.start + i) % this.t.length;
  }

  push(t, values) {
    const capacity = this.t.length;
    if (this.length === capacity) this.start = (this.start + 1) % capacity;
    else this.length += 1;
    const at = this.at(this.length - 1);
    this.t[at] = t;
    this.values.forEach((line, i) => {
      line[at] = values[i];
    });
  }

  /** Returns the first i whose time is not below t. */
  search(t) {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.t[this.at(middle)] < t) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Returns the step of 1, 2, or 5 times a power of ten that cuts a span in at most n parts. */
export function niceStep(span, n) {
  const rough = span / n;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((m) => m * power).find((step) => step >= rough * 0.9999);
}

/** Returns label heights moved apart by at least `gap`, all of them within `low` to `high`. */
export function spread(heights, gap, low, high) {
  const out = heights.map((y, i) => ({ y, i })).sort((a, b) => a.y - b.y);
  out.forEach((one, i) => {
    one.y = Math.max(one.y, i ? out[i - 1].y + gap : low);
  });
  for (let i = out.length - 1; i >= 0; i -= 1) {
    out[i].y = Math.min(out[i].y, i === out.length - 1 ? high : out[i + 1].y - gap);
  }
  return out.sort((a, b) => a.i - b.i).map(({ y }) => y);
}

/** Returns a figure without zeros at the end of its fraction: "2.50 mW" as "2.5 mW". */
function bare(text) {
  return text.replace(/(\.\d*?)0+(?=\s|$)/, '$1').replace(/\.(?=\s|$)/, '');
}

export class LinePlot {
  /** `host` gets canvas and legend; `format` writes a value; `changed()` asks to be drawn; `stacked` piles lines up. */
  constructor(host, { title, format, changed, stacked = false, least = 1, capacity = 2048 }) {
    Object.assign(this, { format, changed, stacked, least, capacity });
    this.canvas = document.createElement('canvas');
    this.canvas.className = 'plot';
    this.canvas.setAttribute('role', 'img');
    this.canvas.setAttribute('aria-label', title);
    this.legend = document.createElement('ul');
    this.legend.className = 'legend';
    host.append(this.canvas, this.legend);
    this.hidden = new Set();
    this.strong = -1;
    this.pointer = null;
    this.historyUs = 10e6;
    this.legendAt = 0;
    this.setLines([]);
    watchSize(this.canvas, changed);
    this.canvas.addEventListener('pointermove', (event) => this.point(event.offsetX));
    this.canvas.addEventListener('pointerdown', (event) => this.point(event.offsetX));
    this.canvas.addEventListener('pointerleave', () => this.point(null));
  }

  point(x) {
    this.pointer = x;
    this.changed();
  }

  setLines(names) {
    if (this.names && names.join('\n') === this.names.join('\n')) return;
    this.names = names;
    this.hidden.clear();
    this.ring = new Ring(names.length, this.capacity);
    this.top = this.least;
    this.entries = names.map((name, i) => this.entry(name, i));
    this.legend.replaceChildren(...this.entries.map(({ item }) => item));
  }

  entry(name, i) {
    const item = document.createElement('li');
    const button = document.createElement('button');
    button.type = 'button';
    button.title = name;
    button.setAttribute('aria-pressed', 'true');
    const [swatch, text, value] = ['i', 'span', 'b'].map((tag) => document.createElement(tag));
    text.textContent = name;
    button.append(swatch, text, value);
    item.append(button);
    button.addEventListener('click', () => {
      if (!this.hidden.delete(i)) this.hidden.add(i);
      button.setAttribute('aria-pressed', String(!this.hidden.has(i)));
      this.changed();
    });
    const emphasize = (index) => () => {
      this.strong = index;
      this.changed();
    };
    button.addEventListener('pointerenter', emphasize(i));
    button.addEventListener('pointerleave', emphasize(-1));
    return { item, swatch, value, shown: null };
  }

  /** Show at most so much time, and no more than a reel of known length has. */
  setSpan(historyUs, durationUs) {
    this.historyUs = durationUs ? Math.min(historyUs, durationUs) : historyUs;
  }

  push(t, values) {
    if (this.ring.length && t < this.ring.t[this.ring.at(this.ring.length - 1)]) this.ring.clear();
    this.ring.push(t, values);
  }

  clear() {
    this.ring.clear();
    this.top = this.least;
  }

  /** Draw everything; the end of the time axis is `endUs` or the newest point. */
  draw(endUs) {
    const { width, height } = fitCanvas(this.canvas);
    if (width < 40 || height < 40) return;
    const ctx = this.canvas.getContext('2d');
    ctx.clearRect(0, 0, width, height);
    const gutter = Math.min(104, Math.max(60, width * 0.19));
    const box = { left: 0, top: MARGIN.top, right: width - gutter, bottom: height - MARGIN.bottom, width };
    const stop = Math.max(endUs, this.historyUs);
    const from = stop - this.historyUs;
    const first = Math.max(0, this.ring.search(from) - 1);
    const shown = this.shownLines(first);
    this.fitTop(shown);
    ctx.font = '11px system-ui, sans-serif';
    const rise = niceStep(this.top, Math.max(2, (box.bottom - box.top) / 30));
    const ticks = Array.from({ length: Math.floor(this.top / rise + 1e-6) + 1 }, (_, i) => bare(this.format(i * rise)));
    box.left = 10 + Math.max(24, ...ticks.map((text) => ctx.measureText(text).width));
    const x = (t) => box.left + ((t - from) / this.historyUs) * (box.right - box.left);
    const y = (v) => box.bottom - (v / this.top) * (box.bottom - box.top);
    this.drawAxes(ctx, box, { from, stop, x, ys: ticks.map((text, i) => [text, y(i * rise)]) });
    ctx.save();
    ctx.beginPath();
    ctx.rect(box.left, box.top - 2, box.right - box.left + 2, box.bottom - box.top + 3);
    ctx.clip();
    const xs = new Float32Array(Math.max(0, this.ring.length - first));
    for (let i = 0; i < xs.length; i += 1) xs[i] = x(this.ring.t[this.ring.at(first + i)]);
    shown.forEach((line, place) => this.drawLine(ctx, line, shown[place - 1], { xs, y }));
    ctx.restore();
    this.drawLabels(ctx, shown, { box, x, y });
    const picked = this.drawCrosshair(ctx, { box, from, first });
    this.writeLegend(picked ?? this.ring.length - 1);
  }

  /** Returns the lines that are told and not hidden, with the heights at which they are drawn: sums if stacked. */
  shownLines(first) {
    const { ring } = this;
    const n = ring.length - first;
    const newest = ring.at(ring.length - 1);
    const out = [];
    let below = null;
    this.names.forEach((name, index) => {
      if (this.hidden.has(index) || !n || Number.isNaN(ring.values[index][newest])) return;
      const heights = new Float32Array(n);
      for (let i = 0; i < n; i += 1) {
        heights[i] = (ring.values[index][ring.at(first + i)] || 0) + (below ? below[i] : 0);
      }
      if (this.stacked) below = heights;
      out.push({ name, index, heights });
    });
    return out;
  }

  /** The range grows at once and shrinks when it is far too large, so that it does not tremble. */
  fitTop(shown) {
    let most = 0;
    for (const { heights } of shown) for (const v of heights) if (v > most) most = v;
    const wanted = Math.max(this.least, most * HEADROOM);
    if (most > this.top * 0.98 || wanted < this.top * 0.55) this.top = wanted;
  }

  drawAxes(ctx, box, { from, stop, x, ys }) {
    const { soft, line } = colors();
    ctx.fillStyle = soft;
    ctx.strokeStyle = line;
    ctx.lineWidth = 1;
    ctx.textBaseline = 'middle';
    ctx.textAlign = 'right';
    ctx.beginPath();
    for (const [text, height] of ys) {
      const at = Math.round(height) + 0.5;
      ctx.moveTo(box.left, at);
      ctx.lineTo(box.right, at);
      ctx.fillText(text, box.left - 6, Math.max(at, 7));
    }
    const run = niceStep(stop - from, Math.max(2, (box.right - box.left) / 68));
    ctx.textAlign = 'center';
    ctx.textBaseline = 'bottom';
    for (let t = Math.ceil(from / run) * run; t <= stop; t += run) {
      const at = Math.round(x(t)) + 0.5;
      ctx.moveTo(at, box.bottom);
      ctx.lineTo(at, box.bottom + 4);
      ctx.fillText(clock(t, run < 1e5 ? 2 : run < 1e6 ? 1 : 0), at, box.bottom + MARGIN.bottom);
    }
    ctx.stroke();
  }

  drawLine(ctx, { index, heights }, below, { xs, y }) {
    const { color, dash } = seriesStyle(index);
    const n = heights.length;
    if (!n) return;
    ctx.beginPath();
    trace(ctx, xs, heights, y);
    ctx.strokeStyle = color;
    ctx.lineJoin = 'round';
    ctx.setLineDash(dash);
    ctx.globalAlpha = this.strong >= 0 && this.strong !== index ? 0.25 : 1;
    ctx.lineWidth = this.strong === index ? 3 : 1.6;
    ctx.stroke();
    ctx.setLineDash([]);
    if (n === 1) {
      ctx.fillStyle = color;
      ctx.fillRect(xs[0] - 2, y(heights[0]) - 2, 4, 4);
    }
    if (this.stacked) {
      ctx.lineTo(xs[n - 1], y(below ? below.heights[n - 1] : 0));
      if (below) for (let i = n - 1; i >= 0; i -= 1) ctx.lineTo(xs[i], y(below.heights[i]));
      else ctx.lineTo(xs[0], y(0));
      ctx.closePath();
      ctx.globalAlpha *= 0.38;
      ctx.fillStyle = color;
      ctx.fill();
    }
    ctx.globalAlpha = 1;
  }

  /** Name the highest lines at their ends: color alone does not tell eleven of them apart. */
  drawLabels(ctx, shown, { box, x, y }) {
    if (!this.ring.length) return;
    const last = this.ring.at(this.ring.length - 1);
    const value = ({ index }) => this.ring.values[index][last];
    const least = this.stacked ? 0 : this.top * LEAST_LABELED;
    const named = shown.filter((line) => value(line) > least).sort((a, b) => value(b) - value(a))
      .slice(0, this.stacked ? shown.length : N_LABELS);
    const middles = named.map(({ heights, index }) => {
      const v = heights[heights.length - 1];
      return y(this.stacked ? v - this.ring.values[index][last] / 2 : v);
    });
    const heights = spread(middles, LABEL_HEIGHT, box.top + 5, box.bottom - 5);
    const end = Math.max(box.left, Math.min(box.right, x(this.ring.t[last])));
    ctx.font = '600 11px system-ui, sans-serif';
    ctx.textAlign = 'left';
    ctx.textBaseline = 'middle';
    named.forEach(({ name, index }, i) => {
      const { color } = seriesStyle(index);
      ctx.strokeStyle = color;
      ctx.lineWidth = 1;
      ctx.beginPath();
      ctx.moveTo(end + 2, middles[i]);
      ctx.lineTo(end + 8, heights[i]);
      ctx.stroke();
      ctx.fillStyle = color;
      ctx.fillText(shorten(ctx, name, box.width - end - 12), end + 11, heights[i]);
    });
  }

  /** Returns the point under the pointer, or undefined. */
  drawCrosshair(ctx, { box, from, first }) {
    const { ring, pointer } = this;
    if (pointer === null || pointer < box.left || pointer > box.right || ring.length <= first) return undefined;
    const wanted = from + ((pointer - box.left) / (box.right - box.left)) * this.historyUs;
    let i = Math.min(ring.length - 1, ring.search(wanted));
    if (i > first && wanted - ring.t[ring.at(i - 1)] < ring.t[ring.at(i)] - wanted) i -= 1;
    const t = ring.t[ring.at(i)];
    const at = box.left + ((t - from) / this.historyUs) * (box.right - box.left);
    if (at < box.left || at > box.right) return undefined;
    const { ink, ground } = colors();
    ctx.strokeStyle = ink;
    ctx.lineWidth = 1;
    ctx.setLineDash([3, 3]);
    ctx.strokeRect(Math.round(at) + 0.5, box.top, 0, box.bottom - box.top);
    ctx.setLineDash([]);
    const text = clock(t);
    ctx.font = '600 11px system-ui, sans-serif';
    const half = ctx.measureText(text).width / 2 + 5;
    const middle = Math.max(box.left + half, Math.min(box.right - half, at));
    ctx.fillStyle = ink;
    ctx.fillRect(middle - half, box.bottom - 18, 2 * half, 16);
    ctx.fillStyle = ground;
    ctx.textAlign = 'center';
    ctx.textBaseline = 'middle';
    ctx.fillText(text, middle, box.bottom - 10);
    return i;
  }

  /** Text is slow to lay out: it is written a few times a second, unless somebody points at it. */
  writeLegend(i) {
    const now = performance.now();
    if (this.pointer === null && now < this.legendAt + LEGEND_MS) {
      this.legendTimer ||= setTimeout(() => {
        this.legendTimer = 0;
        this.changed();
      }, LEGEND_MS);
      return;
    }
    this.legendAt = now;
    this.entries.forEach((entry, index) => {
      const { color } = seriesStyle(index);
      const text = i >= 0 ? this.format(this.ring.values[index][this.ring.at(i)]) : '–';
      if (entry.shown === text + color) return;
      entry.shown = text + color;
      entry.value.textContent = text;
      entry.swatch.style.background = color;
    });
  }
}

/** Draw a line through points; where many share a column of pixels, their extent there. */
function trace(ctx, xs, heights, y) {
  const n = xs.length;
  ctx.moveTo(xs[0], y(heights[0]));
  let i = 1;
  while (i < n) {
    const column = Math.floor(xs[i]);
    let [low, high, next] = [heights[i], heights[i], i + 1];
    while (next < n && Math.floor(xs[next]) === column) {
      low = Math.min(low, heights[next]);
      high = Math.max(high, heights[next]);
      next += 1;
    }
    if (next - i > 2) {
      ctx.lineTo(xs[i], y(low));
      ctx.lineTo(xs[i], y(high));
    }
    ctx.lineTo(xs[next - 1], y(heights[next - 1]));
    i = next;
  }
}
