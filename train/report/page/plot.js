// What all charts have in common: a figure with an SVG, its axes, and a tip beside what is pointed
// at.

class Chart {
  // `title` and `unit` stand in the caption, `label` is read by screen readers.
  constructor(figure, {title, unit, label}) {
    Object.assign(this, {figure, margin: {left: 56, right: 14, top: 10, bottom: 36}});
    this.caption = make("figcaption", {}, `${title} `, make("small", {}, unit));
    this.plot = make("div", {class: "plot"});
    this.svg = make("svg", {
      tabindex: "0",
      preserveAspectRatio: "xMinYMin",
      role: "application",
      "aria-roledescription": "chart",
      "aria-label": `${title}. ${label}`,
    });
    this.tip = make("div", {class: "tip", hidden: ""});
    this.plot.append(this.svg, this.tip);
    this.figure.append(this.caption, this.plot);
  }

  // Sets width and height, in pixels of the figure.
  measure(aspect, mostHeight) {
    this.width = Math.max(260, Math.round(this.plot.clientWidth));
    this.height = Math.round(Math.min(mostHeight, Math.max(220, this.width * aspect)));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
  }

  // Two layers over the axes: the curves, which end at the margins, and what is pointed at.
  layers(id, xText) {
    const {margin, width, height} = this;
    const clip = make("clipPath", {id: `clip-${id}`}, make("rect", {
                        x: margin.left - 6,
                        y: margin.top - 6,
                        width: width - margin.left - margin.right + 12,
                        height: height - margin.top - margin.bottom + 7
                      }));
    this.curves = make("g", {"clip-path": `url(#clip-${id})`});
    this.over = make("g");
    this.svg.replaceChildren(make("defs", {}, clip), this.axes(xText), this.curves, this.over);
  }

  axes(xText) {
    const g = make("g"), {left, right, top, bottom} = this.margin, {width, height} = this;
    const xTicks = ticksOf(this.x, Math.max(2, Math.floor(width / 110))),
          yTicks = ticksOf(this.y, Math.max(3, Math.floor(height / 55)));
    for (const value of yTicks) {
      const at = this.y.at(value).toFixed(1);
      g.append(
          make("line", {class: "grid", x1: left, x2: width - right, y1: at, y2: at}),
          make(
              "text", {x: left - 8, y: at, dy: "0.33em", "text-anchor": "end"},
              tickText(value, yTicks, this.isSmall)));
    }
    for (const value of xTicks) {
      const at = this.x.at(value).toFixed(1);
      g.append(
          make("line", {class: "grid", x1: at, x2: at, y1: top, y2: height - bottom}),
          make(
              "text", {x: at, y: height - bottom + 16, "text-anchor": "middle"},
              tickText(value, xTicks)));
    }
    g.append(
        make(
            "line",
            {class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom}),
        make("text", {x: width - right, y: height - 4, "text-anchor": "end"}, xText));
    return g;
  }

  addRule(value, isAxis) {
    if (!this.y.holds(value)) return;
    const at = this.y.at(value).toFixed(1);
    this.curves.append(make(
        "line",
        {class: isAxis ? "axis" : "rule", x1: this.margin.left, x2: this.width, y1: at, y2: at}));
  }

  // Puts the tip beside a place in pixels.
  showTip(children, x, y) {
    this.tip.replaceChildren(...children);
    this.tip.hidden = false;
    const scale = this.plot.clientWidth / this.width, w = this.tip.offsetWidth,
          h = this.tip.offsetHeight;
    const left = x * scale + 16 + w > this.plot.clientWidth ? x * scale - 16 - w : x * scale + 16;
    this.tip.style.left = `${Math.max(0, Math.min(left, this.plot.clientWidth - w))}px`;
    const above = y * scale - h - 12;  // losses fall: there is more room above a curve
    const top = above >= 0 ? above : y * scale - h / 2;
    this.tip.style.top = `${Math.max(0, Math.min(top, this.plot.clientHeight - h))}px`;
  }
}

// Facts as pairs of name and text.
function list(facts) {
  const dl = make("dl");
  for (const fact of facts)
    dl.append(
        make("dt", fact.isHere ? {class: "here"} : {}, fact.name),
        make("dd", {"data-key": fact.key, ...(fact.isHere ? {class: "here"} : {})}, fact.text));
  return dl;
}
