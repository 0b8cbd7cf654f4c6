#!/usr/bin/env bash
# train.trainable: frozen tensors keep their bits, are in no moment, and leave a run what it is: the
# same bits on any number of ranks, uninterrupted or resumed.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/run_states.sh"

start_small_runs
attention="$mla --train.trainable=attention"

ranks 1 $attention --run.name=n1
for n in 2 3 5; do
    ranks $n $attention --run.name=n$n
    same_states n$n n1
done
ranks 3 $attention --run.name=blocking --train.overlap=false --train.ranks_per_copy=1
same_states blocking n1
ranks 2 $attention --run.name=reused --train.sum_groups=4 --train.recompute=layer
ranks 1 $attention --run.name=reused-n1 --train.sum_groups=4
same_states reused reused-n1
ranks 1 $mla --run.name=all
[ "$(state all 7)" != "$(state n1 7)" ] || die 'freezing shows in no bit'

# Resumed on another number of ranks; patterns that say the same tensors are the same.
ranks 2 $attention --run.name=resumed --train.steps=4 --optim.decay_start=4
ranks 3 $mla --run.name=resumed "--train.trainable='*.self_attn.*'" --resume=require
[ "$(state resumed 7)" = "$(state n1 7)" ] || die 'resumed: another state'

# What is not trained is that of the start, and none of its moments are in the checkpoint.
inspected=$("$mha2mla" inspect runs/n1/checkpoints/step-00000007)
trained=$(sed -n 's/.*trained \([0-9]*\)$/\1/p' <<<"$inspected")
total=$(sed -n 's/^ *parameters *\([0-9]*\), trained.*/\1/p' <<<"$inspected")
bytes=$(stat -c %s runs/n1/checkpoints/step-00000007/shard-0000.h5)
floats=$((total + 2 * trained))
[ "$trained" -gt 0 ] && [ "$trained" -lt "$total" ] || die "inspect says: $inspected"
[ "$bytes" -ge $((4 * floats)) ] && [ "$bytes" -lt $((4 * floats + 16384)) ] ||
    die "a checkpoint of $bytes bytes for $floats numbers"
ranks 1 $mla --run.name=untrained --train.steps=0 --optim.decay_steps=0
# The tail of the file is the last layer's feed-forward and the final norm, 3 x 48 x 96 floats.
tail -c 50000 runs/untrained/model/model.safetensors >before
tail -c 50000 runs/n1/model/model.safetensors >after
cmp before after || die 'frozen tensors have changed'
if cmp -s runs/untrained/model/model.safetensors runs/n1/model/model.safetensors; then
    die 'nothing was trained'
fi
"$mha2mla" export runs/n1 --out exported >/dev/null
cmp exported/model.safetensors runs/n1/model/model.safetensors || die 'export differs from the run'

# The plan knows, and so do the refusals.
"$mha2mla" plan config.yaml --gflops 10 --memory-bandwidth 10 >whole
"$mha2mla" plan config.yaml --gflops 10 --memory-bandwidth 10 --train.trainable=attention >part
moments() { awk '$1 == "AdamW" { print $3 }' "$1"; }
awk "BEGIN { exit !($(moments part) < $(moments whole)) }" || die "plan: $(moments part) MiB of moments"
grep -q ', trained 0.0' part || die "plan says nothing of it: $(grep parameters part)"
refuses 2 "train.trainable: '*.mpl.*' matches no tensor of the model; write all, attention, or" \
    train config.yaml --run.name=new "--train.trainable=['*.mlp.*', '*.mpl.*']"
ranks_refuse 2 2 "made with a train.trainable that freezes model.embed_tokens.weight, the config's trains it" \
    $mla --run.name=n1 --train.steps=9
