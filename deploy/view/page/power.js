// What the program draws from each rail, piled up; the title says where the figures come from.

import { LinePlot } from './plots.js';
import { si } from './numbers.js';

const RAILS = ['io', 'logic', 'ram', 'pixel digital', 'pixel analog'];
const CAPACITY = 2048;
const SOURCES = { estimated: 'estimated', virtual: 'virtual', measured: 'measured' };

export class PowerPlot {
  constructor(host, { title, changed }) {
    this.every = 50;
    this.badge = title;
    this.empty = document.createElement('p');
    this.empty.className = 'empty';
    this.empty.textContent = 'This device does not tell its power.';
    host.append(this.empty);
    this.plot = new LinePlot(host, {
      title: 'Power per rail', format: (w) => si(Number(w.toPrecision(3)), 'W'), changed,
      stacked: true, least: 1e-6, capacity: CAPACITY,
    });
    this.clear();
  }

  setFacts({ settings, power_source: source, chip }) {
    this.historyUs = settings.history_s * 1e6;
    this.rails = RAILS.slice(0, settings.power_items >= 5 ? 5 : 3);
    this.plot.setLines(this.rails);
    this.badge.textContent = source ? SOURCES[source] ?? source : 'not told';
    this.badge.className = `badge ${source ?? 'none'}`;
    this.badge.title = source && source !== 'measured' ? `From a power model of ${chip}: not a measurement` : '';
    this.empty.hidden = Boolean(source);
    this.dirty = true;
  }

  setTheme() {
    this.dirty = true;
  }

  clear() {
    this.plot.clear();
    this.open = null;
    this.endUs = 0;
  }

  /** A frame of many windows has a point for each; short frames are gathered, so that the history fits at any speed. */
  frame(frame) {
    if (frame.reset) this.clear();
    this.plot.setSpan(this.historyUs, frame.position.duration_us);
    if (!(frame.span_us > 0 || frame.past)) return;
    this.endUs = frame.t_us;
    this.dirty = true;
    const windows = frame.windows.filter((one) => one.power_w && (frame.past || !one.open));
    if (frame.past || (frame.power_w && windows.length > 1)) {
      if (frame.past && windows.length) this.pushWindow(windows[0], windows[0].start_us);
      for (const one of windows) this.pushWindow(one, one.stop_us);
      this.open = null;
      return;
    }
    if (!frame.power_w) return;
    this.open ??= { spanUs: 0, joules: this.rails.map(() => 0) };
    this.open.spanUs += frame.span_us;
    this.rails.forEach((rail, i) => {
      this.open.joules[i] += (frame.power_w[rail] ?? NaN) * frame.span_us;
    });
    if (this.open.spanUs < (1.25 * this.plot.historyUs) / CAPACITY) return;
    this.plot.push(frame.t_us, this.open.joules.map((work) => work / this.open.spanUs));
    this.open = null;
  }

  pushWindow({ power_w: power }, t) {
    this.plot.push(t, this.rails.map((rail) => power[rail] ?? NaN));
  }

  draw() {
    this.plot.draw(this.endUs);
  }
}
