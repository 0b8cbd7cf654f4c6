// Evaluations: a section for tasks and one for LongBench, each a chart of the score against the
// bytes of the cache, with one line per scheme of quantization, and a table; and the panel of
// scores while the runs were trained. Scores are shown in percent.

const evaluations = report.evaluations;
for (const item of evaluations.list) item.of = runs[item.run];

const inPercent = (score) => fixed(isNumber(score) ? 100 * score : null, 2);
const withSign = (score) => {
  const text = inPercent(score);
  return isNumber(score) && !text.startsWith("\u2212") ? `+${text}` : text;
};
const inBytes = (bytes) => Number(bytes.toFixed(bytes < 100 ? 2 : 1)).toLocaleString("en-US");

// The score of a task, null if it was not evaluated; without a task that of the average.
function scoreOf(item, task) {
  if (task === null)
    return {score: item.average, error: item.error, n: 0, isNearChance: item.is_near_chance};
  if (!Object.hasOwn(item.scores, task)) return null;
  const [score, error, n, isNearChance, chance] = item.scores[task];
  return {score, error, n, isNearChance, chance};
}

// ---- the chart ---------------------------------------------------------------------------------

const schemes = [...new Set(
    ["plain", "channel", "hqq", "quanto", ...evaluations.list.map((item) => item.scheme)])];
const schemeNames = {
  plain: "not quantized",
  channel: "per channel",
  hqq: "HQQ",
  quanto: "Quanto"
};
const schemeName = (scheme) => Object.hasOwn(schemeNames, scheme) ? schemeNames[scheme] : scheme;
const inScheme = (element, scheme) => {
  element.classList.add("scheme", `scheme-${schemes.indexOf(scheme) % 5}`);
  return element;
};
const dashOf = (scheme) => dashes[schemes.indexOf(scheme) % dashes.length];

function schemeSample(scheme) {
  const line = make("path", {d: "M1 7H39", class: "line", "stroke-dasharray": dashOf(scheme)});
  return inScheme(
      make(
          "svg",
          {class: "sample", viewBox: "0 0 40 14", width: 40, height: 14, "aria-hidden": "true"},
          line),
      scheme);
}

