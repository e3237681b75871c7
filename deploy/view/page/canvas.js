// Canvases: their sizes on the screen, and text that has to fit.

/** Pixels of a canvas for one of CSS, where they are not those of the screen: a picture has more. */
export const sharpness = { scale: null };

// Asking an element for its size makes the browser lay out the page at once; being told costs nothing.
const sizes = new WeakMap();
const observer = new ResizeObserver((entries) => {
  for (const { target, contentRect: { width, height } } of entries) {
    const known = sizes.get(target);
    Object.assign(known, { width, height });
    known.changed();
  }
});

/** Have the size of a canvas known to `fitCanvas`; `changed()` is called when it is another. */
export function watchSize(canvas, changed) {
  sizes.set(canvas, { width: 0, height: 0, changed });
  observer.observe(canvas);
}

/** Set a canvas to the pixels of its place on the screen; returns its size in CSS pixels. */
export function fitCanvas(canvas) {
  const { width, height } = sizes.get(canvas);
  const scale = sharpness.scale ?? window.devicePixelRatio ?? 1;
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
  }
  canvas.getContext('2d').setTransform(scale, 0, 0, scale, 0, 0);
  return { width, height };
}

/** Returns the text, cut with an ellipsis where it is wider than `width`. */
export function shorten(ctx, text, width) {
  if (ctx.measureText(text).width <= width) return text;
  let n = text.length - 1;
  while (n > 1 && ctx.measureText(`${text.slice(0, n)}…`).width > width) n -= 1;
  return `${text.slice(0, n)}…`;
}
