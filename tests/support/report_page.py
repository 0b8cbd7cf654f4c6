"""The report's page under real mouse and keyboard events: report_page.py CHROMIUM REPORT SETS VARIED.

The directories are made by program_report_page.sh: REPORT of the runs base (the baseline), mla and
half; SETS of base and half, where half was validated on other text until step 20, and both were
evaluated; VARIED of base and a grid of two strategies (colours) and three learning rates (dashes)."""
import csv
import os
import sys

from chromium_page import Page

binary, folder, folder_of_sets, folder_of_varied = sys.argv[1:]
with open(os.path.join(folder, "curves.csv"), encoding="utf-8") as file:
    points = list(csv.DictReader(file))


def check(condition, text):
    if not condition:
        sys.exit(f"FAILED: {text}")


def shown(text):
    """The number that a text of the page stands for."""
    return float(text.replace("\u2212", "-").replace(",", "").split(" ")[0])


def number(point, column):
    return float(point[column]) if point[column] else None


def tip(page, panel="loss"):
    """What the tip of a panel says: {"run": ..., "tokens": ...}; None if there is none."""
    return page.js(f"""(() => {{
        const tip = document.querySelector("#{panel} .tip");
        if (!tip || tip.hidden) return null;
        const facts = [...tip.querySelectorAll("dd")].map((dd) => [dd.dataset.key, dd.textContent]);
        return {{run: tip.querySelector("strong").textContent, ...Object.fromEntries(facts)}};
    }})()""")


def box(page, panel="loss"):
    return page.js(f"""(() => {{
        document.querySelector("#{panel}").scrollIntoView({{block: "center"}});
        const b = document.querySelector("#{panel} .plot svg").getBoundingClientRect();
        return {{x: b.x, y: b.y, width: b.width, height: b.height}};
    }})()""")


def ticks(page):
    return page.js("""[...document.querySelectorAll("#loss svg text[text-anchor=middle]")]
        .map((text) => text.textContent)""")


def check_tip(said):
    """What is shown of a point is what curves.csv has of it."""
    point = [p for p in points if p["name"] == said["run"]
             and int(p["tokens"]) == shown(said["tokens"])]
    check(len(point) == 1, f"no single point {said['run']} at {said['tokens']}")
    check(int(point[0]["step"]) == shown(said["step"]), f"step {said['step']}")
    columns = {"loss": "loss", "smoothed": "loss_smoothed", "gap": "loss_minus_baseline",
               "valid_loss": "valid_loss", "valid_gap": "valid_loss_minus_baseline", "lr": "lr"}
    for key, column in columns.items():
        value = number(point[0], column)
        check((value is None) == (key not in said), f"{key} of {said}: {value} in curves.csv")
        if value is not None:
            room = 5.1e-6 if key == "lr" else 5.1e-5  # half of the last digit shown
            check(abs(shown(said[key]) - value) <= room, f"{key}: {said[key]}, {value} in the file")


def test_pointing(page):
    seen = set()
    area = box(page)
    for i in range(24):
        for part in (0.1, 0.45, 0.7, 0.9):
            page.move(area["x"] + area["width"] * (0.08 + i * 0.038),
                      area["y"] + area["height"] * part)
            said = tip(page)
            check(said is not None, "no tip over the chart")
            check_tip(said)
            seen.add((said["run"], said["tokens"]))
    check({run for run, _ in seen} == {"base", "mla", "half"}, f"only {seen} were found")
    check(len(seen) > 30, f"only {len(seen)} points were found")  # seen 62
    for panel in ("gap", "lr"):
        area = box(page, panel)
        page.move(area["x"] + area["width"] * 0.5, area["y"] + area["height"] * 0.5)
        check_tip(tip(page, panel))
    page.move(2, 2)
    check(tip(page, "lr") is None, "the tip stays when the mouse is gone")


