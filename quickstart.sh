#!/usr/bin/env bash
# Builds mha2mla, converts the small demo model to multi-head latent attention by the paper's method
# at three cache sizes and by the closed form with distillation at the smallest of them, heals each
# on two ranks, fine-tunes the unconverted model the same way as the baseline, and compares the five
# in a report and by a sentence of each. The last line that it prints is the report's path. It
# installs missing packages first (Debian, Ubuntu). It can be run again and replaces its old results.
# docs/demo.md explains the numbers.
#
#     ./quickstart.sh
set -euo pipefail
exec </dev/null
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. tests/setup.sh

MHA2MLA=build/release/mha2mla
SHARDS=runs/demo/shards
SWEEP=runs/demo/sweep # the paper's conversions: configs and a report
REPORT=runs/demo/report
started=$SECONDS

setup_packages
setup_build release mha2mla
setup_mpi

setup_say "Tokenizing the text of the demo"
rm -rf "$SHARDS"
mkdir -p "$SHARDS"
for part in train valid; do
    "$MHA2MLA" tokenize --tokenizer configs/demo/model --separator '<|endoftext|>' \
        --out "$SHARDS/$part.h5" "configs/demo/$part.txt.gz"
done

setup_say "Fine-tuning the unconverted model; converting it with d_kv 16, 8 and 4; healing each"
rm -rf runs/demo-{baseline,dkv16,dkv8,dkv4,shared} "$SWEEP" "$REPORT"
"${SETUP_MPIRUN[@]}" "$MHA2MLA" sweep configs/demo.yaml --d-kv 16,8,4 --baseline --out "$SWEEP" ||
    setup_fail "the sweep failed (see above)"

setup_say "The cache of d_kv 4 again: closed form, distilled, healed by the original's distribution"
"${SETUP_MPIRUN[@]}" "$MHA2MLA" train configs/demo-shared.yaml ||
    setup_fail "the run failed (see above)"

setup_say "All five side by side"
"$MHA2MLA" compare runs/demo-{baseline,dkv16,dkv8,dkv4,shared} --out "$REPORT" ||
    setup_fail "the comparison failed (see above)"

setup_say "What each goes on to write (greedy decoding), and what a token takes in its KV cache"
prompt='Dad gave Otto a tiny seed. Otto put it in'
for name in baseline dkv16 dkv8 dkv4 shared; do
    text=$("$MHA2MLA" generate "runs/demo-$name/model" --prompt "$prompt" -n 32 --stop . 2>"$REPORT/generate.log") ||
        setup_fail "generate failed: $(tail -n 1 "$REPORT/generate.log")"
    bytes=$(sed -n 's/.*KV cache: .*, \([0-9]*\) bytes per token.*/\1/p' "$REPORT/generate.log")
    printf '%-8s %5s bytes: %s\n' "$name" "$bytes" "$prompt$text."
done
rm -f "$REPORT/generate.log"

setup_say "Done in $((SECONDS - started)) s"
cat <<'EOF'
The healed models are Hugging Face directories:
    runs/demo-dkv16/model   runs/demo-dkv8/model   runs/demo-dkv4/model   runs/demo-shared/model
Beside each are its config (config.yaml) and its measurements (metrics.jsonl).

To try next:
    build/release/mha2mla inspect runs/demo-shared/model
    build/release/mha2mla generate runs/demo-dkv4/model --prompt 'After lunch' --temperature 0.8
    build/release/mha2mla eval runs/demo-dkv4/model --perplexity runs/demo/shards/valid.h5
    build/release/mha2mla train configs/demo.yaml --train.steps=300 --run.name=demo-longer
What the numbers mean: docs/demo.md. How to convert a model of your own: docs/own-model.md.

The report with the curves and numbers of the five, to open in a browser:
EOF
echo "$PWD/$REPORT/report.html"
