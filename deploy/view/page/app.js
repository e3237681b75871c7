// Ties the rooms together: what comes in over the wire goes to the panels, and one loop draws what has changed.
//
// For measuring and tests, `window.spikeport` holds
//   n_shown     frames drawn since the page was loaded
//   latencies   { kept, seen }: the newest 4096 values of Date.now() - data_ms at drawing, as a ring (`values()` gives
//               them oldest first); frames that cover no reel time are not among them
//   draw_ms     the same ring for what drawing one frame took this page
//   facts, frame  the newest facts, and the header of the frame drawn last
//   paint()     a canvas with the picture that Export saves
// and <body> holds data-state (connecting, live, lost, refused), data-frame, data-class (the label shown, '' where
// there is none), data-winner, data-final, data-events, data-dropped, data-late, data-output-spikes, data-synops,
// data-windows, data-t-us, data-playing, data-ended. They are set after the frame is drawn.

import { Arrange, Exports, Settings } from './sheets.js';
import { Controls } from './controls.js';
import { CoreGauges } from './gauges.js';
import { CountLines } from './counts.js';
import { EventImage } from './image.js';
import { Layout } from './layout.js';
import { PowerPlot } from './power.js';
import { Readout } from './readout.js';
import { Recent } from './numbers.js';
import { SpikeMap } from './map.js';
import { StatusLine } from './status.js';
import { Wire } from './wire.js';
import { download, paint } from './picture.js';
import { sharpness } from './canvas.js';
import { toggleTheme, watchTheme } from './theme.js';

const NOTICE_MS = 8000;
const N_LATENCIES = 4096;

const get = (id) => document.getElementById(id);
const { body } = document;
const waiting = [];
const measured = { n_shown: 0, latencies: new Recent(N_LATENCIES), draw_ms: new Recent(N_LATENCIES) };
let requested = 0;
let timer = 0;
let look = {};

window.spikeport = measured;
measured.paint = () => {
  sharpness.scale = Math.max(2, window.devicePixelRatio);
  redraw();
  const picture = paint([get('top'), get('panels-place'), get('status')], sharpness.scale);
  sharpness.scale = null;
  redraw();
  return picture;
};

/** Show a sentence for a while; the same one is not shown twice. */
function notify(sentence) {
  const notices = get('notices');
  const old = [...notices.children].find((one) => one.firstChild.textContent === sentence);
  old?.remove();
  const notice = document.createElement('p');
  const text = document.createElement('span');
  text.textContent = sentence;
  const close = document.createElement('button');
  close.type = 'button';
  close.className = 'icon';
  close.textContent = '×';
  close.setAttribute('aria-label', 'Dismiss');
  close.addEventListener('click', () => notice.remove());
  notice.append(text, close);
  notices.append(notice);
  setTimeout(() => notice.remove(), NOTICE_MS);
}

/** Send a command; returns whether it was taken, and tells the user where it was not. */
async function send(command) {
  try {
    await wire.send(command);
    return true;
  } catch (problem) {
    notify(problem.message);
    return false;
  }
}

const sendRoi = (box) => send({ do: 'roi', box });
const makers = {
  events: (host) => new EventImage(host, { onRoi: sendRoi }),
  counts: (host, title, changed) => new CountLines(host, { title, changed }),
  readout: (host) => new Readout(host, { spoken: get('spoken') }),
  power: (host, title, changed) => new PowerPlot(host, { title, changed }),
  cores: (host) => new CoreGauges(host),
  map: (host) => new SpikeMap(host, { onWatch: (core) => send({ do: 'watch', core }) }),
};
const layout = new Layout(get('panels-place'), {
  make: (name, host, title) => makers[name](host, title, () => touch(layout.panels[name])),
  onChange: () => {
    arrange.write();
    request();
  },
});
const controls = new Controls({ send });
const settings = new Settings({
  send,
  onRoi: sendRoi,
  onLook: (wanted) => {
    look = wanted;
    takeFacts(measured.facts);
  },
});
const status = new StatusLine(get('status'));
const exports = new Exports({
  onPicture: () => download(measured.paint(), `spikeport-${measured.frame?.t_us ?? 0}us.png`),
});
const fixed = [controls, settings, status].map((one) => Object.assign(one, { isShown: true, onScreen: true }));
const drawn = [...Object.values(layout.panels), ...fixed];
const arrange = new Arrange(layout);

function touch(panel) {
  panel.dirty = true;
  request();
}

