// Where the panels are: rows of names. Changes are pure functions of the rows; the page follows them.

const KEY = 'spikeport.layout.1';

export const PANELS = {
  events: { title: 'Events', weight: 1.15 },
  counts: { title: 'Spike counts', weight: 1.9 },
  readout: { title: 'Class', weight: 1 },
  power: { title: 'Power', weight: 1.6 },
  cores: { title: 'Cores', weight: 1.5 },
  map: { title: 'Spike map', weight: 1 },
};

/** Returns the rows with known names only, each once, and no empty row. */
export function tidy(rows) {
  const seen = new Set();
  const isNew = (name) => name in PANELS && !seen.has(name) && seen.add(name);
  return rows.map((row) => row.filter(isNew)).filter((row) => row.length);
}

/** Returns the rows for one column: what was decided comes right after what was seen. */
export function narrowed(rows) {
  if (!find(rows, 'readout')) return rows;
  const [first, ...rest] = rows.flat().filter((name) => name !== 'readout');
  return tidy([first ? [first, 'readout', ...rest] : ['readout']]);
}

/** Returns the rows with a panel before the one ahead of it, or after the next one, rows kept as long as they are. */
export function shift(rows, name, by) {
  const names = rows.flat();
  const at = names.indexOf(name);
  const other = at + by;
  if (at < 0 || other < 0 || other >= names.length) return rows;
  [names[at], names[other]] = [names[other], names[at]];
  return rows.map((row) => names.splice(0, row.length));
}

/** Returns the row and column of a panel, or null. */
export function find(rows, name) {
  const row = rows.findIndex((names) => names.includes(name));
  return row < 0 ? null : { row, column: rows[row].indexOf(name) };
}

export function hide(rows, name) {
  return tidy(rows.map((row) => row.filter((one) => one !== name)));
}

/** Returns the rows with a panel at the end of the shortest row. */
export function show(rows, name) {
  if (find(rows, name)) return rows;
  const shortest = rows.reduce((best, row, i) => (row.length < rows[best].length ? i : best), 0);
  return tidy(rows.length ? rows.map((row, i) => (i === shortest ? [...row, name] : row)) : [[name]]);
}

/** Returns the rows with a panel before or after another one. */
export function place(rows, name, { target, isAfter }) {
  if (name === target) return rows;
  const without = rows.map((row) => row.filter((one) => one !== name));
  return tidy(without.map((row) => row.flatMap((one) => {
    if (one !== target) return [one];
    return isAfter ? [one, name] : [name, one];
  })));
}

/** Returns the rows with a panel moved by one place: left, right, up, or down; a new row where there is none. */
export function move(rows, name, direction) {
  const at = find(rows, name);
  if (!at) return rows;
  const row = rows[at.row];
  if (direction === 'left' || direction === 'right') {
    const other = at.column + (direction === 'left' ? -1 : 1);
    if (other < 0 || other >= row.length) return rows;
    const swapped = [...row];
    [swapped[at.column], swapped[other]] = [swapped[other], swapped[at.column]];
    return rows.map((one, i) => (i === at.row ? swapped : one));
  }
  const next = at.row + (direction === 'up' ? -1 : 1);
  const without = rows.map((names) => names.filter((one) => one !== name));
  if (next < 0 || next >= rows.length) {
    if (row.length === 1) return rows;
    return tidy(next < 0 ? [[name], ...without] : [...without, [name]]);
  }
  return tidy(without.map((names, i) => {
    return i === next ? [...names.slice(0, at.column), name, ...names.slice(at.column)] : names;
  }));
}

/** Returns whether the page is one column, as of a phone. */
export function isNarrow() {
  return matchMedia('(max-width: 720px)').matches;
}

function saved() {
  try {
    const rows = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(rows) && rows.every(Array.isArray) && tidy(rows).length ? tidy(rows) : null;
  } catch {
    return null;
  }
}

function save(rows) {
  try {
    if (rows) localStorage.setItem(KEY, JSON.stringify(rows));
    else localStorage.removeItem(KEY);
  } catch {
    // A browser may forbid storage; the layout then lasts as long as the page.
  }
}

/** Puts panels on the page, and keeps what the user made of them. */
export class Layout {
  /** `make(name, host, title)` fills a panel; `onChange` hears of each change. */
  constructor(place, { make, onChange }) {
    Object.assign(this, { place, make, onChange, rows: [], given: [], elements: {}, panels: {} });
    this.seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const panel = this.panels[target.dataset.panel];
        panel.onScreen = isIntersecting;
        if (isIntersecting) panel.dirty = true;
      }
      onChange();
    });
    this.sizes = new ResizeObserver((entries) => {
      for (const { target } of entries) this.panels[target.dataset.panel].dirty = true;
      onChange();
    });
    for (const name of Object.keys(PANELS)) this.build(name);
  }

  build(name) {
    const section = document.createElement('section');
    section.className = 'panel';
    section.dataset.panel = name;
    section.style.flexGrow = PANELS[name].weight;
    section.setAttribute('aria-labelledby', `panel-${name}`);
    const header = document.createElement('header');
    header.draggable = true;
    const title = document.createElement('h2');
    title.id = `panel-${name}`;
    title.textContent = PANELS[name].title;
    const badge = document.createElement('span');
    badge.className = 'badge';
    const close = document.createElement('button');
    close.type = 'button';
    close.className = 'icon close';
    close.textContent = '×';
    close.setAttribute('aria-label', `Hide ${PANELS[name].title}`);
    close.addEventListener('click', () => this.set(hide(this.rows, name)));
    header.append(title, badge, close);
    const host = document.createElement('div');
    host.className = 'inside';
    section.append(header, host);
    this.elements[name] = section;
    const panel = this.make(name, host, badge);
    if (panel.chooser) badge.replaceWith(panel.chooser);
    panel.dirty = true;
    this.panels[name] = panel;
    this.seen.observe(section);
    this.sizes.observe(host.parentElement);
    this.letDrag(section, header, name);
  }

  letDrag(section, header, name) {
    header.addEventListener('dragstart', (event) => {
      event.dataTransfer.setData('text/plain', name);
      event.dataTransfer.effectAllowed = 'move';
      this.dragged = name;
    });
    header.addEventListener('dragend', () => {
      this.dragged = null;
    });
    const isAfter = (event) => {
      const { left, width } = section.getBoundingClientRect();
      return event.clientX > left + width / 2;
    };
    section.addEventListener('dragover', (event) => {
      if (!this.dragged || this.dragged === name) return;
      event.preventDefault();
      section.dataset.drop = isAfter(event) ? 'after' : 'before';
    });
    section.addEventListener('dragleave', () => delete section.dataset.drop);
    section.addEventListener('drop', (event) => {
      event.preventDefault();
      delete section.dataset.drop;
      if (this.dragged) this.set(place(this.rows, this.dragged, { target: name, isAfter: isAfter(event) }));
    });
  }

  setFacts({ plots }) {
    this.given = isNarrow() ? narrowed(tidy(plots)) : tidy(plots);
    if (!this.rows.length) this.show(saved() ?? this.given);
  }

  /** Take the user's rows, or null for those the viewer was started with. */
  set(rows) {
    save(rows);
    this.show(rows ?? this.given);
  }

  show(rows) {
    this.rows = rows;
    this.place.replaceChildren(...rows.map((names) => {
      const row = document.createElement('div');
      row.className = 'panels';
      row.append(...names.map((name) => this.elements[name]));
      return row;
    }));
    for (const [name, panel] of Object.entries(this.panels)) {
      panel.isShown = find(rows, name) !== null;
      panel.dirty = true;
    }
    this.onChange();
  }
}
