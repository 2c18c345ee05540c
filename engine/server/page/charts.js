// Drawing on canvases: sharp on every screen, in the colours of the style sheet.

export const cssColour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * A cleared canvas of the size it is shown at, or the one given, in CSS pixels; null while it is
 * not shown.
 */
export function prepare(canvas, width = canvas.clientWidth, height = canvas.clientHeight) {
  if (width === 0 || height === 0) return null;
  const scale = devicePixelRatio || 1;
  const pixels = {width: Math.round(width * scale), height: Math.round(height * scale)};
  if (canvas.width !== pixels.width) canvas.width = pixels.width;
  if (canvas.height !== pixels.height) canvas.height = pixels.height;
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return {context, width, height};
}

/** Runs of neighbouring values that are there, as lists of [index, value]. */
function runsOf(values) {
  const runs = [[]];
  values.forEach((value, index) => {
    if (value !== null) runs.at(-1).push([index, value]);
    else if (runs.at(-1).length > 0) runs.push([]);
  });
  return runs.filter((run) => run.length > 0);
}

/**
 * Values from the left, the newest at the right edge of `length` places; null is a gap. The scale
 * begins at 0 and ends at `max`, or at the largest value, but not below `least`.
 */
export function drawSparkline(canvas, values, {length, colour, max = null, least = 1}) {
  const area = prepare(canvas);
  if (!area) return;
  const {context, width, height} = area;
  const top = max ?? Math.max(least, ...values.filter((value) => value !== null));
  const x = (index) => (length - values.length + index) / (length - 1) * (width - 2) + 1;
  const y = (value) => height - 1.5 - Math.min(1, value / top) * (height - 3);
  context.strokeStyle = cssColour('--line');
  context.beginPath();
  context.moveTo(0, height - 0.5);
  context.lineTo(width, height - 0.5);
  context.stroke();
  context.strokeStyle = context.fillStyle = cssColour(colour);
  context.lineWidth = 1.5;
  context.lineJoin = 'round';
  for (const run of runsOf(values)) {
    const points = new Path2D();
    run.forEach(([index, value]) => points.lineTo(x(index), y(value)));
    context.stroke(points);
    points.lineTo(x(run.at(-1)[0]), height);
    points.lineTo(x(run[0][0]), height);
    context.globalAlpha = 0.14;
    context.fill(points);
    context.globalAlpha = 1;
  }
}