function markSample(run) {
  const mark = make("path", {d: shapePath(run.index, 8, 8, 5), class: "dot"});
  return make(
      "svg", {class: "mark", viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true"},
      mark);
}

const scoreCharts = [];

class ScoreChart extends Chart {
  constructor(figure, kind, title) {
    super(figure, {
      title,
      unit: "%, against the bytes that a token takes in the KV cache",
      label: "Left and right arrows step along a scheme, up and down change the scheme. " +
          "The table below has the numbers."
    });
    const suites = [...new Set(itemsOf(kind).map((item) => item.suite))];
    const count = (suite) => itemsOf(kind).filter((item) => item.suite === suite).length;
    Object.assign(this, {kind, suites, task: null, cursor: null});
    this.suite = suites.reduce((a, b) => (count(b) > count(a) ? b : a));
    this.legend = make("div", {class: "legend"});
    this.caption.append(...this.choices());
    this.plot.before(this.legend);
    this.svg.addEventListener("pointermove", (event) => this.point(this.nearest(event)));
    this.svg.addEventListener("pointerdown", (event) => this.point(this.nearest(event)));
    this.svg.addEventListener("pointerleave", () => this.point(null));
    this.svg.addEventListener("keydown", (event) => this.onKey(event));
    this.svg.addEventListener("blur", () => this.point(null));
    scoreCharts.push(this);
  }

  // What can be chosen: the settings, where evaluations of several cannot be compared, and the
  // task.
  choices() {
    const choose = (label, options, act) => {
      const select = make("select", {"aria-label": label});
      for (const [value, text, isChosen] of options)
        select.append(make("option", {value, ...(isChosen ? {selected: ""} : {})}, text));
      select.addEventListener("change", () => {
        act(select.value);
        this.cursor = null;
        this.draw();
      });
      return select;
    };
    const tasks = evaluations[this.kind].map((task, i) => [i, task.name]);
    const found = [choose("Score", [["", "average"], ...tasks], (value) => {
      this.task = value === "" ? null : evaluations[this.kind][value].name;
    })];
    if (this.suites.length > 1)
      found.push(choose(
          "Settings",
          this.suites.map((suite) => [suite, evaluations.suites[suite].text, suite === this.suite]),
          (value) => {
            this.suite = Number(value);
          }));
    return found;
  }

  // What is drawn: the evaluations of the suite that have the score, by scheme, from the smallest
  // cache to the largest.
  lines() {
    const items = itemsOf(this.kind).filter(
        (item) => item.suite === this.suite && scoreOf(item, this.task) !== null &&
            !view.hidden.has(item.of));
    return schemes
        .map((scheme) => ({
               scheme,
               items: items.filter((item) => item.scheme === scheme)
                          .sort((a, b) => a.bytes - b.bytes || a.run - b.run)
             }))
        .filter((line) => line.items.length > 0);
  }

  chance() {
    if (this.task === null) return evaluations.suites[this.suite].chance;
    const found = itemsOf(this.kind).find(
        (item) => item.suite === this.suite && scoreOf(item, this.task) !== null);
    return found ? scoreOf(found, this.task).chance : null;
  }

  setScales(items) {
    const bytes = items.map((item) => item.bytes), margin = this.margin;
    const bounds = items.flatMap((item) => {
      const {score, error} = scoreOf(item, this.task);
      return [100 * (score - (error ?? 0)), 100 * (score + (error ?? 0))];
    });
    let least = Math.min(...bounds), most = Math.max(...bounds);
    const guess = 100 * this.chance(), span = most - least || 1;  // guess: 0 where there is none
    if (guess > 0 && guess > least - span / 2 && guess < most + span / 2)
      [least, most] = [Math.min(least, guess), Math.max(most, guess)];
    this.x = makeScale(
        Math.min(...bytes) / 1.3, Math.max(...bytes) * 1.3, margin.left, this.width - margin.right,
        true);
    this.y = makeScale(
        Math.max(least - 0.1 * span, least < 0 ? -Infinity : Math.min(0, least)),
        most + 0.06 * span, this.height - margin.bottom, margin.top, false);
  }

  draw() {
    const lines = this.lines(), items = lines.flatMap((line) => line.items);
    this.svg.parentElement.hidden = this.legend.hidden = items.length === 0;
    if (items.length === 0) return;
    this.measure(0.42, 400);
    this.setScales(items);
    this.layers(`scores-${this.kind}`, "bytes per token, logarithmic");
    this.addRules(items);
    for (const line of lines) this.curves.append(this.curve(line));
    this.addBits(items);
    this.fillLegend(lines);
    this.drawCursor();
  }

  // Guessing, and the baseline, each with its name at the left, where small caches are seldom
  // good.
  addRules(items) {
    const chance = this.chance(), base = items.find((item) => item.is_baseline);
    const add = (value, text) => {
      this.addRule(value, false);
      this.curves.append(
          make("text", {class: "note", x: this.margin.left + 4, y: this.y.at(value) - 4}, text));
    };
    if (isNumber(chance) && 100 * chance >= this.y.lo && 100 * chance <= this.y.hi)
      add(100 * chance, "guessing");
    if (base) add(100 * scoreOf(base, this.task).score, `baseline, ${base.cache}`);
  }

  curve({scheme, items}) {
    const g = inScheme(make("g", {"data-scheme": scheme}), scheme);
    const at = items.map((item) => this.place(item));
    g.append(make("path", {
      class: "line",
      d: at.map(([x, y], i) => `${i > 0 ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join(""),
      "stroke-dasharray": dashOf(scheme)
    }));
    items.forEach((item, i) => {
      const {score, error, isNearChance} = scoreOf(item, this.task), [x, y] = at[i];
      if (isNumber(error))
        g.append(make("path", {
          class: "error",
          d: `M${x} ${this.y.at(100 * (score - error))}V${this.y.at(100 * (score + error))}`
        }));
      g.append(make(
          "path",
          {class: isNearChance ? "dot earlier" : "dot", d: shapePath(item.of.index, x, y, 5)}));
    });
    return g;
  }

  // The bits of quantized caches, once below all marks of the same size.
  addBits(items) {
    const sizes = new Map();
    for (const item of items) {
      if (item.scheme === "plain" || item.value_bits === 0) continue;
      const {value_bits: value, key_bits: key} = item, {score, error} = scoreOf(item, this.task);
      const size = sizes.get(item.bytes) ?? {texts: new Set(), y: 0};
      size.texts.add(value === key ? `${value}` : `${value},${key}`);
      size.y = Math.max(size.y, this.y.at(100 * (score - (error ?? 0))));
      sizes.set(item.bytes, size);
    }
    for (const [bytes, {texts, y}] of sizes)
      this.curves.append(make(
          "text", {class: "note", x: this.x.at(bytes), y: y + 14, "text-anchor": "middle"},
          `${[...texts].join(" / ")} bit`));
  }

  fillLegend(lines) {
    const used = new Set(lines.flatMap((line) => line.items.map((item) => item.of)));
    const entries = [
      ...lines.map(({scheme}) => make("span", {}, schemeSample(scheme), schemeName(scheme))),
      ...runs.filter((run) => used.has(run))
          .map((run) => make("span", {}, markSample(run), run.label))
    ];
    this.legend.replaceChildren(...entries);
    if (lines.some((line) => line.items.some((item) => scoreOf(item, this.task).isNearChance)))
      this.legend.append(make("span", {class: "quiet"}, "open: near guessing"));
  }

  place(item) {
    return [this.x.at(item.bytes), this.y.at(100 * scoreOf(item, this.task).score)];
  }

  nearest(event) {
    const box = this.svg.getBoundingClientRect(), scale = this.width / box.width;
    const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
    let best = null, least = Infinity;
    for (const {items} of this.lines())
      for (const item of items) {
        const [x, y] = this.place(item), distance = Math.hypot(x - px, y - py);
        if (distance < least) [least, best] = [distance, item];
      }
    return best;
  }

  point(item) {
    this.cursor = item;
    this.drawCursor();
  }

  drawCursor() {
    this.over.replaceChildren();
    this.tip.hidden = true;
    if (!this.cursor || view.hidden.has(this.cursor.of)) return;
    const [x, y] = this.place(this.cursor);
    this.over.append(
        inScheme(make("circle", {class: "ring", cx: x, cy: y, r: 9}), this.cursor.scheme));
    this.showTip(
        [make("strong", {}, markSample(this.cursor.of), this.cursor.of.label), list(this.facts())],
        x, y);
  }

  facts() {
    const item = this.cursor, {score, error, n, isNearChance} = scoreOf(item, this.task);
    const spread = isNumber(error) ? ` \u00b1 ${inPercent(error)}` : "";
    const facts = [
      ["score", this.task ?? averageName(item), `${inPercent(score)}${spread} %`, true],
      ["cache", "KV cache", item.cache],
      ["bytes", "bytes per token", inBytes(item.bytes)],
      ["share", "of the original's", percent(item.share)],
    ];
    if (isNearChance) facts.push(["chance", "guessing", `${inPercent(this.chance())} %, near`]);
    if (this.task === null) facts.push(["difference", "to the baseline", differenceText(item)]);
    facts.push(["items", "items", n > 0 ? whole(n) : itemsText(item)]);
    facts.push(["settings", "settings", settingsText(item)]);
    return facts.map(([key, name, text, isHere]) => ({key, name, text, isHere}));
  }

  onKey(event) {
    const lines = this.lines();
    if (event.ctrlKey || event.metaKey || event.altKey || lines.length === 0) return;
    let row = this.cursor ? lines.findIndex((line) => line.items.includes(this.cursor)) : 0;
    let i = this.cursor ? lines[row].items.indexOf(this.cursor) : 0;
    const turn = (by) => {
      row = (row + by + lines.length) % lines.length;
      const far = (item) => Math.abs(Math.log(item.bytes / this.cursor.bytes));
      const items = lines[row].items;
      i = items.reduce((best, item, k) => (far(item) < far(items[best]) ? k : best), 0);
    };
    const moves = {
      ArrowLeft: () => i--,
      ArrowRight: () => i++,
      Home: () => (i = 0),
      End: () => (i = Infinity),
      ArrowUp: () => turn(-1),
      ArrowDown: () => turn(1),
    };
    if (!moves[event.key]) return;
    event.preventDefault();
    if (this.cursor) moves[event.key]();
    const items = lines[row].items;
    this.point(items[Math.max(0, Math.min(items.length - 1, i))]);
    byId("announcement").textContent = `${this.cursor.of.label}: ${
        this.facts().map((fact) => `${fact.name} ${fact.text}`).join(", ")}`;
  }
}

// ---- the table ---------------------------------------------------------------------------------

const itemsOf = (kind) => evaluations.list.filter((item) => item.kind === kind);

const averageName = (item) => (item.is_mean ? "mean of the tasks given" : "average");

// "200", or the fewest and the most items of a task.
function itemsText(item) {
  const counts = Object.values(item.scores).map((score) => score[2]);
  const fewest = Math.min(...counts), most = Math.max(...counts);
  if (fewest === 0) return "\u2013";
  return fewest === most ? whole(most) : `${whole(fewest)}\u2013${whole(most)}`;
}

function settingsText(item) {
  const parts = [item.rules];
  if (isNumber(item.shots)) parts.push(`${item.shots} shot${item.shots === 1 ? "" : "s"}`);
  if (item.bos >= 0) parts.push(item.bos ? "BOS" : "no BOS");
  if (isNumber(item.max_length)) parts.push(`up to ${whole(item.max_length)} tokens`);
  return parts.join(", ");
}

function differenceText(item) {
  if (item.is_baseline) return "baseline";
  return isNumber(item.difference)             ? withSign(item.difference) :
      item.reason.startsWith("not comparable") ? "not comparable" :
                                                 "\u2013";
}

// The score, its standard error, and a mark where it is near guessing.
function scoreNodes(cell) {
  if (!cell) return ["\u2013"];
  const nodes = [inPercent(cell.score)];
  if (cell.isNearChance)
    nodes.push(
        make("abbr", {class: "chance", title: "within two standard errors of guessing"}, "~"));
  if (isNumber(cell.error)) nodes.push(make("small", {}, `\u00b1 ${inPercent(cell.error)}`));
  return nodes;
}

function differenceNodes(item) {
  const text = differenceText(item);
  return [item.reason ? make("abbr", {title: item.reason}, text) : text];
}

const shortTask = (name) => name.replace(/^longbench_/, "");

function scoreColumns(kind) {
  const asText = (value) => value ?? "\u2013", asCount = (v) => whole(v);
  const all = [
    column("KV cache", "format", (item) => item.cache, asText),
    column("KV cache", "bytes per token", (item) => item.bytes, inBytes),
    column("KV cache", "% of original", (item) => 100 * item.share, (v) => fixed(v, 2)),
    column(
        "Score, %", "average", (item) => item.average, null,
        (item) =>
            [...(item.is_mean ?
                     [make(
                         "abbr",
                         {title: "the mean of the tasks given; the average needs others, too"},
                         "*")] :
                     []),
             ...scoreNodes(scoreOf(item, null))]),
    column("Score, %", "to baseline", (item) => item.difference, null, differenceNodes),
    ...evaluations[kind].map(
        ({name}) => column(
            "Score, %", shortTask(name), (item) => scoreOf(item, name)?.score ?? null, null,
            (item) => scoreNodes(scoreOf(item, name)))),
    column("Settings", "items of each", (item) => itemsText(item), asText),
    column("Settings", "rules", (item) => item.rules, asText),
    column("Settings", "shots", (item) => item.shots, asCount),
    column(
        "Settings", "BOS",
        (item) =>
            (item.bos < 0 ? null :
                 item.bos ? "yes" :
                            "no"),
        asText),
    column("Settings", "most tokens", (item) => item.max_length, asCount),
    column("Settings", "cut", (item) => item.n_cut, asCount),
    column("Settings", "trained on", (item) => item.tokens, short),
  ];
  const isKnown = (value) => value !== null && value !== undefined;
  return all.filter((c) => c.nodes || itemsOf(kind).some((item) => isKnown(c.value(item))));
}

function scoreNotes(kind) {
  const items = itemsOf(kind), notes = [
    "Scores in percent, with one standard error. Cache: bytes of a token over all layers, " +
    "quantized as far as the format does; in percent of the unconverted model's in bfloat16."
  ];
  if (items.some((item) => item.scheme !== "plain"))
    notes.push(
        "A quantized cache keeps the newest 64 to 127 tokens as they are, unless its policy is " +
        "the reference's: shorter texts score as without quantization.");
  const all = items.flatMap(
      (item) => [item.is_near_chance, ...Object.values(item.scores).map((score) => score[3])]);
  if (all.some(Boolean))
    notes.push("~ within two standard errors of guessing, 1 / choices: no better than chance.");
  if (items.some((item) => item.is_mean))
    notes.push("* the mean of the tasks given; the average of the paper needs others, too.");
  for (const item of items)
    if (item.reason.startsWith("not comparable"))
      notes.push(`${item.of.label}, ${item.file}: ${item.reason}.`);
  if (!baseline)
    notes.push("There is no baseline among the runs, so no differences are shown.");
  else if (!items.some((item) => item.of === baseline))
    notes.push(`${baseline.label}, the baseline, was not evaluated: no differences are shown.`);
  return make("ul", {class: "quiet notes"}, ...notes.map((text) => make("li", {}, text)));
}

function addEvaluation(kind, title, about) {
  if (itemsOf(kind).length === 0) return;
  const head = make("h2", {id: `${kind}-head`}, title), figure = make("figure", {id: kind}),
        table = make("table", {id: `${kind}-table`});
  byId("evaluations")
      .append(make(
          "section", {"aria-labelledby": head.id}, head, figure,
          make(
              "div", {class: "scroll", role: "region", "aria-labelledby": head.id, tabindex: "0"},
              table),
          scoreNotes(kind)));
  new ScoreChart(figure, kind, about);
  fillTable(
      table, `${title} in numbers`, itemsOf(kind), scoreColumns(kind),
      (item) => [sample(item.of), item.of.label, make("small", {}, item.file)],
      (item) => item.of.label);
}

function fillEvaluations() {
  addEvaluation("tasks", "Tasks", "Score on tasks");
  addEvaluation("longbench", "LongBench", "Score on LongBench");
}

// ---- scores while the runs were trained --------------------------------------------------------

// Sets the points' column "score", by which the panel draws.
function chooseTask(panel, {name, chance}) {
  view.task = name;
  for (const run of runs) {
    const {step, scores} = run.task_points, points = run.points;
    points.score = new Array(points.step.length).fill(null);
    scores.forEach((found, k) => {
      if (Object.hasOwn(found, name))
        points.score[points.step.indexOf(step[k])] = 100 * found[name];
    });
  }
  panel.rules = isNumber(chance) ? [100 * chance] : [];
}

function addScores() {
  const tasks = evaluations.training;
  for (const run of runs) run.points.score = [];
  if (tasks.length === 0) return;
  byId("scores").hidden = false;
  const panel = new Panel("scores", {
    title: "Scores",
    unit: "%, while training",
    line: "score",
    dots: "score",
    isDotted: true,
    aspect: 0.4,
    mostHeight: 280,
    rules: [],
    include: () => panel.rules
  });
  const select = make("select", {"aria-label": "Task"});
  tasks.forEach((task, i) => select.append(make("option", {value: i}, task.name)));
  const average = tasks.findIndex((task) => task.name === "average");
  select.value = Math.max(0, average);
  select.addEventListener("change", () => {
    chooseTask(panel, tasks[select.value]);
    panel.yRange = null;
    drawAll();
  });
  panel.caption.append(select);
  chooseTask(panel, tasks[Math.max(0, average)]);
}
