// The playback bar and the keys. What they show is always what the server says, never what was asked for.

import { clock } from './numbers.js';

const ONCE = [' ', 'r', '?'];
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4, null];

const get = (id) => document.getElementById(id);

/** Returns the next speed up or down; null, as fast as it can, is the highest. */
export function nextSpeed(speed, direction) {
  if (speed === null) return direction > 0 ? null : SPEEDS[SPEEDS.length - 2];
  if (direction > 0) return SPEEDS.find((one) => one === null || one > speed);
  return SPEEDS.filter((one) => one !== null && one < speed).pop() ?? SPEEDS[0];
}

export class Controls {
  /** `send(command)` returns a promise; a refusal is told elsewhere. */
  constructor({ send }) {
    this.nWaiting = 0;
    this.send = async (command) => {
      this.nWaiting += 1;
      try {
        return await send(command);
      } finally {
        this.nWaiting -= 1;
      }
    };
    this.every = 50;
    this.isSeeking = false;
    for (const id of ['play', 'step', 'record', 'seek', 'speed', 'reel', 'time', 'duration']) this[id] = get(id);
    this.speed.replaceChildren(...SPEEDS.map((one) => new Option(one === null ? 'max' : `${one}×`, String(one))));
    this.play.addEventListener('click', () => this.togglePlay());
    this.step.addEventListener('click', () => this.send({ do: 'step', n: 1 }));
    this.record.addEventListener('click', () => this.toggleRecord());
    this.speed.addEventListener('change', () => this.setSpeed(JSON.parse(this.speed.value)));
    this.reel.addEventListener('change', () => this.send({ do: 'open', index: Number(this.reel.value) }));
    this.seek.addEventListener('input', () => {
      this.isSeeking = true;
      this.writeTime(Number(this.seek.value));
    });
    this.seek.addEventListener('change', () => this.seekTo(Number(this.seek.value)));
    this.seek.addEventListener('blur', () => {
      this.isSeeking = false;
    });
    document.addEventListener('keydown', (event) => this.key(event));
    get('help-open').addEventListener('click', () => get('help').showModal());
  }

  setFacts(facts) {
    this.facts = facts;
    const names = facts.reels;
    if (names.join('\n') !== this.shownReels) {
      this.shownReels = names.join('\n');
      this.reel.replaceChildren(...names.map((name, i) => new Option(name, String(i))));
      this.reel.parentElement.hidden = names.length < 1;
    }
    this.record.hidden = facts.can_record === false;
  }

  togglePlay() {
    return this.send({ do: this.position?.playing ? 'pause' : 'play' });
  }

  toggleRecord() {
    if (this.record.hidden) return;
    this.send({ do: 'record', on: !this.position?.recording });
  }

  setSpeed(value) {
    this.send({ do: 'speed', value });
  }

  async seekTo(us) {
    if (!this.canSeek()) {
      // Where nothing can be gone back to, the start can still be begun at anew.
      if (us <= 0 && this.position?.duration_us) await this.send({ do: 'open', index: this.position.reel });
      return;
    }
    const last = this.position.duration_us;
    await this.send({ do: 'seek', t_us: Math.round(Math.max(0, Math.min(last, us))) });
    this.isSeeking = false;
  }

  canSeek() {
    return Boolean(this.facts?.can_seek && this.position?.duration_us);
  }

  /** Returns why the position cannot be chosen; '' where it can. */
  whyFixed() {
    if (this.canSeek() || !this.facts) return '';
    if (!this.position?.duration_us) return 'What comes live cannot be gone back to';
    return 'This device has no state to go back to. Home begins the recording anew';
  }

  frame({ position }) {
    this.position = position;
    this.dirty = true;
  }

  draw() {
    const { position } = this;
    if (!position) return;
    const { duration_us: duration, t_us: now, speed, reel, recording } = position;
    this.seek.disabled = !this.canSeek();
    this.seek.title = this.whyFixed();
    this.seek.parentElement.title = this.seek.title;
    this.seek.parentElement.classList.toggle('endless', !duration);
    if (duration) {
      if (this.seek.max !== String(duration)) this.seek.max = String(duration);
      const text = `/ ${clock(duration)}`;
      if (this.duration.textContent !== text) this.duration.textContent = text;
    } else if (this.duration.textContent !== 'live') {
      this.duration.textContent = 'live';
    }
    if (!this.isSeeking) {
      this.seek.value = String(now);
      this.writeTime(now);
    }
    this.writeSpeed(speed);
    if (document.activeElement !== this.reel) this.reel.value = String(reel);
    this.record.setAttribute('aria-pressed', String(Boolean(recording)));
  }

  writeTime(us) {
    const text = clock(us);
    if (this.time.textContent !== text) {
      this.time.textContent = text;
      this.seek.setAttribute('aria-valuetext', text);
    }
  }

  /** A speed that is none of ours, set from Python, gets an entry of its own. */
  writeSpeed(speed) {
    const value = String(speed);
    if (document.activeElement === this.speed || this.speed.value === value) return;
    if (![...this.speed.options].some((option) => option.value === value)) {
      this.speed.add(new Option(`${speed}×`, value), 0);
    }
    this.speed.value = value;
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const { target, key } = event;
    const isTyping = target.closest('input:not([type=range]), select, textarea, dialog');
    if (isTyping || (key === ' ' && target.closest('button, a'))) return;
    const act = this.actOf(event);
    if (!act) return;
    event.preventDefault();
    // A key that is held asks faster than a server answers; one that switches is meant once.
    if (event.repeat && (this.nWaiting || ONCE.includes(key))) return;
    act();
  }

  actOf({ key, shiftKey, target }) {
    const interval = (this.facts?.settings.interval_ms ?? 100) * 1000 * (shiftKey ? 10 : 1);
    const now = this.position?.t_us ?? 0;
    const speed = this.position?.speed ?? null;
    const isMenu = target.closest('[popover]');
    const acts = {
      ' ': () => this.togglePlay(),
      '.': () => this.send({ do: 'step', n: 1 }),
      r: () => this.toggleRecord(),
      '?': () => get('help').showModal(),
      Home: () => this.seekTo(0),
      ArrowLeft: () => this.seekTo(now - interval),
      ArrowRight: () => this.seekTo(now + interval),
      ArrowUp: () => this.setSpeed(nextSpeed(speed, 1)),
      ArrowDown: () => this.setSpeed(nextSpeed(speed, -1)),
    };
    const isScroll = key.startsWith('Arrow') && target.closest('.scroll');
    return isMenu || isScroll ? undefined : acts[key];
  }
}