def test_nearest(page):
    """The mouse on a mark of validation shows that validation."""
    area = box(page)
    at = page.js("""(() => {
        const panel = panels[0], run = runs[1], i = run.points.step.indexOf(30);
        const scale = panel.svg.getBoundingClientRect().width / panel.width;
        return panel.place(run, i, true).map((v) => v * scale);
    })()""")
    page.move(area["x"] + at[0], area["y"] + at[1])
    said = tip(page)
    check(said["run"] == "mla" and shown(said["step"]) == 30, f"on mla's step 30: {said}")
    here = page.js("document.querySelector('#loss .tip dd.here').dataset.key")
    check(here == "valid_loss", f"on a validation the tip stresses {here}")


def test_zoom(page):
    area, whole = box(page), ticks(page)
    x, y = area["x"] + area["width"] * 0.5, area["y"] + area["height"] * 0.5
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-400)
    check(ticks(page) != whole, "the wheel does not zoom")
    for count in (1, 2):
        page.mouse("mousePressed", x, y, button="left", clickCount=count)
        page.mouse("mouseReleased", x, y, button="left", clickCount=count)
    check(ticks(page) == whole, "a double click does not show all")
    page.mouse("mousePressed", area["x"] + area["width"] * 0.5, y, button="left", clickCount=1)
    page.mouse("mouseMoved", area["x"] + area["width"] * 0.8, y + 3, button="left", buttons=1)
    page.mouse("mouseReleased", area["x"] + area["width"] * 0.8, y + 3, button="left", clickCount=1)
    lo, hi = page.js("view.x")
    # seen 28478 to 48000
    check(25000 < lo < 32000 and 45000 < hi < 52000, f"dragging chose {lo} to {hi}")
    page.move(x, y)
    check(lo <= shown(tip(page)["tokens"]) <= hi, "a point outside of the view is shown")
    page.js("document.querySelector('[aria-label=\"Show all\"]').click()")
    check(ticks(page) == whole, "Reset does not show all")


def test_keyboard(page):
    page.move(2, 2)
    page.js("document.querySelector('#loss svg').focus()")
    page.key("ArrowLeft")
    first = tip(page)
    check_tip(first)
    page.key("ArrowLeft")
    check(shown(tip(page)["step"]) == shown(first["step"]) - 1, "ArrowLeft is not one step back")
    page.key("ArrowDown")
    check(tip(page)["run"] != first["run"], "ArrowDown stays with the run")
    said = page.js("document.querySelector('#announcement').textContent")
    check(tip(page)["run"] in said and tip(page)["tokens"] in said, f"said: {said}")
    page.key("+")
    check(page.js("view.x !== null"), "+ does not zoom")
    page.key("0")
    check(page.js("view.x === null"), "0 does not show all")
    order = page.js("""[...document.querySelectorAll("button, input, [tabindex]")]
        .every((element) => element.tabIndex === 0)""")
    check(order, "something cannot be reached by Tab")


def test_hiding(page):
    page.js("document.querySelectorAll('#runs input')[1].click()")
    area = box(page)
    for i in range(10):
        page.move(area["x"] + area["width"] * (0.1 + i * 0.08), area["y"] + area["height"] * 0.5)
        check(tip(page)["run"] != "mla", "a hidden run is pointed at")
    page.js("document.querySelectorAll('#runs input')[1].click()")


def test_table(page):
    rows = page.js("""[...document.querySelectorAll("#table tbody tr")]
        .map((row) => [...row.children].map((cell) => cell.textContent))""")
    heads = page.js("""[...document.querySelectorAll("#table thead button")]
        .map((button) => button.textContent)""")
    check(len(rows) == 3 and all(len(row) == len(heads) for row in rows), f"{len(rows)} rows")
    mla = dict(zip(heads, rows[1]))
    last = [p for p in points if p["name"] == "mla"][-1]
    check(shown(mla["final"]) == round(float(last["valid_loss"]), 4), f"final is {mla['final']}")
    gap = round(float(last["valid_loss_minus_baseline"]), 4)
    check(shown(mla["gap to baseline"]) == gap, f"gap is {mla['gap to baseline']}")
    check(mla["% of original"] == "12.50" and mla["bytes per token"] == "160", f"KV: {mla}")
    check(mla["tokens until within 0.05"] == "50 k", f"within: {mla}")
    check("stopped at step 30 of 60" in rows[2][0], f"half is not marked: {rows[2][0]}")
    page.js("document.querySelectorAll('#table thead button')[1].click()")
    first = page.js("document.querySelector('#table tbody th').textContent")
    check(first.startswith("mla") or first.startswith("half"), f"sorted by KV: {first} is first")


