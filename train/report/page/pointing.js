// Mouse, touch and keyboard: pointing at the curves, zooming and moving the view.

// ---- pointing, zooming, keys -------------------------------------------------------------------

function drawAll() {
  for (const chart of [...panels, ...scoreCharts]) chart.draw();
}

function point(cursor) {
  view.cursor = cursor;
  for (const panel of panels) panel.drawCursor();
}

function reset() {
  view.x = null;
  for (const panel of panels) panel.yRange = null;
  drawAll();
}

// [lo, hi] with the distances to `at` multiplied; on a logarithmic scale those of the logarithms.
function stretch(scale, at, factor, pixelLo, pixelHi) {
  const pixel = scale.at(at);
  return [
    scale.value(pixel + (pixelLo - pixel) * factor), scale.value(pixel + (pixelHi - pixel) * factor)
  ];
}

function setX(range) {
  const all = wholeX(), lo = Math.max(all[0], range[0]), hi = Math.min(all[1], range[1]);
  if (!(hi - lo > (all[1] - all[0]) * 1e-6)) return;
  view.x = lo <= all[0] && hi >= all[1] ? null : [lo, hi];
}

// Zooms x in every panel and y in this one around a place; out to the whole and no further.
function zoom(panel, px, py, factor) {
  const {left, right, top, bottom} = panel.margin;
  setX(stretch(panel.x, panel.x.value(px), factor, left, panel.width - right));
  if (view.x === null) return reset();
  panel.yRange = stretch(panel.y, panel.y.value(py), factor, panel.height - bottom, top);
  drawAll();
}

// Zooms x alone around its middle, or around the cursor; y follows.
function zoomTokens(factor) {
  const panel = panels[0], {left, right} = panel.margin, cursor = view.cursor;
  const middle = (left + panel.width - right) / 2;
  const px = cursor ? panel.x.at(cursor.run.points.tokens[cursor.i]) : middle;
  setX(stretch(panel.x, panel.x.value(px), factor, left, panel.width - right));
  for (const other of panels) other.yRange = null;
  drawAll();
}

// Moves the window of tokens by pixels, as far as there are tokens.
function pan(panel, pixels) {
  if (view.x === null) return;
  const all = wholeX(), scale = panel.x, from = scale.at(view.x[0]), to = scale.at(view.x[1]);
  const room = Math.max(scale.at(all[0]) - from, Math.min(scale.at(all[1]) - to, pixels));
  view.x = [scale.value(from + room), scale.value(to + room)];
  drawAll();
}

function zoomToRect(panel, a, b) {
  const [x0, x1] = [a.x, b.x].sort((p, q) => p - q), [y0, y1] = [a.y, b.y].sort((p, q) => p - q);
  if (x1 - x0 > 10) setX([panel.x.value(x0), panel.x.value(x1)]);
  if (y1 - y0 > 10)
    panel.yRange = [panel.y.value(y1), panel.y.value(y0)];
  else
    for (const other of panels) other.yRange = null;  // a stretch of tokens: y follows
  drawAll();
}

function pixelOf(panel, event) {
  const box = panel.svg.getBoundingClientRect(), scale = panel.width / box.width;
  const clamp = (value, lo, hi) => Math.max(lo, Math.min(hi, value));
  const {left, right, top, bottom} = panel.margin;
  return {
    x: clamp((event.clientX - box.left) * scale, left, panel.width - right),
    y: clamp((event.clientY - box.top) * scale, top, panel.height - bottom),
  };
}

