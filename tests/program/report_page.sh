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
"$mha2mla" compare base half --out sets >/dev/null 2>&1 || die "compare --out failed"
timeout 1200 python3 "$root/tests/support/report_page.py" "$chromium" report sets || die "report_page.py: $?"