def test_look(page):
    """No sideways scrolling of the page at any width, colours that follow the scheme."""
    for width in (1280, 700, 390, 320):
        page.size(width, 800, mobile=width < 500)
        wide = page.js("document.documentElement.scrollWidth")
        check(wide <= width, f"at {width} pixels the page is {wide} wide")
    page.size(1280, 900)
    paper = "getComputedStyle(document.body).backgroundColor"
    color = "getComputedStyle(document.querySelector('#loss .run')).color"
    light = page.js(paper), page.js(color)
    page.media(prefers_color_scheme="dark")
    dark = page.js(paper), page.js(color)
    check(light == ("rgb(255, 255, 255)", "rgb(27, 16, 68)"), f"light: {light}")
    check(dark == ("rgb(20, 23, 28)", "rgb(244, 241, 255)"), f"dark: {dark}")
    page.media()


def test_sets(page):
    """Losses on the earlier validation text have open marks, and are named where pointed at."""
    marks = page.js("""[...document.querySelectorAll("#loss [data-run='1'] .dot")]
        .map((mark) => mark.classList.contains("earlier"))""")
    check(marks == [True] * 3 + [False] * 4, f"open marks: {marks}")
    area = box(page)
    for step, name in ((10, "validation loss, earlier text"), (50, "validation loss")):
        at = page.js(f"""(() => {{
            const panel = panels[0], run = runs[1], i = run.points.step.indexOf({step});
            const scale = panel.svg.getBoundingClientRect().width / panel.width;
            return panel.place(run, i, true).map((v) => v * scale);
        }})()""")
        page.move(area["x"] + at[0], area["y"] + at[1])
        here = page.js("document.querySelector('#loss .tip dt.here').textContent")
        check(here == name, f"step {step}: the tip says {here}")
    notes = page.js("document.querySelector('#notes').textContent")
    check("Open marks are validation losses on other text" in notes, f"the notes say {notes}")
    settings = page.js("document.querySelector('#settings').textContent")
    check(settings == "half: validated on other text until step 20.", f"settings: {settings}")


def scored(folder):
    """The rows of tasks.csv, by run, file and task."""
    with open(os.path.join(folder, "tasks.csv"), encoding="utf-8") as file:
        return {(row["name"], row["file"], row["task"]): row for row in csv.DictReader(file)}


def point_at(page, kind, file):
    """Moves the mouse to the mark of an evaluation."""
    area = box(page, kind)
    at = page.js(f"""(() => {{
        const chart = scoreCharts.find((c) => c.kind === "{kind}");
        const item = chart.lines().flatMap((line) => line.items)
            .find((i) => `${{i.of.label}}/${{i.file}}` === "{file}");
        const scale = chart.svg.getBoundingClientRect().width / chart.width;
        return chart.place(item).map((v) => v * scale);
    }})()""")
    page.move(area["x"] + at[0], area["y"] + at[1])
    return tip(page, kind)


