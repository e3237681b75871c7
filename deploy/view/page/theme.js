// Dark and light. The style sheets follow `color-scheme`; a canvas needs its colors as values, which live here.

const DARK = {
  ink: '#e7ebf1', soft: '#9ba7b6', line: '#2c3541', ground: '#0b0e13', accent: '#6fb3f0',
  on: [255, 190, 92], off: [86, 164, 255], both: [236, 238, 240], groundRgb: [11, 14, 19],
  series: ['#5aa9f8', '#ff9f43', '#4cd08a', '#f76d82', '#b794f6', '#e0c341', '#3fd0d6', '#f58ad2', '#a5d15a', '#c9a27e',
    '#8fa3bf', '#eceff4'],
};
const LIGHT = {
  ink: '#1c2430', soft: '#566171', line: '#d9dee5', ground: '#ffffff', accent: '#2370b8',
  on: [190, 70, 0], off: [20, 92, 190], both: [44, 30, 48], groundRgb: [255, 255, 255],
  series: ['#1f6fc4', '#b65400', '#13804a', '#cc2f4d', '#7a4bcf', '#8a7200', '#007f88', '#b8398f', '#5b7d00', '#7d5a38',
    '#55657d', '#20262f'],
};
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3]];
const KEY = 'spikeport.theme';
const query = matchMedia('(prefers-color-scheme: dark)');

let chosen = 'auto';
try {
  chosen = localStorage.getItem(KEY) ?? 'auto';
} catch {
  // A browser may forbid storage; the choice then lasts as long as the page.
}

/** Returns the colors of now. */
export function colors() {
  return isDark() ? DARK : LIGHT;
}

export function isDark() {
  return chosen === 'auto' ? query.matches : chosen === 'dark';
}

/** Returns the color of a line, and the dash that tells it from an earlier one of the same color. */
export function seriesStyle(index) {
  const { series } = colors();
  return { color: series[index % series.length], dash: DASHES[Math.floor(index / series.length) % DASHES.length] };
}

function apply() {
  document.documentElement.dataset.theme = isDark() ? 'dark' : 'light';
}

/** Change between dark and light; what the system wants is taken up again when it is the same. */
export function toggleTheme() {
  const wanted = isDark() ? 'light' : 'dark';
  chosen = (wanted === 'dark') === query.matches ? 'auto' : wanted;
  try {
    if (chosen === 'auto') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, chosen);
  } catch {
    // As above.
  }
  apply();
}

/** Apply the theme, and call back on each change of it. */
export function watchTheme(changed) {
  apply();
  query.addEventListener('change', apply);
  new MutationObserver(changed).observe(document.documentElement, { attributeFilter: ['data-theme'] });
}

// OKLab to linear light: Bjorn Ottosson, "A perceptual color space for image processing", 2020.
function oklab(lightness, a, b) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const linear = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
  return linear.map((x) => {
    const part = Math.max(0, Math.min(1, x));
    return Math.round(255 * (part <= 0.0031308 ? 12.92 * part : 1.055 * part ** (1 / 2.4) - 0.055));
  });
}

/** Returns 256 colors of even steps of lightness, from the ground to a strong one, by blue, magenta, and orange. */
export function ramp() {
  const dark = isDark();
  const out = new Uint32Array(256);
  for (let i = 0; i < 256; i += 1) {
    const x = i / 255;
    const lightness = dark ? 0.16 + 0.78 * x : 1 - 0.75 * x;
    const hue = ((dark ? 265 + 190 * x : 95 - 190 * x) * Math.PI) / 180;
    const chroma = 0.17 * Math.sin(Math.PI * (dark ? 0.04 + 0.86 * x : 0.9 * x)) ** 0.8;
    const [r, g, b] = oklab(lightness, chroma * Math.cos(hue), chroma * Math.sin(hue));
    out[i] = 0xff000000 | (b << 16) | (g << 8) | r;
  }
  return out;
}
