// A picture of the page as it is seen: canvases, boxes, and text are painted anew on one canvas.

import { shorten } from './canvas.js';

const LEFT_OUT = '.unseen, .skip, .close, .tools, #transport, [popover], dialog, [hidden]';

/** Returns a canvas with what these elements show, each at its place within all of them. */
export function paint(elements, scale) {
  const boxes = elements.map((element) => element.getBoundingClientRect());
  const left = Math.min(...boxes.map((box) => box.left));
  const top = Math.min(...boxes.map((box) => box.top));
  const width = Math.max(...boxes.map((box) => box.right)) - left;
  const height = Math.max(...boxes.map((box) => box.bottom)) - top;
  const canvas = document.createElement('canvas');
  canvas.width = Math.ceil(width * scale);
  canvas.height = Math.ceil(height * scale);
  const ctx = canvas.getContext('2d');
  ctx.scale(scale, scale);
  ctx.fillStyle = getComputedStyle(document.body).backgroundColor;
  ctx.fillRect(0, 0, width, height);
  ctx.translate(-left, -top);
  for (const element of elements) paintElement(ctx, element);
  return canvas;
}

function paintElement(ctx, element, limit = Infinity) {
  if (element.matches(LEFT_OUT)) return;
  const style = getComputedStyle(element);
  const box = element.getBoundingClientRect();
  if (style.display === 'none' || style.visibility === 'hidden' || !box.width || !box.height) return;
  ctx.save();
  ctx.globalAlpha *= Number(style.opacity);
  paintBox(ctx, box, style);
  if (element.matches('canvas, img')) paintPixels(ctx, element, box);
  else if (element.matches('select')) paintText(ctx, element.selectedOptions[0]?.text ?? '', { box, style, inset: 8 });
  else paintChildren(ctx, element, { style, limit });
  ctx.restore();
}

function paintChildren(ctx, element, { style, limit: outer }) {
  let limit = outer;
  if (style.overflowY !== 'visible') {
    const box = element.getBoundingClientRect();
    if (style.textOverflow === 'ellipsis') limit = Math.min(limit, box.right);
    ctx.beginPath();
    ctx.rect(box.left, box.top, box.width, box.height);
    ctx.clip();
  }
  for (const node of element.childNodes) {
    if (node.nodeType === Node.ELEMENT_NODE) {
      if (!(node instanceof SVGElement)) paintElement(ctx, node, limit);
    } else if (node.nodeType === Node.TEXT_NODE && node.data.trim()) {
      const range = document.createRange();
      range.selectNodeContents(node);
      const isLine = style.whiteSpace === 'nowrap' || range.getClientRects().length === 1;
      const text = node.data.replace(/\s+/g, ' ');
      if (isLine) paintText(ctx, text, { box: range.getBoundingClientRect(), style, limit });
      else paintLines(ctx, node, style);
    }
  }
}

function paintBox(ctx, box, style) {
  ctx.beginPath();
  ctx.roundRect(box.left, box.top, box.width, box.height, parseFloat(style.borderTopLeftRadius) || 0);
  ctx.fillStyle = style.backgroundColor;
  ctx.fill();
  const edge = parseFloat(style.borderTopWidth);
  if (!edge) return;
  ctx.lineWidth = edge;
  ctx.strokeStyle = style.borderTopColor;
  if (parseFloat(style.borderLeftWidth)) {
    ctx.stroke();
    return;
  }
  ctx.beginPath();
  ctx.moveTo(box.left, box.top + edge / 2);
  ctx.lineTo(box.right, box.top + edge / 2);
  ctx.stroke();
}

function paintPixels(ctx, element, box) {
  const isReady = element instanceof HTMLCanvasElement ? element.width && element.height : element.naturalWidth;
  if (!isReady) return;
  ctx.imageSmoothingEnabled = !element.matches('.pixels');
  ctx.drawImage(element, box.left, box.top, box.width, box.height);
}

function paintText(ctx, text, { box, style, limit = Infinity, inset = 0 }) {
  ctx.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  ctx.fillStyle = style.color;
  ctx.textBaseline = 'middle';
  ctx.textAlign = 'left';
  const shown = style.textTransform === 'uppercase' ? text.toUpperCase() : text;
  const width = Number.isFinite(limit) ? limit - box.left : box.width + 2;
  const fits = shown.trim().length < 2 ? shown : shorten(ctx, shown, Math.max(width, 8));
  ctx.fillText(fits, box.left + inset, box.top + box.height / 2 + 0.5);
}

/** Text of several lines: words are put where the browser has put them. */
function paintLines(ctx, node, style) {
  for (const { 0: word, index } of node.data.matchAll(/\S+/g)) {
    const range = document.createRange();
    range.setStart(node, index);
    range.setEnd(node, index + word.length);
    paintText(ctx, word, { box: range.getBoundingClientRect(), style });
  }
}

/** Save a canvas as a file. */
export function download(canvas, name) {
  canvas.toBlob((blob) => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
}
