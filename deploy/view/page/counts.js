// Spikes of each class in each window of collection, one line a class.

import { LinePlot } from './plots.js';
import { count } from './numbers.js';

export class CountLines {
  constructor(host, { title, changed }) {
    this.every = 50;
    this.badge = title;
    this.changed = changed;
    this.host = host;
    this.endUs = 0;
  }

  setFacts({ classes, settings }) {
    const points = Math.ceil((1.25 * settings.history_s * 1000) / settings.interval_ms);
    const capacity = Math.max(256, Math.min(8192, points));
    if (!this.plot || capacity > this.plot.capacity) {
      this.host.replaceChildren();
      this.plot = new LinePlot(this.host, {
        title: 'Spikes of each class per window', capacity, least: 5, changed: this.changed,
        format: (v) => (Number.isInteger(v) ? count(v) : v.toFixed(1)),
      });
    }
    this.historyUs = settings.history_s * 1e6;
    this.plot.setLines(classes);
    this.badge.textContent = `per ${settings.interval_ms} ms`;
    this.dirty = true;
  }

  setTheme() {
    this.dirty = true;
  }

  clear() {
    this.plot?.clear();
  }

  frame(frame) {
    if (frame.reset) this.clear();
    this.plot.setSpan(this.historyUs, frame.position.duration_us);
    // A window cut short by the end of a recording has fewer spikes for that alone: its point is left out.
    for (const { stop_us: stop, counts, open } of frame.windows) if (!open) this.plot.push(stop, counts);
    if (frame.span_us > 0 || frame.reset) this.dirty = true;
    this.endUs = frame.t_us;
  }

  draw() {
    this.plot?.draw(this.endUs);
  }
}