function takeFacts(facts) {
  if (!facts) return;
  measured.facts = facts;
  const mine = { ...facts, settings: { ...facts.settings, ...look } };
  layout.setFacts(mine);
  for (const one of [...drawn, exports]) one.setFacts?.(mine);
  get('program').textContent = facts.program;
  get('program').title = `${facts.program} for ${facts.chip}, spikeport ${facts.version}`;
  const device = get('device');
  const isVirtual = facts.device.startsWith('virtual');
  device.hidden = false;
  device.textContent = isVirtual ? `virtual board ${facts.device.replace(/^virtual:?/, '')}` : facts.device;
  device.className = `badge ${isVirtual ? 'virtual' : facts.power_source ?? ''}`;
  device.title = `Device: ${facts.device}; chip: ${facts.chip}`;
  document.title = `${facts.program} · spikeport view`;
  request();
}

function takeState(state, sentence) {
  body.dataset.state = state;
  get('state').lastChild.textContent = sentence;
  if (state !== 'live') waiting.length = 0;
  writeState();
}

/** While live, the state says what the show does. */
function writeState() {
  if (body.dataset.state !== 'live') return;
  const { playing, ended, problem, behind_ms: behind } = measured.frame?.position ?? {};
  // In whole seconds: screen readers say what changes here.
  const late = playing && behind > 500 ? `, ${Math.round(behind / 1000)} s behind` : '';
  const rest = ended ? 'Ended' : playing === false ? 'Paused' : `Live${late}`;
  const text = !problem ? rest : rest === 'Paused' ? 'Stopped' : `${rest}, with a problem`;
  get('state').title = problem ?? '';
  const place = get('state').lastChild;
  if (place.textContent !== text) place.textContent = text;
}

function takeFrame(frame) {
  waiting.push(frame);
  request();
}

function request() {
  if (!requested) requested = requestAnimationFrame(draw);
}

/** Draw what changed; each panel at its own pace, so that the image may be fast and the text calm. */
function draw(now) {
  requested = 0;
  const started = performance.now();
  const frames = waiting.splice(0);
  for (const frame of frames) {
    for (const one of [...drawn, exports]) guard(() => one.frame(frame));
  }
  let soonest = Infinity;
  for (const panel of drawn) {
    if (!panel.dirty || !panel.isShown || !panel.onScreen) continue;
    const wait = (panel.drawnAt ?? -Infinity) + panel.every - now;
    if (wait > 4) {
      soonest = Math.min(soonest, wait);
      continue;
    }
    panel.dirty = false;
    panel.drawnAt = now;
    guard(() => panel.draw(now));
  }
  for (const frame of frames) markShown(frame, now);
  if (frames.length) measured.draw_ms.push(performance.now() - started);
  if (Number.isFinite(soonest)) {
    clearTimeout(timer);
    timer = setTimeout(request, soonest);
  }
}

/** Draw all that is seen at once. */
function redraw() {
  const now = performance.now();
  for (const panel of drawn) if (panel.isShown && panel.onScreen) guard(() => panel.draw(now));
}

/** One panel's mistake must not stop the others, nor the credit. */
function guard(act) {
  try {
    act();
  } catch (problem) {
    console.error(problem);
  }
}

/** Set attributes of the body; those that stay are left alone. */
function mark(values) {
  for (const [name, value] of Object.entries(values)) {
    if (body.dataset[name] !== String(value)) body.dataset[name] = value;
  }
}

function markShown(frame, now) {
  const { totals, position } = frame;
  const latency = frame.span_us > 0 ? Date.now() - frame.data_ms : null;
  measured.n_shown += 1;
  measured.frame = frame;
  if (latency !== null) measured.latencies.push(latency);
  status.shown(now, latency);
  const latest = frame.windows[frame.windows.length - 1];
  if (latest) mark({ class: latest.label ?? '', winner: latest.winner ?? '' });
  else if (frame.reset) mark({ class: '', winner: '' });
  mark({
    final: position.final ?? '', events: totals.events, dropped: totals.dropped, late: totals.late,
    outputSpikes: totals.output_spikes, synops: totals.synops, windows: totals.windows, tUs: position.t_us,
    playing: position.playing, ended: position.ended, frame: frame.frame,
  });
  get('recording').hidden = !position.recording;
  if (position.problem && position.problem !== measured.problem) notify(position.problem);
  measured.problem = position.problem;
  writeState();
  wire.shown(frame.frame);
}

const wire = new Wire({ state: takeState, facts: takeFacts, frame: takeFrame, problem: notify });
watchTheme(() => {
  for (const one of drawn) {
    one.setTheme?.();
    touch(one);
  }
});
get('theme').addEventListener('click', toggleTheme);
wire.connect();