def test_scores(page, rows):
    """The charts of scores: lines by scheme, and what the mouse shows is what tasks.csv has."""
    schemes = page.js("""["tasks", "longbench"].map((kind) =>
        [...document.querySelectorAll(`#${kind} [data-scheme]`)].map((g) => g.dataset.scheme))""")
    check(schemes == [["plain", "channel"], ["plain", "hqq"]], f"lines of {schemes}")
    marks = page.js("""[...document.querySelectorAll("#tasks [data-scheme=channel] .dot")]
        .map((mark) => mark.classList.contains("earlier"))""")
    check(marks == [True, False], f"open marks, near guessing: {marks}")
    for kind, files in {"tasks": ("base/eval.json", "half/eval.json", "half/eval-int4.json",
                                  "half/eval-int2.json"),
                        "longbench": ("base/eval-long.json", "half/eval-long.json")}.items():
        for file in files:
            said, (run, name) = point_at(page, kind, file), file.split("/")
            row = rows[run, name, "average"]
            check(said["run"] == run and said["cache"] == row["cache"], f"{file}: {said}")
            check(said["score"] == f"{100 * float(row['score']):.2f} \u00b1 "
                  f"{100 * float(row['stderr']):.2f} %", f"{file}: {said}")
            check(shown(said["bytes"]) == float(row["cache_bytes_per_token"]), f"{file}: {said}")
            check(("chance" in said) == (row["near_chance"] == "yes"), f"{file}: {said}")
            if row["average_minus_baseline"]:
                difference = 100 * float(row["average_minus_baseline"])
                check(abs(shown(said["difference"]) - difference) < 5.1e-3, f"{file}: {said}")
            else:
                check(said["difference"] == "baseline", f"{file}: {said}")
    page.move(2, 2)
    check(tip(page, "longbench") is None, "the tip stays when the mouse is gone")


def test_scores_by_keyboard(page, rows):
    page.js("document.querySelector('#tasks .plot svg').focus()")
    page.key("ArrowRight")
    check(tip(page, "tasks")["cache"] == "bfloat16", f"the first is {tip(page, 'tasks')}")
    page.key("ArrowDown")
    page.key("Home")
    check(tip(page, "tasks")["cache"] == "channel 2 bits", f"Home: {tip(page, 'tasks')}")
    page.key("ArrowRight")
    said = page.js("document.querySelector('#announcement').textContent")
    check("half: average 44.50" in said and "channel 4 bits" in said, f"said: {said}")
    page.js("""(() => {
        const select = document.querySelector("#tasks select");
        select.value = [...select.options].find((o) => o.textContent === "piqa").value;
        select.dispatchEvent(new Event("change"));
    })()""")
    said = point_at(page, "tasks", "half/eval-int4.json")
    check(shown(said["score"]) == 100 * float(rows["half", "eval-int4.json", "piqa"]["score"]),
          f"piqa: {said}")
    page.move(2, 2)


def test_score_table(page):
    rows = page.js("""[...document.querySelectorAll("#tasks-table tbody tr")]
        .map((row) => [...row.children].map((cell) => cell.textContent))""")
    heads = page.js("""[...document.querySelectorAll("#tasks-table thead button")]
        .map((button) => button.textContent)""")
    rows = {row[0]: dict(zip(heads, row)) for row in rows}
    check(len(rows) == 5, f"the table has {list(rows)}")
    int4 = rows["halfeval-int4.json"]
    check(int4["average"] == "44.50\u00b1 2.12" and int4["piqa"] == "54.00~\u00b1 3.00", f"{int4}")
    check(int4["to baseline"] == "\u221215.50" and int4["% of original"] == "7.03", f"{int4}")
    check(int4["items of each"] == "200" and int4["rules"] == "reference", f"{int4}")
    check(rows["baseeval.json"]["to baseline"] == "baseline", f"{rows['baseeval.json']}")
    hostile = "<img src=x onerror=document.title=1>"
    html = rows["halfeval-html.json"]
    check(html["rules"] == hostile and html["to baseline"] == "not comparable", f"{html}")
    check("half, eval-html.json: not comparable: rules <img" in
          page.js("document.querySelector('#evaluations .notes').textContent"), "no reason")
    check(page.js("document.querySelector('img') === null && document.title !== '1'"),
          "a text became HTML")
    cut = page.js("document.querySelector('#longbench-table tbody').textContent")
    check("qasper" not in cut and "7" in cut, f"LongBench: {cut}")


