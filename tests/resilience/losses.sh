#!/usr/bin/env bash
# train.loss beside a teacher: the same bits on any number of ranks, however the work is cut and the
# teacher held, uninterrupted or resumed; each part in metrics.jsonl; what is refused.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/run_states.sh"

start_small_runs
follow="$mla --train.loss.ce=0.5 --train.loss.kl=1 --train.loss.attention_mse=0.5
        --train.loss.temperature=2"

# Shared and own copies, overlap, recomputing, frozen tensors.
ranks 1 $follow --run.name=n1
for n in 2 3 5; do
    ranks $n $follow --run.name=n$n
    same_states n$n n1
done
ranks 2 $follow --run.name=own --train.ranks_per_copy=1 --train.overlap=false --train.recompute=layer
same_states own n1
ranks 1 $follow --run.name=some-n1 --train.trainable=attention
ranks 3 $follow --run.name=some-n3 --train.trainable=attention
same_states some-n3 some-n1
# A teacher in bfloat16 is another one, the same for every number of ranks.
ranks 1 $follow --run.name=half-n1 --train.teacher_dtype=bfloat16
ranks 3 $follow --run.name=half-n3 --train.teacher_dtype=bfloat16
ranks 2 $follow --run.name=half-own --train.teacher_dtype=bfloat16 --train.ranks_per_copy=1
same_states half-n3 half-n1
same_states half-own half-n1
[ "$(state half-n1 7)" != "$(state n1 7)" ] || die 'the dtype of the teacher shows in no bit'

# Resumed on another number of ranks.
ranks 2 $follow --run.name=resumed --train.steps=4 --optim.decay_start=4
ranks 3 $follow --run.name=resumed --resume=require
[ "$(state resumed 7)" = "$(state n1 7)" ] || die 'resumed: another state'

# The parts of the loss; without a teacher there are none, and one that is named changes nothing.
paste <(field loss runs/n1/metrics.jsonl) <(field ce runs/n1/metrics.jsonl) \
    <(field kl runs/n1/metrics.jsonl) <(field attention_mse runs/n1/metrics.jsonl) | awk '
    { d = $1 - (0.5 * $2 + $3 + 0.5 * $4); if (d > 1e-9 || d < -1e-9 || $3 <= 0 || $4 <= 0) exit 1 }
    END { if (NR != 7) exit 1 }' || die "parts of the loss: $(grep -m 2 '"kl"' runs/n1/metrics.jsonl)"
ranks 1 $mla --run.name=plain
! grep -q '"kl"' runs/plain/metrics.jsonl || die 'a run without a teacher has kl'
ranks 2 $mla --run.name=named --train.teacher=runs/start/model
same_states named plain
[ "$(state plain 7)" != "$(state n1 7)" ] || die 'the losses show in no bit'
# Weights that are all one loss twice as large give gradients twice as large, which AdamW divides by.
ranks 1 $mla --run.name=double --train.loss.ce=2 --optim.clip=0 --optim.eps=1.0e-20
ranks 1 $mla --run.name=single --optim.clip=0 --optim.eps=1.0e-20
[ "$(field valid_loss runs/double/metrics.jsonl)" = "$(field valid_loss runs/single/metrics.jsonl)" ] ||
    die 'a loss that counts twice trains something else'

# A teacher other than the original: wider, deeper or with another vocabulary or tokenizer.
ranks 2 train config.yaml --run.name=deep --train.steps=1 --optim.decay_steps=0 \
    --model.init.num_hidden_layers=3
ranks 2 $mla --run.name=other --train.loss.kl=1 --train.teacher=runs/deep/model
ranks_refuse 2 2 'has 3 layers of width 48, the trained model 2 of 48; set train.loss.attention_mse' \
    $follow --run.name=new --train.teacher=runs/deep/model
ranks 1 train config.yaml --run.name=small --train.steps=0 --optim.decay_steps=0 \
    --model.init.vocab_size=1100
ranks_refuse 2 2 'has a vocabulary of 1100 tokens, the trained model of 1024' $mla --run.name=new \
    --train.loss.kl=1 --train.teacher=runs/small/model
cp -r runs/deep/model foreign
sed -i 's/"version"/"Version"/' foreign/tokenizer.json
ranks_refuse 2 2 'foreign: has another tokenizer (sha256 ' $mla --run.name=new --train.loss.kl=1 \
    --train.teacher=foreign
refuses 2 'nowhere: not a directory with a Hugging Face model' $mla --run.name=new --train.loss.kl=1 --train.teacher=nowhere

# The config's own refusals.
refuses 2 'train.loss has no weight above 0; give ce, kl or attention_mse one' \
    train config.yaml --train.loss.ce=0
refuses 2 'train.loss.kl is -1, allowed are 0 to 1.0e+06' train config.yaml --train.loss.kl=-1
refuses 2 'train.loss.kl needs a teacher, which model.init is not; name its directory in train.teacher' \
    train config.yaml --train.loss.kl=1
refuses 2 'train.loss.temperature is 0, allowed are 0.01 to 100' train config.yaml \
    --train.loss.temperature=0
ranks 1 train config.yaml --run.name=init --train.loss.kl=1 --train.teacher=runs/start/model

# The plan has its weights, its buffers and its time.
"$mha2mla" plan config.yaml --gflops 10 --memory-bandwidth 10 >alone
! grep -q teacher alone || die "a plan without a teacher: $(grep teacher alone)"
"$mha2mla" plan config.yaml --gflops 10 --memory-bandwidth 10 --ranks 2 --train.loss.kl=1 \
    --train.teacher=runs/start/model >beside
[ "$(grep -c teacher beside)" -eq 2 ] || die "plan: $(grep teacher beside)"
flop() { sed -n 's/.*, \([0-9.e+-]*\) PFLOP$/\1/p' "$1"; }
awk "BEGIN { r = $(flop beside) / $(flop alone); exit !(r > 1.32 && r < 1.35) }" ||
    die "plan: $(flop beside) PFLOP beside a teacher, $(flop alone) alone"
