#!/usr/bin/env bash
# Builds mha2mla, converts the small demo model to multi-head latent attention at three cache sizes,
# heals each on two ranks, fine-tunes the unconverted model the same way, and compares the four
# in a report, whose path is the last line. Installs missing packages first (Debian, Ubuntu). Can be
# run again: it replaces its old results.
#
#     ./quickstart.sh
set -euo pipefail
exec </dev/null
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. tests/setup.sh

MHA2MLA=build/release/mha2mla
SHARDS=runs/demo/shards
REPORT=runs/demo/report
started=$SECONDS

setup_packages
setup_build release mha2mla
setup_mpi

setup_say "Turning the demo's stories into token shards"
rm -rf "$SHARDS"
mkdir -p "$SHARDS"
for part in train valid; do
    "$MHA2MLA" tokenize --tokenizer configs/demo/model --separator '<|endoftext|>' \
        --out "$SHARDS/$part.h5" "configs/demo/$part.txt.gz"
done

# train_one NAME OVERRIDE: one run of configs/demo.yaml into runs/NAME.
train_one() {
    rm -rf "runs/$1"
    "${SETUP_MPIRUN[@]}" "$MHA2MLA" train configs/demo.yaml "--run.name=$1" "$2" ||
        setup_fail "the run $1 failed (see above)"
}

setup_say "Fine-tuning the unconverted model: the baseline"
train_one demo-baseline --model.convert=none
for d_kv in 16 8 4; do
    setup_say "Converting to latent attention with d_kv $d_kv and healing"
    train_one "demo-dkv$d_kv" "--model.convert.d_kv=$d_kv"
done

setup_say "The four runs compared"
"$MHA2MLA" compare runs/demo-baseline runs/demo-dkv16 runs/demo-dkv8 runs/demo-dkv4 \
    --out "$REPORT" || setup_fail "the comparison failed (see above)"

setup_say "Done in $((SECONDS - started)) s"
cat <<'EOF'
The healed models are Hugging Face directories:
    runs/demo-dkv16/model   runs/demo-dkv8/model   runs/demo-dkv4/model
Beside each lie the resolved config (config.yaml) and the measurements (metrics.jsonl).

To try next:
    build/release/mha2mla inspect runs/demo-dkv4/model
    build/release/mha2mla eval runs/demo-dkv4/model --seq-len 256 \
        --perplexity runs/demo/shards/valid.h5
    more healing: add --train.steps=300 to a train command (configs/demo.yaml shows them)
    a model of your own: README.md, "Convert a model of your own"

The curves and numbers of the four, to open in a browser:
EOF
echo "$PWD/$REPORT/report.html"
