// What each core does: its layer, event and synop rates, and how busy it is beside the busiest one.

import { Rate, count, si } from './numbers.js';

/**
 * Returns the load of each core beside the busiest, 0 to 1; null where nothing is told.
 *
 * It goes by synops over the relative throughput of the core; by events where no core tells its synops.
 */
export function loadsOf(cores) {
  const unit = cores.some(({ synops }) => synops !== null) ? 'synops' : 'events';
  const work = cores.map((core) => (core[unit] === null ? null : core[unit] / (core.throughput || 1)));
  const most = Math.max(0, ...work.filter((w) => w !== null));
  return work.map((w) => (w === null ? null : most > 0 ? w / most : 0));
}

export class CoreGauges {
  constructor(host) {
    this.every = 200;
    this.table = document.createElement('table');
    this.table.className = 'cores';
    const head = this.table.createTHead().insertRow();
    for (const [text, name] of [['Core', 'core'], ['Load', 'load'], ['Events', 'num'], ['Synops', 'num']]) {
      const cell = document.createElement('th');
      cell.scope = 'col';
      cell.textContent = text;
      cell.className = name;
      head.append(cell);
    }
    head.cells[1].title = 'Synops (else events) over the relative throughput of the core, beside the busiest core. '
      + 'No limit per core is published.';
    this.body = this.table.createTBody();
    this.scroll = document.createElement('div');
    this.scroll.className = 'scroll';
    this.scroll.tabIndex = 0;
    this.scroll.setAttribute('role', 'region');
    this.scroll.setAttribute('aria-label', 'Cores');
    this.scroll.append(this.table);
    host.append(this.scroll);
    this.rows = new Map();
  }

  setFacts({ cores }) {
    const shape = JSON.stringify(cores);
    if (shape === this.shape) return;
    this.shape = shape;
    this.rows = new Map(cores.map((core) => [core.core, this.row(core)]));
    this.body.replaceChildren(...[...this.rows.values()].map(({ element }) => element));
    this.dirty = true;
  }

  row(core) {
    const element = document.createElement('tr');
    const name = document.createElement('th');
    name.scope = 'row';
    const id = document.createElement('b');
    id.textContent = core.core;
    const layer = document.createElement('span');
    layer.textContent = core.layer;
    layer.title = `${core.layer}, output ${core.shape.join(' × ')}`;
    name.append(id, layer);
    const [loadCell, events, synops] = [0, 1, 2].map(() => document.createElement('td'));
    loadCell.className = 'load';
    events.className = 'num';
    synops.className = 'num';
    const meter = document.createElement('div');
    meter.className = 'meter';
    meter.setAttribute('role', 'meter');
    meter.setAttribute('aria-valuemin', '0');
    meter.setAttribute('aria-valuemax', '100');
    meter.setAttribute('aria-label', `Load of core ${core.core}, percent of the busiest`);
    const bar = document.createElement('i');
    meter.append(bar);
    const lost = document.createElement('small');
    lost.hidden = true;
    lost.title = 'Events that this core did not take, since this page was opened';
    loadCell.append(meter, lost);
    element.append(name, loadCell, events, synops);
    const rates = { events: new Rate(), synops: new Rate() };
    return { element, meter, bar, lost, cells: { events, synops }, rates, throughput: core.throughput, dropped: 0 };
  }

  clear() {
    for (const { rates } of this.rows.values()) for (const rate of Object.values(rates)) rate.clear();
    this.dirty = true;
  }

  frame(frame) {
    if (frame.reset) this.clear();
    for (const one of frame.cores) {
      const row = this.rows.get(one.core);
      if (!row) continue;
      row.rates.events.push(one.events, frame.span_us);
      row.rates.synops.push(one.synops, frame.span_us);
      row.dropped += one.dropped ?? 0;
    }
    if (frame.span_us > 0) this.dirty = true;
  }

  draw() {
    const rows = [...this.rows.values()];
    const rates = rows.map((row) => ({
      events: row.rates.events.perSecond,
      synops: row.rates.synops.perSecond,
      throughput: row.throughput,
    }));
    const loads = loadsOf(rates);
    rows.forEach((row, i) => {
      for (const name of ['events', 'synops']) {
        const rate = rates[i][name];
        const isSeen = row.rates[name].span > 0;
        write(row.cells[name], rate === null ? si(null) : isSeen ? si(Math.round(rate), '/s') : '–');
        row.cells[name].classList.toggle('untold', rate === null);
      }
      row.meter.classList.toggle('untold', loads[i] === null);
      row.bar.style.width = `${((loads[i] ?? 0) * 100).toFixed(1)}%`;
      row.meter.setAttribute('aria-valuenow', Math.round((loads[i] ?? 0) * 100));
      row.lost.hidden = !row.dropped;
      if (row.dropped) write(row.lost, `${count(row.dropped)} dropped`);
    });
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
