// The panels: what is shown of the runs, drawn as SVG again after each change.

// ---- what is shown -----------------------------------------------------------------------------

const view = {
  x: null,  // [lo, hi] in tokens; null: all
  hidden: new Set(),
  highlighted: null,  // the run pointed at in the list
  raw: true,
  dots: true,
  skipStart: report.skip_start,
  logX: report.log_x,
  logY: report.log_y,
  task: null,    // whose scores are drawn
  cursor: null,  // {run, i, isDot, panel}
};
const shown = () => runs.filter((run) => !view.hidden.has(run));

function wholeX() {
  let least = Infinity, most = 0;
  for (const run of runs)
    for (const tokens of run.points.tokens) {
      if (tokens > 0 && tokens < least) least = tokens;
      if (tokens > most) most = tokens;
    }
  if (view.logX && least < most) return [least, most];
  return [0, most || 1];
}
const isLogX = () => view.logX && wholeX()[0] > 0;

// The points of a run in a range of tokens, and one to either side.
function slice(run, lo, hi) {
  const tokens = run.points.tokens;
  const search = (value) => {
    let a = 0, b = tokens.length;
    while (a < b) {
      const m = (a + b) >> 1;
      if (tokens[m] < value)
        a = m + 1;
      else
        b = m;
    }
    return a;
  };
  return [Math.max(0, search(lo) - 1), Math.min(tokens.length, search(hi) + 2)];
}

const panels = [];

class Panel extends Chart {
  constructor(id, spec) {
    super(byId(id), {
      ...spec,
      label: "Left and right arrows step along a run, up and down change the run, plus and minus " +
          "zoom, 0 shows all. The table below has the numbers."
    });
    Object.assign(this, spec, {id, yRange: null});
    listen(this);
    panels.push(this);
  }

  get isLogY() {
    return this.canLog && view.logY;
  }

  series() {
    const names = [this.line];
    if (this.faint && view.raw) names.push(this.faint);
    if (this.dots && view.dots) names.push(this.dots);
    return names;
  }

  // The range of the visible values between two numbers of tokens, with a margin.
  autoRange(from, hi) {
    const isCut = view.skipStart && view.x === null && !this.fromZero && !this.isDotted;
    const lo = isCut ? from + 0.1 * (hi - from) : from;
    let least = Infinity, most = -Infinity;
    for (const run of shown())
      for (let [i, end] = slice(run, lo, hi); i < end; i++) {
        const tokens = run.points.tokens[i];
        if (tokens < lo || tokens > hi) continue;
        for (const name of this.series()) {
          const value = run.points[name][i];
          if (!isNumber(value) || (this.isLogY && value <= 0)) continue;
          least = Math.min(least, value);
          most = Math.max(most, value);
        }
      }
    for (const value of this.include(most - least)) {
      least = Math.min(least, value);
      most = Math.max(most, value);
    }
    if (!(least <= most)) return this.isLogY ? [1, 10] : [0, 1];
    if (this.isLogY)
      return least === most ? [least / 2, most * 2] :
                              [least * (least / most) ** 0.04, most * (most / least) ** 0.04];
    const margin = (most - least || Math.abs(most) || 1) * 0.05;
    return [this.fromZero && least >= 0 ? 0 : least - margin, most + margin];
  }

  draw() {
    const margin = this.margin, range = view.x ?? wholeX();
    this.measure(this.aspect, this.mostHeight);
    this.x = makeScale(range[0], range[1], margin.left, this.width - margin.right, isLogX());
    const y = this.yRange ?? this.autoRange(range[0], range[1]);
    this.y = makeScale(y[0], y[1], this.height - margin.bottom, margin.top, this.isLogY);
    this.layers(this.id, "tokens trained on");
    for (const value of this.rules) this.addRule(value, value === 0);
    if (this.faint && view.raw)
      for (const run of shown()) this.curves.append(this.faintCurve(run));
    for (const run of shown()) this.curves.append(this.curve(run));
    this.svg.classList.toggle("dimmed", view.highlighted !== null);
    this.drawCursor();
  }

  path(run, name) {
    const points = run.points, [first, end] = slice(run, this.x.lo, this.x.hi);
    let d = "", isOpen = false;
    for (let i = first; i < end; i++) {
      const value = points[name][i];
      if (!this.x.holds(points.tokens[i])) continue;
      if (!this.y.holds(value)) continue;  // a validation between two steps does not break the line
      d += `${isOpen ? "L" : "M"}${this.x.at(points.tokens[i]).toFixed(1)} ${
          this.y.at(value).toFixed(1)}`;
      isOpen = true;
    }
    return d;
  }

  // The steps' own losses lie below the curves of all runs.
  faintCurve(run) {
    const path = make("path", {class: "faint", d: this.path(run, this.faint)});
    path.classList.toggle("highlighted", view.highlighted === run);
    path.classList.toggle("dense", report.is_thinned);
    return colored(path, run);
  }

  curve(run) {
    const g = colored(make("g", {"data-run": run.index}), run);
    g.classList.toggle("highlighted", view.highlighted === run);
    g.append(make("path", {
      class: "line",
      d: this.path(run, this.line),
      "stroke-dasharray": dashes[(run.dash - 1) % 6]
    }));
    this.addMarks(g, run);
    return g;
  }

