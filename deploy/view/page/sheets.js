// The three sheets: the knobs of the vendor's viewer, the panels, and the exports.

import { clock } from './numbers.js';
import { PANELS, find, hide, isNarrow, move, shift, show } from './layout.js';

const KNOBS = ['interval_ms', 'threshold', 'low', 'high'];
const LONGEST_GIF_US = 60e6;
const ARROWS = { left: '←', up: '↑', down: '↓', right: '→' };

const get = (id) => document.getElementById(id);

export class Settings {
  /** `onRoi(box or null)` and `onLook({fade_ms, history_s})` hear of what is not a knob of the server. */
  constructor({ send, onRoi, onLook }) {
    Object.assign(this, { send, onLook, every: 250, look: {} });
    this.roi = [...get('knobs').elements.roi];
    for (const name of KNOBS) {
      get(name).addEventListener('change', (event) => this.change(name, event.target));
    }
    get('default_class').addEventListener('change', ({ target }) => {
      send({ do: 'knobs', default_class: target.value === '' ? null : Number(target.value) });
    });
    for (const name of ['fade_ms', 'history_s']) {
      get(name).addEventListener('change', ({ target }) => {
        const value = target.valueAsNumber;
        if (!(value >= Number(target.min))) return this.write();
        this.look[name] = value;
        return onLook(this.look);
      });
    }
    get('knobs').addEventListener('submit', (event) => {
      event.preventDefault();
      const box = this.roi.map((input) => input.valueAsNumber);
      const isBox = box.every(Number.isInteger) && box[0] < box[1] && box[2] < box[3];
      this.roi.forEach((input) => input.setAttribute('aria-invalid', String(!isBox)));
      if (isBox) onRoi(box);
    });
    get('roi-clear').addEventListener('click', () => onRoi(null));
    get('settings').addEventListener('toggle', () => this.write());
  }

  async change(name, input) {
    const value = input.valueAsNumber;
    const isGood = Number.isFinite(value) && value >= Number(input.min);
    input.setAttribute('aria-invalid', String(!isGood));
    if (!isGood) return;
    const isTaken = await this.send({ do: 'knobs', [name]: value });
    input.setAttribute('aria-invalid', String(!isTaken));
    if (!isTaken) this.write();
  }

  setFacts(facts) {
    const names = facts.classes.join('\n');
    if (names !== this.shownClasses) {
      this.shownClasses = names;
      const options = facts.classes.map((name, i) => new Option(name, String(i)));
      get('default_class').replaceChildren(new Option('None', ''), ...options);
    }
    this.facts = facts;
    this.write();
  }

  frame({ position }) {
    const box = position.roi ?? [0, this.facts?.sensor[0], 0, this.facts?.sensor[1]];
    if (box.join() === this.box?.join()) return;
    this.box = box;
    this.dirty = true;
  }

  draw() {
    this.writeRoi();
  }

  write() {
    if (!this.facts) return;
    const values = { ...this.facts.settings, ...this.look };
    for (const name of [...KNOBS, 'fade_ms', 'history_s']) set(get(name), values[name]);
    set(get('default_class'), values.default_class ?? '');
    this.writeRoi();
  }

  writeRoi() {
    const hasFocus = this.roi.includes(document.activeElement);
    if (!hasFocus) this.roi.forEach((input, i) => set(input, this.box?.[i] ?? ''));
  }
}

function set(input, value) {
  if (document.activeElement !== input) input.value = String(value);
}

/** The list of panels: shown or hidden, and four ways to move each. */
export class Arrange {
  constructor(layout) {
    this.layout = layout;
    get('arrange-reset').addEventListener('click', () => layout.set(null));
    this.items = Object.keys(PANELS).map((name) => this.item(name));
    get('arrange-list').append(...this.items.map(({ element }) => element));
  }

  item(name) {
    const element = document.createElement('li');
    const label = document.createElement('label');
    const check = document.createElement('input');
    check.type = 'checkbox';
    check.addEventListener('change', () => {
      const { layout } = this;
      layout.set((check.checked ? show : hide)(layout.rows, name));
    });
    label.append(check, PANELS[name].title);
    const arrows = Object.entries(ARROWS).map(([direction, sign]) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = sign;
      button.setAttribute('aria-label', `Move ${PANELS[name].title} ${direction}`);
      button.className = `icon ${direction}`;
      button.addEventListener('click', () => {
        const { rows } = this.layout;
        this.layout.set(isNarrow() ? shift(rows, name, direction === 'up' ? -1 : 1) : move(rows, name, direction));
      });
      return button;
    });
    element.append(label, ...arrows);
    return { name, element, check, arrows };
  }

  write() {
    for (const { name, check, arrows } of this.items) {
      const isShown = find(this.layout.rows, name) !== null;
      check.checked = isShown;
      for (const button of arrows) button.disabled = !isShown;
    }
  }
}

/** The links of the exports; those of the viewer itself are made anew when the sheet is opened. */
export class Exports {
  constructor({ onPicture }) {
    get('png').addEventListener('click', () => {
      get('exports').hidePopover();
      onPicture();
    });
    get('exports').addEventListener('toggle', () => this.write());
  }

  setFacts({ settings }) {
    this.historyUs = Math.min(LONGEST_GIF_US, settings.history_s * 1e6);
  }

  frame({ position }) {
    this.stopUs = position.t_us;
  }

  write() {
    const stop = Math.round(this.stopUs ?? 0);
    const start = Math.max(0, Math.round(stop - this.historyUs));
    get('gif').href = `export/activity.gif?from_us=${start}&to_us=${stop}`;
    get('gif-span').textContent = clock(stop - start, 1);
  }
}
