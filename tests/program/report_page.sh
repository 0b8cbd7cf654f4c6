#!/usr/bin/env bash
# The page of compare --out in a browser: what the mouse and the keyboard show is what the curves
# have. Skipped without gnuplot, Chromium or Python.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/written_runs.sh"
export PYTHONDONTWRITEBYTECODE=1

chromium=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
for tool in "$chromium" gnuplot python3; do
    command -v "${tool:-chromium}" >/dev/null || {
        echo "skipped: ${tool:-chromium} is missing"
        exit 77
    }
done
write_run base base original 640 60 60 0.6
write_run mla mla mla 80 60 60 0.64
write_run half half mla 160 60 30 0.62
"$mha2mla" compare base mla half --out report >/dev/null 2>&1 || die "compare --out failed"
# Whether the browser can start at all on this machine is no question of the page.
timeout 600 "$chromium" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
    --user-data-dir="$work/profile" --dump-dom about:blank >dom 2>/dev/null </dev/null || {
    echo "skipped: $chromium does not start here"
    exit 77
}
write_run half half mla 160 60 60 0.62
sed -i -E 's/("step":[012]0,.*"valid_loss":[^}]*)/\1,"validation_set":"aa"/
    s/("step":[3-6]0,.*"valid_loss":[^}]*)/\1,"validation_set":"bb"/' half/metrics.jsonl
# Evaluations: two schemes and two rule sets, texts that would be HTML, and scores while training.
hostile='<img src=x onerror=document.title=1>'
write_eval base/eval.json tasks reference plain 16 1280 'piqa 0.7 0.03 200,arc_easy 0.5 0.03 200'
write_eval half/eval.json tasks reference plain 16 320 'piqa 0.65 0.03 200,arc_easy 0.4 0.03 200'
write_eval half/eval-int4.json tasks reference channel 4 90 'piqa 0.54 0.03 200,arc_easy 0.35 0.03 200'
write_eval half/eval-int2.json tasks reference channel 2 50 'piqa 0.5 0.03 200,arc_easy 0.27 0.03 200'
write_eval half/eval-html.json tasks "$hostile" "$hostile" 4 90 "$(tr ' ' / <<<"$hostile") 0.4 0.03 200"
write_eval base/eval-long.json longbench reference plain 16 1280 'longbench_qasper 0.09 0.01 12' ', "n_cut": 7'
write_eval half/eval-long.json longbench reference hqq 4 90 'longbench_qasper 0.06 0.01 12' ', "n_cut": 7'
for step in 0 20 40 60; do
    printf '{"step":%d,"tokens":%d,"tasks":{"piqa":0.%d,"average":0.%d}}\n' $step $((step * 1000)) \
        $((50 + step / 5)) $((40 + step / 5)) >>half/tasks
done
sort -t: -sn -k2 half/metrics.jsonl half/tasks >sorted # by step, each step's scores last
mv sorted half/metrics.jsonl
"$mha2mla" compare base half --out sets >/dev/null 2>&1 || die "compare --out failed"
# Converted runs of one size with other strategies and rates.
for lr in 1.0e-3 2.0e-3 5.0e-4; do
    for rope in high low; do
        write_run "$rope-$lr" "$rope-$lr" mla 80 60 60 0.65 \
            "\"config\": {\"optim.lr\": \"$lr\"}, \"config_changes\": [],"
        sed -i "s/\"rope\": \"2-norm\"/\"rope\": \"$rope\"/" "$rope-$lr/run.json"
    done
done
"$mha2mla" compare base high-* low-* --out varied >/dev/null 2>&1 || die "compare --out failed"
timeout 1200 python3 "$root/tests/support/report_page.py" "$chromium" report sets varied || die "report_page.py: $?"
