// The page around the panels: tools, list of runs, table, notes; and its start.

// ---- the list of runs and the tools ------------------------------------------------------------

function fillTools() {
  const toggle = (text, key) => {
    const button = make("button", {type: "button", "aria-pressed": view[key]}, text);
    button.addEventListener("click", () => {
      view[key] = !view[key];
      button.setAttribute("aria-pressed", view[key]);
      if (key !== "raw" && key !== "dots")
        reset();
      else
        drawAll();
    });
    return button;
  };
  const action = (text, label, act) => {
    const button = make("button", {type: "button", "aria-label": label, title: label}, text);
    button.addEventListener("click", act);
    return button;
  };
  byId("tools").append(
      toggle("Each step", "raw"), toggle("Validation", "dots"), toggle("Log tokens", "logX"),
      toggle("Log loss", "logY"), toggle("Fit after start", "skipStart"),
      make("span", {class: "gap"}), action("+", "Zoom in", () => zoomTokens(0.6)),
      action("\u2212", "Zoom out", () => zoomTokens(1.7)),
      action("Reset", "Show all", reset));
}

function summaryOf(run) {
  const {final, gap} = run.summary;
  const loss = isNumber(final) ? ` \u00b7 loss ${fixed(final, 4)}` : "";
  const varied = run.varied_text ? ` \u00b7 ${run.varied_text}` : "";
  return `${percent(run.share)} KV${varied}${loss}${isNumber(gap) ? ` (${signed(gap)})` : ""}`;
}

function fillRuns() {
  for (const run of runs) {
    const box = make("input", {type: "checkbox"});
    box.checked = true;
    const label = make(
        "label", {}, box, sample(run), make("span", {class: "name"}, run.label),
        make("span", {class: "quiet"}, summaryOf(run)));
    if (run.state_text) label.append(make("span", {class: "quiet"}, run.state_text));
    box.addEventListener("change", () => {
      if (box.checked)
        view.hidden.delete(run);
      else
        view.hidden.add(run);
      drawAll();
    });
    const highlight = (which) => () => {
      view.highlighted = which;
      drawAll();
    };
    label.addEventListener("pointerenter", highlight(run));
    label.addEventListener("pointerleave", highlight(null));
    byId("runs").append(make("li", {}, label));
  }
  byId("hint").textContent = matchMedia("(pointer: coarse)").matches ?
      "Touch a curve for its numbers; + and \u2212 zoom, Reset shows all." :
      "Point at a curve for its numbers. Wheel or drag zooms, a double click shows all; " +
          "with the keyboard: arrows, + and \u2212, 0.";
}

// ---- the table of runs -------------------------------------------------------------------------

// Numbers are sorted as numbers.
const asNumber = (text) => (text && isFinite(text) ? Number(text) : text ?? null);

function columnsOf() {
  const asText = (value) => value ?? "\u2013", s = (name) => (run) => run.summary[name];
  const all = [
    column("KV cache", "% of original", (run) => 100 * run.share, (v) => fixed(v, 2)),
    column("KV cache", "bytes per token", (run) => run.cache_bytes, whole),
    column("Loss", "gap to baseline", s("gap"), signed),
    column("Loss", "final", s("final")),
    column("Loss", "best", s("best")),
    column("Loss", "at conversion", s("converted")),
    column("Loss", "original", (run) => run.original_loss),
    column("Conversion", "d_kv", (run) => (run.is_mla ? run.d_kv : null), whole),
    column("Conversion", "r", (run) => (run.is_mla ? run.rope_pairs : null), whole),
    column("Conversion", "RoPE", (run) => (run.is_mla ? run.rope : null), asText),
    column("Conversion", "SVD", (run) => (run.is_mla ? run.svd : null), asText),
    ...report.varied.map(({key, head}) => column(
        "Varied", head, (run) => asNumber(run.varied[key]), asText)),
    column("Conversion", "tokens distilled", (run) => run.distill_tokens || null, short),
    column("Healing", "tokens", (run) => run.tokens, short),
    column(
        "Healing", "% of pretraining",
        (run) => (run.pretraining_tokens ? (100 * run.tokens) / run.pretraining_tokens : null),
        (v) => (isNumber(v) ? String(Number(v.toPrecision(3))) : "\u2013")),
    column(
        "Healing", `tokens until within ${report.within}`,
        (run) => (run === baseline ? null : run.summary.within_tokens),
        (v) => (v === -1 ? "not yet" : short(v))),
    column(
        "Speed", "tokens/s", (run) => run.tokens_per_s,
        (v) => (isNumber(v) ? whole(Math.round(v)) : "\u2013")),
    column("Speed", "wall time", (run) => run.wall_s, clock),
    ...report.tasks.map((task) => column("Evaluation", task, (run) => run.tasks[task] ?? null)),
  ];
  return all.filter((c) => runs.some((run) => c.value(run) !== null && c.value(run) !== undefined));
}

function headOf(run) {
  const state = [run === baseline ? "baseline" : "", run.state_text].filter(Boolean).join(", ");
  return [sample(run), run.label, ...(state ? [make("small", {}, state)] : [])];
}

