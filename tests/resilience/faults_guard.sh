#!/usr/bin/env bash
# The guards of a run: ranks that stop answering are named and the job ends; a loss that is not finite
# ends the run before the update, with its samples named; updates with a spike of the gradient are
# skipped.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/background_runs.sh"

make_shard train 1200
cat >config.yaml <<EOC
run: {name: whole, dir: runs}
model:
  init: {hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 6,
         num_key_value_heads: 2, head_dim: 16, vocab_size: 1024, max_position_embeddings: 64,
         initializer_range: 0.05, tie_word_embeddings: false, tokenizer: $root/configs/demo/model}
data:
  seq_len: 64
  sources: [{name: stories, shards: [train.h5]}]
optim: {lr: 3.0e-3, warmup_steps: 2}
train: {steps: 60, global_batch: 6, micro_batch: 1}
checkpoint: {every: 10, keep: 9}
log: {every: 1}
EOC
host=$(hostname)
N_RANKS=3
finishes whole

# ---- A rank that stops answering ----

# names_silent RANKS SENTENCE...: after SIGSTOP to these ranks the run must end with these sentences,
# and can be resumed.
names_silent() {
    local ranks=$1 rank sentence
    shift
    rm -rf runs/silent
    start_held 12 silent --run.stall_minutes=0.2
    for rank in $ranks; do signal_rank STOP "$rank"; done
    release
    ends_with 1
    [ "$(grep -c '^mha2mla: error: ' silent.log)" -eq 1 ] || die "not one error: $(cat silent.log)"
    for sentence in 'stalled for 0.2 min in ' ' of step ' "$@"; do
        grep '^mha2mla: error: ' silent.log | grep -qF -- "$sentence" ||
            die "$ranks stopped, no '$sentence': $(grep error: silent.log)"
    done
    leaves_nobody
}
# The others wait for it, not always in the same place: one may not need data of it yet.
names_silent 1 "rank 1 on $host is silent since 20" ' wait'
names_silent '0 2' "rank 0 on $host is silent since 20" "; rank 2 on $host is silent since 20" \
    '; rank 1 waits; '
[ -e runs/silent/ranks ] || die "the ranks' files are gone"
saved=$(newest)
finishes silent
says "resuming runs/silent from step $saved," || die "silent: $(cat silent.log)"
same_run silent whole
[ ! -e runs/silent/ranks ] || die "a good run left $(ls runs/silent/ranks)"

# The others wait for a rank that is only slow for a while.
start_held 12 slow --run.stall_minutes=1
signal_rank STOP 2
release
sleep 3
signal_rank CONT 2
ends_with 0
same_run slow whole
[ ! -e runs/slow/ranks ] || die "a good run left $(ls runs/slow/ranks)"

N_RANKS=2

# ---- A step whose gradient is a spike ----

# skipped RUN: the steps that were skipped. The same rule, computed again from the norms in
# metrics.jsonl.
skipped() {
    grep '"skipped":true' "runs/$1/metrics.jsonl" | grep -oE '"step":[0-9]+' | cut -d: -f2
}
expected_skips() {
    field grad_norm "runs/$1/metrics.jsonl" | awk -v factor="$2" -v window="$3" '
        n >= window && $1 > factor * mean { print NR; next }
        { n++; mean += ($1 - mean) / (n < window ? n : window) }'
}
skip='--train.skip_spikes=1.5 --train.spike_window=8'
finishes skips $skip
skipped skips >got
expected_skips skips 1.5 8 >expected
[ -s expected ] || die "no spike in $(field grad_norm runs/skips/metrics.jsonl)"
cmp got expected || die "skipped $(cat got), expected $(cat expected)"
says "$(wc -l <got) of 60 steps skipped" || die "skips: $(tail -n 4 skips.log)"
N_RANKS=1 finishes skips-alone $skip
same_run skips-alone skips
start_held $(($(head -n 1 got) + 11)) skips-killed $skip # a checkpoint after the first that is skipped
signal_rank KILL 1
ends_with 137
finishes skips-killed $skip
same_run skips-killed skips
skipped skips-killed | cmp - got || die "skipped other steps after a resume"

# ---- A loss that is no number ----

# One token, which occurs in one document only, has an embedding so large that its square overflows,
# as in a damaged file.
command -v python3 >/dev/null || {
    echo "not tested without python3: a loss that is no number"
    exit 0
}
zcat "$root/configs/demo/train.txt.gz" | sed -n 1,240p | sed '141s/a/\xc3\xa9/g' >rare.txt
"$mha2mla" tokenize --tokenizer "$root/configs/demo/model" --separator '<|endoftext|>' \
    --out rare.h5 rare.txt >/dev/null
cp -r runs/whole/model planted
python3 - "$root/configs/demo/model/tokenizer.json" planted/model.safetensors <<'EOP'
import json, struct, sys

token = json.load(open(sys.argv[1]))["model"]["vocab"]["\u00c3"]  # the first byte of an e with accent
with open(sys.argv[2], "r+b") as f:
    (size,) = struct.unpack("<Q", f.read(8))
    tensor = json.loads(f.read(size))["model.embed_tokens.weight"]
    width = tensor["shape"][1]
    f.seek(8 + size + tensor["data_offsets"][0] + token * width * 4)
    f.write(struct.pack("<%df" % width, *[1e19] * width))
EOP
planted='--model.init=none --model.base=planted --checkpoint.every=1 --optim.lr=1.0e-3'
sources='--data.sources=[{name: stories, shards: [rare.h5]}]'
start planted $planted "$sources"
ends_with 1
grep '^mha2mla: error: ' planted.log >error
[ "$(wc -l <error)" -eq 1 ] || die "not one error: $(cat planted.log)"
grep -qE 'step [0-9]+: loss is nan in samples [0-9]+ to [0-9]+ on rank [01] \(first: stories epoch ' error ||
    die "planted: $(cat error)"
step=$(grep -oE 'step [0-9]+:' error | head -n 1 | grep -oE '[0-9]+')
sample=$(grep -oE 'samples [0-9]+' error | grep -oE '[0-9]+')
rank=$(grep -oE 'on rank [0-9]+' error | grep -oE '[0-9]+')
python3 - "runs/planted/nonfinite-step-$step.json" "$step" "$sample" "$rank" <<'EOP' || die "nonfinite-step-$step.json"
import json, sys

trace = json.load(open(sys.argv[1]))
step, sample, rank = map(int, sys.argv[2:])
bad = [m for m in trace["micro_batches"] if not m["finite"]]
assert trace["step"] == step and len(trace["micro_batches"]) == 6, trace
assert [m["samples"][0] for m in trace["micro_batches"]] == [6 * (step - 1) + i for i in range(6)]
assert bad and bad[0]["samples"] == [sample, sample] and bad[0]["rank"] == rank, bad
assert bad[0]["loss"] == "nan", bad
assert all(0 < m["loss"] < 20 and m["grad_norm"] > 0 for m in trace["micro_batches"] if m["finite"])
EOP
[ "$(field step runs/planted/metrics.jsonl | tail -n 1)" -eq $((step - 1)) ] || die "wrote step $step"
! grep -qiE 'nan|inf' runs/planted/metrics.jsonl || die "no number in metrics.jsonl"
# The same run on one rank ends at the same step.
N_RANKS=1 start planted-alone $planted "$sources"
ends_with 1
grep -q "step $step: loss is nan in samples $sample to $sample on rank 0" planted-alone.log ||
    die "on one rank: $(grep error: planted-alone.log)"
