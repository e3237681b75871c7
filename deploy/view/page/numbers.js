// Numbers as a person reads them. What is null is not known, and says so.

const PREFIXES = ['p', 'n', 'µ', 'm', '', 'k', 'M', 'G', 'T'];
const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

export const NOT_TOLD = 'not told';

/** Returns three digits with an SI prefix and the unit: 12300 and "/s" give "12.3 k/s". */
export function si(value, unit = '') {
  if (value === null || value === undefined || Number.isNaN(value)) return NOT_TOLD;
  if (value === 0 || Math.abs(value) < 1e-12) return unit ? `0 ${unit}` : '0';
  let step = Math.floor(Math.log10(Math.abs(value)) / 3);
  let scaled = value / 1000 ** step;
  if (Math.abs(scaled) >= 999.5) {
    step += 1;
    scaled /= 1000;
  }
  step = Math.max(-4, Math.min(4, step));
  scaled = value / 1000 ** step;
  const size = Math.abs(scaled);
  const digits = step === 0 && Number.isInteger(value) ? 0 : size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  const tail = PREFIXES[step + 4] + unit;
  return tail ? `${scaled.toFixed(digits)} ${tail}` : scaled.toFixed(digits);
}

/** Returns a whole number with its thousands set apart. */
export function count(value) {
  return value === null || value === undefined ? NOT_TOLD : whole.format(value);
}

/** Returns microseconds as "1.25 s" or "2:05.3". */
export function clock(us, digits = 2) {
  if (us === null || us === undefined) return NOT_TOLD;
  const seconds = us / 1e6;
  if (seconds < 60) return `${seconds.toFixed(digits)} s`;
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - minutes * 60).toFixed(1).padStart(4, '0')}`;
}

/** Returns milliseconds with one digit where they are few. */
export function millis(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  return `${value < 9.95 ? value.toFixed(1) : whole.format(value)} ms`;
}

/** Returns the value below which a share of the numbers lies; NaN of none. */
export function quantile(numbers, share) {
  const sorted = Float64Array.from(numbers).sort();
  if (!sorted.length) return NaN;
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

/** The newest numbers of a stream, in memory of a fixed size. */
export class Recent {
  constructor(capacity) {
    this.kept = new Float64Array(capacity);
    this.seen = 0;
  }

  push(number) {
    this.kept[this.seen % this.kept.length] = number;
    this.seen += 1;
  }

  /** Returns the kept numbers, oldest first. */
  values() {
    const size = this.kept.length;
    if (this.seen <= size) return this.kept.slice(0, this.seen);
    const at = this.seen % size;
    const out = new Float64Array(size);
    out.set(this.kept.subarray(at), 0);
    out.set(this.kept.subarray(0, at), size - at);
    return out;
  }
}

/** A mean rate over the last stretch of the reel's own time: newer parts weigh more, memory is two numbers. */
export class Rate {
  constructor(memoryUs = 400_000) {
    this.memoryUs = memoryUs;
    this.clear();
  }

  clear() {
    this.sum = 0;
    this.span = 0;
    this.isTold = true;
  }

  push(amount, spanUs) {
    this.isTold = amount !== null && amount !== undefined;
    if (!(spanUs > 0)) return;
    const keep = Math.exp(-spanUs / this.memoryUs);
    this.sum = this.sum * keep + (this.isTold ? amount : 0);
    this.span = this.span * keep + spanUs;
  }

  /** Returns the rate per second, null where it is not told. */
  get perSecond() {
    if (!this.isTold) return null;
    return this.span > 0 ? (this.sum * 1e6) / this.span : 0;
  }
}