function fillNotes() {
  const settings =
      runs.filter((run) => run.settings).map((run) => `${run.label}: ${run.settings}.`);
  byId("settings").append(...settings.map((text) => make("li", {}, text)));
  byId("settings").hidden = settings.length === 0;
  const notes = [
    "Losses are validation losses in nats per token: final is the newest, best the lowest, at " +
    "conversion that of the converted model before training, original that of the model before " +
    "conversion. KV cache: two bytes per number."
  ];
  if (report.look) notes.push(report.look);
  const isOfTraining = ({summary}) => !summary.is_validation && isNumber(summary.final);
  const withoutValidation = runs.filter(isOfTraining).map((run) => run.label);
  if (withoutValidation.length > 0)
    notes.push(
        "Without a validation after the start, final and best are smoothed training losses: " +
        `${withoutValidation.join(", ")}.`);
  if (runs.some((run) => run.points.is_earlier_set.some(Boolean)))
    notes.push(
        "Open marks are validation losses on other text than the filled ones, before the " +
        "validation shards were changed; the two are not comparable. The table has losses on the " +
        "newest text alone.");
  notes.push(`Smoothed: the mean over ${
      whole(report.window)} steps around each step, over fewer near the start.`);
  if (baseline) {
    notes.push(
        `Differences are to ${baseline.label} after the same number of tokens. Tokens until ` +
        `within ${report.within}: the gap stays at or below ${report.within} nats from there on.`);
    for (const run of runs)
      if (isNumber(run.summary.gap) &&
          (run.summary.gap_tokens < run.tokens || !run.summary.is_gap_of_validation))
        notes.push(
            `The gap of ${run.label} is ${
                run.summary.is_gap_of_validation ? "of validation" :
                                                   "of smoothed training losses"} at ` +
            `${whole(run.summary.gap_tokens)} tokens.`);
  }
  notes.push(
      "tokens/s is the median over steps; wall time is the sum over all restarts of the run.");
  if (report.is_thinned)
    notes.push(
        "Not every step is drawn: each curve is divided into equal intervals, of which the " +
        "smallest and the largest loss are shown. metrics.jsonl of a run has all steps.");
  byId("notes").append(...notes.map((text) => make("li", {}, text)));
}

// ---- the page ----------------------------------------------------------------------------------

// The smallest KV cache whose loss is close to the baseline's.
function result() {
  if (!baseline) return "There is no baseline among the runs, so no differences are shown.";
  const others = runs.filter((run) => run !== baseline && isNumber(run.summary.gap));
  const close = others.filter((run) => run.summary.gap <= report.within)
                    .sort((a, b) => a.share - b.share || a.summary.gap - b.summary.gap);
  const describe = (run) =>
      `${run.label}, ${percent(run.share)} of it, ${signed(run.summary.gap)} nats per token`;
  if (close.length > 0)
    return `Smallest KV cache within ${report.within} nats of ${baseline.label}: ${
        describe(close[0])}.`;
  const nearest = others.sort((a, b) => a.summary.gap - b.summary.gap)[0];
  if (!nearest) return `The baseline is ${baseline.label}.`;
  return `No smaller KV cache is within ${report.within} nats of ${baseline.label} yet. Nearest: ${
      describe(nearest)}.`;
}

function start() {
  runs.forEach((run, index) => {
    run.index = index;
  });
  byId("title").textContent = runs.length === 1 ? runs[0].label : `${runs.length} runs compared`;
  document.title =
      runs.length === 1 ? `${runs[0].label} - mha2mla` : `${runs.length} runs compared - mha2mla`;
  byId("result").textContent = result();
  byId("footer").textContent =
      `Made by mha2mla compare, ${report.made}, from ${runs.map((run) => run.dir).join(", ")}.`;
  const has = (name) => runs.some((run) => run.points[name].some(isNumber));
  new Panel("loss", {
    title: "Loss",
    unit: "nats per token",
    line: "smoothed",
    faint: "loss",
    dots: "valid_loss",
    canLog: true,
    aspect: 0.5,
    mostHeight: 430,
    rules: [],
    include: () => []
  });
  if (has("gap") || has("valid_gap"))
    new Panel("gap", {
      title: `Difference to ${baseline.label}`,
      unit: "nats per token",
      line: "gap",
      dots: "valid_gap",
      aspect: 0.55,
      mostHeight: 280,
      rules: [0, report.within],
      include: (span) => (span < 20 * report.within ? [0, report.within] : [0])
    });
  else
    byId("gap").hidden = true;
  if (has("lr"))
    new Panel("lr", {
      title: "Learning rate",
      unit: "",
      line: "lr",
      isSmall: true,
      fromZero: true,
      aspect: 0.55,
      mostHeight: 280,
      rules: [],
      include: () => [0]
    });
  else
    byId("lr").hidden = true;
  addScores();
  fillTools();
  fillRuns();
  fillTable(byId("table"), "The runs in numbers", runs, columnsOf(), headOf, (run) => run.label);
  fillNotes();
  fillEvaluations();
  drawAll();
  const isOfOtherWidth = (chart) => Math.round(chart.plot.clientWidth) !== chart.width;
  new ResizeObserver(() => [...panels, ...scoreCharts].some(isOfOtherWidth) && drawAll())
      .observe(document.body);
}

start();
