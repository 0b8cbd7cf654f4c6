"use strict";
// The report's page: numbers as text, marks and scales here; then chart.js, pointing.js, page.js,
// which embed.cmake puts one after the other. Text from runs goes in as text nodes, never as HTML.
// Names of the data's members are those of train/report/report_page.c.

const report = JSON.parse(document.getElementById("data").textContent);
const runs = report.runs;
const baseline = report.baseline === null ? null : runs[report.baseline];

// ---- elements and numbers ----------------------------------------------------------------------

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const isSvg = [
    "svg", "g", "path", "line", "rect", "circle", "text", "title", "clipPath", "defs"
  ].includes(tag);
  const element = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) :
                          document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const isNumber = (value) => typeof value === "number";
const fixed = (value, digits) =>
    (isNumber(value) ? value.toFixed(digits).replace("-", "\u2212") : "\u2013");
const whole = (value) => (isNumber(value) ? value.toLocaleString("en-US") : "\u2013");
const percent = (share) => `${Number((100 * share).toPrecision(4))} %`;

function signed(value) {
  const text = fixed(value, 4);
  return isNumber(value) && !text.startsWith("\u2212") ? `+${text}` : text;
}

// 409600 -> "409.6 k"
function short(value) {
  if (!isNumber(value)) return "\u2013";
  for (const [unit, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]])
    if (value >= unit) return `${Number((value / unit).toPrecision(4))} ${letter}`;
  return String(value);
}

function clock(seconds) {
  if (!isNumber(seconds)) return "\u2013";
  const s = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

const rate = (value) =>
    (isNumber(value) && value !== 0 ? value.toExponential(2).replace("-", "\u2212") : "0");

// ---- lines and marks ---------------------------------------------------------------------------

const dashes = ["", "7 4", "2 3", "9 3 2 3", "12 5", "4 2 1 2"];

function colored(element, run) {
  element.classList.add("run");
  element.style.setProperty("--on-paper", run.color);
  element.style.setProperty("--on-screen", run.color_on_dark);
  return element;
}

// One of six shapes around (x, y), so that runs differ by more than colour.
function shapePath(kind, x, y, r) {
  const polygon = (points) => `M${
      points.map(([a, b]) => `${(x + a * r).toFixed(1)} ${(y + b * r).toFixed(1)}`).join("L")}Z`;
  switch (kind % 6) {
    case 0:
      return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${- 2 * r} 0Z`;
    case 1:
      return polygon([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]);
    case 2:
      return polygon([[0, -1.2], [1.1, 0.8], [-1.1, 0.8]]);
    case 3:
      return polygon([[0, -1.3], [1.1, 0], [0, 1.3], [-1.1, 0]]);
    case 4:
      return polygon([[0, 1.2], [1.1, -0.8], [-1.1, -0.8]]);
    default:
      return polygon([[0, -1.2], [1.15, -0.3], [0.7, 1], [-0.7, 1], [-1.15, -0.3]]);
  }
}

function sample(run) {
  const line =
      make("path", {d: "M1 7H39", class: "line", "stroke-dasharray": dashes[(run.dash - 1) % 6]});
  const mark = make("path", {d: shapePath(run.index, 20, 7, 4.5), class: "dot"});
  return colored(
      make(
          "svg",
          {class: "sample", viewBox: "0 0 40 14", width: 40, height: 14, "aria-hidden": "true"},
          line, mark),
      run);
}

// ---- scales ------------------------------------------------------------------------------------

function makeScale(lo, hi, from, to, isLog) {
  const f = isLog ? Math.log10 : (v) => v, inverse = isLog ? (v) => 10 ** v : (v) => v;
  const a = f(lo), b = f(hi);
  return {
    lo,
    hi,
    isLog,
    at: (value) => from + ((f(value) - a) / (b - a)) * (to - from),
    value: (pixel) => inverse(a + ((pixel - from) / (to - from)) * (b - a)),
    holds: (value) => isNumber(value) && (!isLog || value > 0),
  };
}

function ticksOf(scale, wanted) {
  const {lo, hi} = scale, found = [];
  if (scale.isLog && hi / lo > 4) {
    const ratio = hi / lo;
    const all = ratio <= 10 ? [1, 1.5, 2, 3, 4, 5, 7] :
        ratio <= 300        ? [1, 2, 5] :
        ratio <= 10 ** wanted ? [1, 3] :
                                [1];
    for (let e = Math.floor(Math.log10(lo)); e <= Math.log10(hi); e++)
      for (const m of all)
        if (m * 10 ** e >= lo && m * 10 ** e <= hi) found.push(Number(`${m}e${e}`));
    return found;
  }
  const raw = (hi - lo) / wanted, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * unit >= raw) * unit;
  for (let i = Math.ceil(lo / step - 1e-9); i * step <= hi + 1e-9 * step; i++)
    found.push(Number((i * step).toPrecision(12)));
  return found;
}

// As many digits as tell neighbouring ticks apart.
function tickText(value, ticks, isSmall) {
  if (isSmall)
    return value === 0 ? "0" : Number(value.toPrecision(6)).toExponential().replace("-", "\u2212");
  if (Math.abs(value) >= 1000) return short(value);
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : Math.abs(value) || 1;
  return fixed(value, Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9))));
}
