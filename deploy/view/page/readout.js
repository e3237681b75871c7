// What was decided: the class of the newest window, how clearly, what came before, and the class of the whole.

import { count } from './numbers.js';
import { fitCanvas, watchSize } from './canvas.js';
import { colors, seriesStyle } from './theme.js';

const N_KEPT = 512;
const N_LEADERS = 3;
const SPOKEN_EVERY_MS = 1500;

/** Returns why a window has no winner, in a few words; null where it has one. */
export function whyUndecided(window, { threshold, low, high }) {
  if (window.winner !== null) return null;
  const total = window.counts.reduce((sum, n) => sum + n, 0);
  if (total === 0) return 'no spikes';
  if (total < low) return `fewer than ${count(low)} spikes`;
  if (total > high) return `more than ${count(high)} spikes`;
  if (Math.max(...window.counts) < threshold) return `below the threshold of ${count(threshold)}`;
  return 'no clear winner';
}

/** Returns the lead of a class over the best other one: its share of the class's spikes, and who follows. */
export function marginOf(counts, winner) {
  let second = -1;
  counts.forEach((n, i) => {
    if (i !== winner && (second < 0 || n > counts[second])) second = i;
  });
  const next = second < 0 ? 0 : counts[second];
  const own = counts[winner];
  return { share: own > 0 ? Math.max(0, own - next) / own : 0, second, next };
}

export class Readout {
  /** `spoken` is a live region: it is told a class that stays, not each of ten a second. */
  constructor(host, { spoken }) {
    Object.assign(this, { every: 100, spoken, spokenAt: 0, kept: [], latest: null, position: null, soFar: [] });
    const make = (tag, name, parent) => {
      const element = document.createElement(tag);
      element.className = name;
      parent.append(element);
      return element;
    };
    const verdict = make('div', 'verdict', host);
    this.tile = make('div', 'tile', verdict);
    this.icon = make('img', '', this.tile);
    this.icon.alt = '';
    this.letter = make('span', 'letter', this.tile);
    const words = make('div', 'words', verdict);
    this.name = make('p', 'class', words);
    this.state = make('p', 'state', words);
    this.spikes = make('p', 'spikes', words);
    this.bar = make('i', '', make('div', 'meter margin', host));
    this.margin = make('p', 'key', host);
    make('p', 'caption', host).textContent = 'Latest windows';
    this.strip = make('canvas', 'strip', host);
    watchSize(this.strip, () => {
      this.dirty = true;
    });
    this.strip.setAttribute('role', 'img');
    this.strip.setAttribute('aria-label', 'Classes of the latest windows, oldest left');
    make('p', 'caption', host).textContent = 'Spikes so far';
    this.leaders = make('ol', 'leaders', host);
    this.final = make('p', 'final', host);
    this.icon.addEventListener('error', () => this.showIcon(null));
    this.fillLeaders();
  }

  fillLeaders() {
    this.leads = Array.from({ length: N_LEADERS }, () => {
      const item = document.createElement('li');
      const [name, meter, value] = ['span', 'div', 'b'].map((tag) => document.createElement(tag));
      meter.className = 'meter';
      const bar = document.createElement('i');
      meter.append(bar);
      item.append(name, meter, value);
      this.leaders.append(item);
      return { item, name, bar, value };
    });
  }

  setFacts({ classes, icons, settings }) {
    Object.assign(this, { classes, icons: icons ?? [], knobs: settings });
    const urls = this.icons.filter(Boolean);
    if (urls.join() !== this.loaded?.join()) {
      this.loaded = urls;
      // Kept, as an image that nobody holds is fetched again: nothing is to be stored.
      this.images = urls.map((url) => Object.assign(new Image(), { src: url }));
    }
    this.dirty = true;
  }

  setTheme() {
    this.dirty = true;
  }

  clear() {
    this.kept.length = 0;
    this.latest = null;
    this.soFar = [];
    this.dirty = true;
  }

  frame(frame) {
    if (frame.reset) this.clear();
    for (const window of frame.windows) {
      this.kept.push(window.label === null ? -1 : window.label);
      this.latest = window;
    }
    if (this.kept.length > N_KEPT) this.kept.splice(0, this.kept.length - N_KEPT);
    this.soFar = frame.so_far;
    this.position = frame.position;
    this.dirty = true;
  }