def test_score_curves(page):
    dots = page.js("document.querySelectorAll('#scores .dot').length")
    check(dots == 4, f"{dots} scores while training")
    area = box(page, "scores")
    page.move(area["x"] + area["width"] * 0.97, area["y"] + area["height"] * 0.2)
    said = tip(page, "scores")
    check(said["run"] == "half" and said["score"] == "52.00" and said["step"] == "60 of 60",
          f"the last score: {said}")
    page.move(2, 2)


def test_score_look(page):
    color = "getComputedStyle(document.querySelector('#tasks [data-scheme=channel]')).color"
    light = page.js(color)
    page.media(prefers_color_scheme="dark")
    check((light, page.js(color)) == ("rgb(31, 95, 191)", "rgb(138, 180, 248)"),
          f"{light} and {page.js(color)}")
    page.media()
    for width in (700, 320):
        page.size(width, 800, mobile=width < 500)
        wide = page.js("document.documentElement.scrollWidth")
        check(wide <= width, f"at {width} pixels the page is {wide} wide")


def test_varied(page):
    """What is varied has a column that sorts as numbers, values in the list, colours and dashes."""
    heads = page.js("""[...document.querySelectorAll("#table thead button")]
        .map((button) => button.textContent)""")
    check("lr" in heads and "RoPE" in heads, f"the table has {heads}")
    page.js(f"document.querySelectorAll('#table thead button')[{heads.index('lr')}].click()")
    rows = page.js("""[...document.querySelectorAll("#table tbody tr")]
        .map((row) => row.children[0].textContent)""")
    order = [rows.index(f"high-{lr}") for lr in ("5.0e-4", "1.0e-3", "2.0e-3")]
    check(order == sorted(order), f"by learning rate: {rows}")
    listed = page.js("document.querySelector('#runs').textContent")
    check("rope low, lr 2.0e-3" in listed, f"the list says {listed}")
    looks = page.js("""runs.map((run) => {
        const line = document.querySelector(`#loss [data-run='${run.index}'] .line`);
        return [run.varied_text, getComputedStyle(line).stroke,
                line.getAttribute("stroke-dasharray") ?? ""];
    })""")
    for part, place in (("rope", 1), ("lr", 2)):
        value = {text: [word for word in text.split(", ") if word.startswith(part)]
                 for text, _, _ in looks[1:]}
        kinds = {str(value[look[0]]): look[place] for look in looks[1:]}
        check(all(kinds[str(value[look[0]])] == look[place] for look in looks[1:]),
              f"one {part} looks different: {looks}")
        check(len(set(kinds.values())) == len(kinds), f"two {part} look alike: {looks}")
    check(looks[0][1] == "rgb(27, 16, 68)", f"the baseline is {looks[0]}")
    notes = page.js("document.querySelector('#notes').textContent")
    check("Colours stand for rope, dashes for lr." in notes, f"the notes say {notes}")


def check_quiet(page):
    check(not page.complaints(), f"the page complains: {page.complaints()}")
    others = [url for url in page.requests() if not url.startswith(("file:", "data:", "about:"))]
    check(not others, f"the page asks for {others}")


with Page(binary, f"file://{os.path.abspath(folder)}/report.html", 1280, 900) as page:
    for test in (test_pointing, test_nearest, test_zoom, test_keyboard, test_hiding, test_table,
                 test_look):
        test(page)
    check_quiet(page)
with Page(binary, f"file://{os.path.abspath(folder_of_sets)}/report.html", 1280, 900) as page:
    test_sets(page)
    found = scored(folder_of_sets)
    test_scores(page, found)
    test_scores_by_keyboard(page, found)
    test_score_table(page)
    test_score_curves(page)
    test_score_look(page)
    check_quiet(page)
with Page(binary, f"file://{os.path.abspath(folder_of_varied)}/report.html", 1280, 900) as page:
    test_varied(page)
    check_quiet(page)
