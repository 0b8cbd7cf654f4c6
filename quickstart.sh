#!/usr/bin/env bash
# Builds mha2mla, converts the small demo model to multi-head latent attention at three cache sizes,
# heals each on two ranks, fine-tunes the unconverted model the same way as the baseline, and
# compares the four in a report and by a sentence of each. The last line that it prints is the
# report's path. It installs
# missing packages first (Debian, Ubuntu). It can be run again and replaces its old results.
# docs/demo.md explains the numbers.
#
#     ./quickstart.sh
set -euo pipefail
exec </dev/null
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. tests/setup.sh

MHA2MLA=build/release/mha2mla
SHARDS=runs/demo/shards
SWEEP=runs/demo/sweep # configs, and the report at its end
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
rm -rf runs/demo-baseline runs/demo-dkv16 runs/demo-dkv8 runs/demo-dkv4 "$SWEEP"
"${SETUP_MPIRUN[@]}" "$MHA2MLA" sweep configs/demo.yaml --d-kv 16,8,4 --baseline --out "$SWEEP" ||
    setup_fail "the sweep failed (see above)"

setup_say "What each goes on to write (greedy decoding), and what a token takes in its KV cache"
prompt='Dad gave Otto a tiny seed. Otto put it in'
for name in baseline dkv16 dkv8 dkv4; do
    text=$("$MHA2MLA" generate "runs/demo-$name/model" --prompt "$prompt" -n 32 --stop . 2>"$SWEEP/generate.log") ||
        setup_fail "generate failed: $(tail -n 1 "$SWEEP/generate.log")"
    bytes=$(sed -n 's/.*KV cache: .*, \([0-9]*\) bytes per token.*/\1/p' "$SWEEP/generate.log")
    printf '%-8s %5s bytes: %s\n' "$name" "$bytes" "$prompt$text."
done
rm -f "$SWEEP/generate.log"

setup_say "Done in $((SECONDS - started)) s"
cat <<'EOF'
The healed models are Hugging Face directories:
    runs/demo-dkv16/model   runs/demo-dkv8/model   runs/demo-dkv4/model
Beside each are its config (config.yaml) and its measurements (metrics.jsonl).

To try next:
    build/release/mha2mla inspect runs/demo-dkv4/model
    build/release/mha2mla generate runs/demo-dkv4/model --prompt 'After lunch' --temperature 0.8
    build/release/mha2mla eval runs/demo-dkv4/model --perplexity runs/demo/shards/valid.h5
    build/release/mha2mla train configs/demo.yaml --train.steps=300 --run.name=demo-longer
What the numbers mean: docs/demo.md. How to convert a model of your own: docs/own-model.md.

The report with the curves and numbers of the four, to open in a browser:
EOF
echo "$PWD/$SWEEP/report.html"