function listen(panel) {
  const svg = panel.svg;
  let start = null;
  svg.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0) {
      start = pixelOf(panel, event);
      svg.setPointerCapture(event.pointerId);
    }
  });
  svg.addEventListener("pointermove", (event) => {
    const at = pixelOf(panel, event);
    if (!start) return point(panel.nearest(at.x, at.y));
    point(null);
    panel.over.replaceChildren(make("rect", {
      class: "chosen",
      x: Math.min(start.x, at.x),
      y: Math.min(start.y, at.y),
      width: Math.abs(start.x - at.x),
      height: Math.abs(start.y - at.y)
    }));
  });
  svg.addEventListener("pointerup", (event) => {
    const from = start, to = pixelOf(panel, event);
    start = null;
    if (from && Math.max(Math.abs(to.x - from.x), Math.abs(to.y - from.y)) > 10)
      zoomToRect(panel, from, to);
    else
      point(panel.nearest(to.x, to.y));
  });
  svg.addEventListener("pointercancel", () => {
    start = null;
    point(null);
  });
  svg.addEventListener("pointerleave", (event) => {
    if (!start && event.pointerType === "mouse") point(null);
  });
  svg.addEventListener("dblclick", reset);
  svg.addEventListener("wheel", (event) => {
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    const isOut = event.deltaY > 0;
    if (view.x !== null && (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY))) {
      event.preventDefault();
      pan(panel, sideways);
      return;
    }
    if (event.deltaY === 0 || (isOut && view.x === null))
      return;  // nothing to zoom: the page scrolls
    event.preventDefault();
    const at = pixelOf(panel, event);
    zoom(panel, at.x, at.y, isOut ? 1.25 : 0.8);
    point(panel.nearest(at.x, at.y));
  }, {passive: false});
  svg.addEventListener("keydown", (event) => onKey(panel, event));
  svg.addEventListener("blur", () => point(null));
}

// The first cursor of a keyboard: the end of the first run.
function firstCursor(panel) {
  for (const run of shown()) {
    const i = run.points[panel.line].findLastIndex(isNumber);
    if (i >= 0) return {run, i, isDot: false, panel};
  }
  return null;
}

function stepAlong(panel, cursor, by) {
  const values = cursor.run.points[panel.line], end = values.length;
  let i = cursor.i, left = Math.abs(by);
  for (let k = i + Math.sign(by); k >= 0 && k < end && left > 0; k += Math.sign(by))
    if (isNumber(values[k])) [i, left] = [k, left - 1];
  return {...cursor, i, isDot: false, panel};
}

function changeRun(panel, cursor, by) {
  const list = shown().filter((run) => run.points[panel.line].some(isNumber));
  const run = list[(list.indexOf(cursor.run) + by + list.length) % list.length] ?? cursor.run;
  const tokens = cursor.run.points.tokens[cursor.i], all = run.points.tokens;
  let i = -1;
  for (let k = 0; k < all.length; k++)
    if (isNumber(run.points[panel.line][k]) &&
        (i < 0 || Math.abs(all[k] - tokens) < Math.abs(all[i] - tokens)))
      i = k;
  return {run, i, isDot: false, panel};
}

// Brings a cursor that was moved out of a zoomed view into its middle.
function follow(panel, cursor) {
  const tokens = cursor.run.points.tokens[cursor.i], {lo, hi} = panel.x;
  if (tokens < lo || tokens > hi)
    pan(panel, panel.x.at(tokens) - (panel.x.at(lo) + panel.x.at(hi)) / 2);
}

function onKey(panel, event) {
  const cursor = view.cursor ?? firstCursor(panel);
  if (event.ctrlKey || event.metaKey || event.altKey || !cursor) return;
  const far = event.shiftKey ? 10 : 1;
  const moves = {
    ArrowLeft: () => stepAlong(panel, cursor, -far),
    ArrowRight: () => stepAlong(panel, cursor, far),
    Home: () => stepAlong(panel, cursor, -1e9),
    End: () => stepAlong(panel, cursor, 1e9),
    ArrowUp: () => changeRun(panel, cursor, -1),
    ArrowDown: () => changeRun(panel, cursor, 1),
  };
  if (moves[event.key]) {
    point(view.cursor ? moves[event.key]() : cursor);
    follow(panel, view.cursor);
    announce(view.cursor);
  } else if (["+", "=", "-"].includes(event.key)) {
    const [x, y] = panel.place(cursor.run, cursor.i, cursor.isDot);
    zoom(panel, x, y, event.key === "-" ? 1.25 : 0.8);
  } else if (event.key === "0" || event.key === "Escape") {
    reset();
  } else {
    return;
  }
  event.preventDefault();
}

// For screen readers.
function announce(cursor) {
  byId("announcement").textContent = `${cursor.run.label}: ${
      factsOf(cursor).map((fact) => `${fact.name} ${fact.text}`).join(", ")}`;
}