  // The validations of a run that are drawn, or the points of a panel that is always dotted: on
  // each validation set not closer than their marks are wide.
  dotsOf(run) {
    const points = run.points, found = [];
    if (!this.dots || !(view.dots || this.isDotted)) return found;
    const last = {true: -Infinity, false: -Infinity};  // pixel, by is_earlier_set
    for (let [i, end] = slice(run, this.x.lo, this.x.hi); i < end; i++) {
      if (!this.y.holds(points[this.dots][i]) || !this.x.holds(points.tokens[i])) continue;
      const x = this.x.at(points.tokens[i]), isEarlier = this.isEarlier(points, i);
      if (x - last[isEarlier] < 12) continue;
      found.push(i);
      last[isEarlier] = x;
    }
    return found;
  }

  isEarlier(points, i) {
    return !this.isDotted && points.is_earlier_set[i];
  }

  // Validations, resumes, and the end of a run that is not done.
  addMarks(g, run) {
    const points = run.points;
    for (const i of this.dotsOf(run)) {
      const [x, y] = this.place(run, i, true);
      const kind = this.isEarlier(points, i) ? "dot earlier" : "dot";
      g.append(make("path", {class: kind, d: shapePath(run.index, x, y, 4)}));
    }
    for (const step of run.resumed) {
      const i = points.step.findIndex((s, k) => s >= step && isNumber(points[this.line][k]));
      if (i < 0) continue;
      const [x, y] = this.place(run, i, false);
      const note = make("title", {}, `resumed at step ${step}`);
      g.append(make("path", {class: "resumed", d: `M${x} ${y - 7}V${y + 7}`}, note));
    }
    const last = points[this.line].findLastIndex(isNumber);
    if (run.state === "done" || last < 0 || points.tokens[last] > this.x.hi) return;
    const [x, y] = this.place(run, last, false), isRight = x > this.width - 180;
    g.append(make("circle", {class: "end", cx: x, cy: y, r: 5}));
    if (!this.faint) return;  // the text stands at the loss alone
    const at = {x: x + (isRight ? -9 : 9), y: y < 30 ? y + 18 : y - 9};
    g.append(make(
        "text", {class: "mark-text", ...at, "text-anchor": isRight ? "end" : "start"},
        `${run.state} at step ${whole(run.last_step)}`));
  }

  place(run, i, isDot) {
    const value = run.points[isDot ? this.dots : this.line][i];
    return [this.x.at(run.points.tokens[i]), this.y.at(value)];
  }

  // The drawn point nearest to a place in pixels; a validation counts as a little nearer.
  nearest(px, py) {
    let best = null, least = Infinity;
    const consider = (run, i, isDot) => {
      const tokens = run.points.tokens[i];
      if (tokens < this.x.lo || tokens > this.x.hi) return;
      const [x, y] = this.place(run, i, isDot);
      const distance = Math.hypot(x - px, y - py) - (isDot ? 3 : 0);
      if (distance < least) [least, best] = [distance, {run, i, isDot, panel: this}];
    };
    for (const run of shown()) {
      for (let [i, end] = slice(run, this.x.lo, this.x.hi); i < end; i++)
        if (this.y.holds(run.points[this.line][i])) consider(run, i, false);
      for (const i of this.dotsOf(run)) consider(run, i, true);
    }
    return best;
  }

  drawCursor() {
    this.over.replaceChildren();
    this.tip.hidden = true;
    const cursor = view.cursor;
    if (!cursor || view.hidden.has(cursor.run)) return;
    const tokens = cursor.run.points.tokens[cursor.i];
    if (tokens < this.x.lo || tokens > this.x.hi || !this.x.holds(tokens)) return;
    const x = this.x.at(tokens);
    this.over.append(make("line", {
      class: "cursor",
      x1: x,
      x2: x,
      y1: this.margin.top,
      y2: this.height - this.margin.bottom
    }));
    const isDot = cursor.isDot && this.dots !== undefined;
    if (!this.y.holds(cursor.run.points[isDot ? this.dots : this.line][cursor.i])) return;
    const y = this.place(cursor.run, cursor.i, isDot)[1];
    this.over.append(colored(make("circle", {class: "ring", cx: x, cy: y, r: 7}), cursor.run));
    if (cursor.panel === this)
      this.showTip(
          [make("strong", {}, sample(cursor.run), cursor.run.label), list(factsOf(cursor))], x, y);
  }
}

function factsOf({run, i, isDot, panel}) {
  const p = run.points, facts = [
    ["tokens", "tokens", whole(p.tokens[i])],
    ["step", "step", `${whole(p.step[i])} of ${whole(run.steps)}`]
  ];
  const add = (key, name, text) => isNumber(p[key][i]) && facts.push([key, name, text(p[key][i])]);
  const loss = (value) => fixed(value, 4);
  const onText = p.is_earlier_set[i] ? ", earlier text" : "";
  add("valid_loss", `validation loss${onText}`, loss);
  add("valid_gap", "\u2026 minus baseline's", signed);
  add("smoothed", "loss, smoothed", loss);
  add("gap", "\u2026 minus baseline's", signed);
  add("loss", "loss of the step", loss);
  add("lr", "learning rate", rate);
  add("score", `${view.task}, %`, (value) => fixed(value, 2));
  const here = panel[isDot ? "dots" : "line"];
  return facts.map(([key, name, text]) => ({key, name, text, isHere: key === here}));
}
