// The line at the bottom: totals since the viewer began, and how fast decisions and frames come.

import { Recent, count, millis, quantile, si } from './numbers.js';

const TOTALS = [
  ['events', 'events', 'Events that went to the program'],
  ['left_out', 'left out', 'Events left out by region, decimation, or rescaling'],
  ['dropped', 'dropped', 'Events that a core did not take because they lie outside of its map, as the chip does at odd '
    + 'borders; of a board those that came while its buffer was full'],
  ['late', 'late', 'Spikes that came from the board after their stretch'],
  ['output_spikes', 'output spikes', 'Spikes that left the chip'],
  ['synops', 'synops', 'Synaptic operations'],
  ['windows', 'windows', 'Windows of collection; of them decided'],
];
const N_DECISIONS = 200;
const RATE_MS = 2000;

/** Returns some times as "1 / 2 / 3 ms". */
function together(times) {
  return `${times.map((ms) => millis(ms).replace(' ms', '')).join(' / ')} ms`;
}

function textOf(name, totals) {
  if (name === 'windows') return `${count(totals.decided)}/${count(totals.windows)}`;
  return name === 'synops' ? si(totals.synops) : count(totals[name]);
}

/** Returns which totals say that something is wrong. Cores drop by design; a device that complains lost events. */
export function alarmsOf({ totals, position }) {
  return { late: totals.late > 0, dropped: totals.dropped > 0 && Boolean(position.problem) };
}

export class StatusLine {
  constructor(host) {
    this.every = 250;
    this.decisions = new Recent(N_DECISIONS);
    this.frameMs = new Recent(128);
    this.drawn = new Recent(256);
    this.cells = {};
    const add = (name, text, title) => {
      const cell = document.createElement('span');
      const value = document.createElement('b');
      value.textContent = '–';
      cell.title = title;
      cell.append(value, ` ${text}`);
      host.append(cell);
      this.cells[name] = { cell, value };
    };
    for (const [name, text, title] of TOTALS) add(name, text, title);
    add('decision', 'decision', `Wall time from a window's end to its decision: last; half and 95 % of ${N_DECISIONS}`);
    add('rate', 'frames/s', 'Frames drawn in the last two seconds');
    add('latency', 'behind', 'From when the newest data was there until it was drawn: half and 95 % of 128 frames');
  }

  frame(frame) {
    const told = { synops: 0, dropped: 0 };
    for (const core of frame.cores) for (const name of Object.keys(told)) if (core[name] !== null) told[name] += 1;
    // A device that tells of no core has a total of 0 that means nothing.
    const untold = Object.keys(told).filter((name) => frame.cores.length && !told[name] && !frame.totals[name]);
    if (frame.past && frame.windows.some(({ synops }) => synops === null) && !frame.totals.synops) untold.push('synops');
    this.alarms = alarmsOf(frame);
    this.totals = { ...frame.totals, ...Object.fromEntries(untold.map((name) => [name, null])) };
    for (const { latency_ms: latency } of frame.windows) if (Number.isFinite(latency)) this.decisions.push(latency);
    this.dirty = true;
  }

  /** A frame is on the page; `latencyMs` is null for one that brought nothing new. */
  shown(now, latencyMs) {
    this.drawn.push(now);
    if (latencyMs !== null) this.frameMs.push(latencyMs);
  }

  framesPerSecond(now) {
    return this.drawn.values().filter((at) => at > now - RATE_MS).length / (RATE_MS / 1000);
  }

  draw(now) {
    const { totals } = this;
    if (!totals) return;
    for (const [name] of TOTALS) {
      this.write(name, textOf(name, totals));
      this.cells[name].cell.classList.toggle('alarm', Boolean(this.alarms[name]));
    }
    const decisions = this.decisions.values();
    const last = decisions[decisions.length - 1];
    const parts = [last, quantile(decisions, 0.5), quantile(decisions, 0.95)];
    this.write('decision', decisions.length ? together(parts) : '–');
    this.write('rate', this.framesPerSecond(now).toFixed(0));
    const frames = this.frameMs.values();
    this.write('latency', frames.length ? together([0.5, 0.95].map((share) => quantile(frames, share))) : '–');
  }

  write(name, text) {
    const { value } = this.cells[name];
    if (value.textContent !== text) value.textContent = text;
  }
}