  showIcon(url) {
    if (url) {
      if (this.icon.getAttribute('src') !== url) this.icon.src = url;
    }
    this.icon.hidden = !url;
    this.letter.hidden = Boolean(url);
  }

  draw() {
    if (!this.classes) return;
    const { latest } = this;
    const label = latest?.label ?? null;
    const name = label === null ? (latest ? 'Undecided' : 'No window yet') : this.classes[label] ?? `class ${label}`;
    write(this.name, name);
    this.name.title = name;
    this.name.classList.toggle('none', label === null);
    this.showIcon(label === null ? null : this.icons[label] ?? null);
    write(this.letter, label === null ? '–' : String(label));
    this.tile.style.borderColor = label === null ? '' : seriesStyle(label).color;
    const why = latest ? whyUndecided(latest, this.knobs) : null;
    const state = label === null ? why : why ? `default: ${why}` : 'decided';
    write(this.state, latest ? state : 'waiting for the first window');
    this.state.className = `state ${!latest || label === null ? 'none' : why ? 'default' : 'decided'}`;
    this.drawMargin(latest, latest?.winner ?? null);
    this.drawStrip();
    this.drawLeaders();
    this.drawFinal();
    this.speak(label === null ? '' : name);
  }

  drawMargin(latest, winner) {
    const total = latest ? latest.counts.reduce((sum, n) => sum + n, 0) : 0;
    if (winner === null) {
      write(this.spikes, latest ? `${count(total)} ${total === 1 ? 'spike' : 'spikes'}` : '');
      this.bar.style.width = '0';
      write(this.margin, 'Margin: –');
      return;
    }
    const { share, second, next } = marginOf(latest.counts, winner);
    write(this.spikes, `${count(latest.counts[winner])} of ${count(total)} spikes`);
    this.bar.style.width = `${(share * 100).toFixed(1)}%`;
    this.bar.style.background = seriesStyle(winner).color;
    const follower = next > 0 ? `, next ${this.classes[second]} (${count(next)})` : '';
    this.margin.title = follower.slice(2);
    write(this.margin, `Margin ${Math.round(share * 100)} %${follower}`);
  }

  drawStrip() {
    const { width, height } = fitCanvas(this.strip);
    if (!width) return;
    const ctx = this.strip.getContext('2d');
    ctx.clearRect(0, 0, width, height);
    const cell = 6;
    const n = Math.floor(width / cell);
    const shown = this.kept.slice(-n);
    shown.forEach((label, i) => {
      ctx.fillStyle = label < 0 ? colors().line : seriesStyle(label).color;
      const tall = label < 0 ? 0.3 : 1;
      ctx.fillRect(i * cell, height * (1 - tall), cell - 1, height * tall);
    });
  }

  drawLeaders() {
    const order = this.soFar.map((n, i) => ({ n, i })).filter(({ n }) => n > 0).sort((a, b) => b.n - a.n);
    this.leads.forEach((lead, place) => {
      const one = order[place];
      lead.item.hidden = !one;
      if (!one) return;
      write(lead.name, this.classes[one.i]);
      lead.name.title = this.classes[one.i];
      write(lead.value, count(one.n));
      lead.bar.style.width = `${((100 * one.n) / order[0].n).toFixed(1)}%`;
      lead.bar.style.background = seriesStyle(one.i).color;
    });
  }

  drawFinal() {
    const { ended: stands = false, final = null, label = null } = this.position ?? {};
    const ended = stands || final !== null;
    const truth = label === null ? null : this.classes[label] ?? `class ${label}`;
    this.final.hidden = !ended && truth === null;
    const isRight = ended && final !== null && label !== null && final === label;
    const isWrong = ended && label !== null && final !== label;
    this.final.className = `final ${isRight ? 'right' : isWrong ? 'wrong' : ''}`;
    if (!ended) {
      write(this.final, truth === null ? '' : `True class: ${truth}`);
      return;
    }
    const whole = final === null ? 'no class' : this.classes[final] ?? `class ${final}`;
    const verdict = truth === null ? '' : isRight ? `, as it is labeled` : `, labeled ${truth}`;
    write(this.final, `${isRight ? '✓ ' : isWrong ? '✗ ' : ''}Whole recording: ${whole}${verdict}`);
  }

  speak(name) {
    const now = performance.now();
    if (!name || name === this.spokenName || now - this.spokenAt < SPOKEN_EVERY_MS) return;
    Object.assign(this, { spokenName: name, spokenAt: now });
    this.spoken.textContent = name;
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
