#!/usr/bin/env bash
# What `plan` prints: the memory that --dry-run prints, times from given rates, what to change where
# a run does not fit, and rates that are measured on the ranks it is started on.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1

cat >config.yaml <<EOC
run: {name: planned, dir: runs}
model:
  init: {hidden_size: 64, intermediate_size: 128, num_hidden_layers: 4, num_attention_heads: 4,
         num_key_value_heads: 2, vocab_size: 1024, max_position_embeddings: 256}
data:
  seq_len: 256
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], every: 5, sequences: 16}
train: {steps: 20, global_batch: 64, micro_batch: 8}
EOC
rates="--gflops 100 --memory-bandwidth 5 --bandwidth 1 --latency 50"

# says WORDS...: each is in the plan.
says() {
    local words
    for words in "$@"; do
        grep -qF -- "$words" plan || die "plan does not say '$words': $(cat plan)"
    done
}

"$mha2mla" plan config.yaml --ranks 4 $rates --efficiency 0.5 --optim.lr=1e-3 >plan
says 'ranks        4, 1 threads each' 'GFLOP/s, given; the model' 'reach 50 % of it' \
    'messages        1.00 GB/s and 50 us each, given' 'fit          yes: a rank needs' \
    'a reduce-scatter of all gradients in float32' 'they overlap forward and backward' \
    'strong scaling: 64 sequences per step'
"$mha2mla" train config.yaml --dry-run >dry
grep 'activations' dry | grep -qFf - plan || die "other activations: $(cat dry plan)"
[ ! -e runs ] || die "plan made a run directory"

# The table: up to one sequence per rank, with the micro-batches that allows.
awk '$1 == "ranks" && $2 == "micro" { on = 1; next }
    $1 == "weak" { on = 0 }
    on && $1 $2 ~ /^[0-9]+$/ { print $1, $2 }' plan >table
printf '%s\n' '1 8' '2 8' '4 8' '8 8' '16 4' '32 2' '64 1' | diff - table ||
    die "other rows: $(cat plan)"
says '128 ranks and more need a train.global_batch above 64'
sed -n '/^weak scaling: 16 sequences per rank and step$/,/^assumed/p' plan |
    awk '$1 $2 ~ /^[0-9]+$/ { print $1, $2 }' >table
for ((n = 1; n <= 1024; n *= 2)); do echo "$n $((16 * n))"; done | diff - table ||
    die "other rows of weak scaling: $(cat plan)"

# Exposed communication: all of it, or what does not overlap with forward and backward.
exposed() { sed -n 's/.*messages \([^,]*\), exposed \(.*\)$/\1 \2/p' plan; }
[ "$(exposed | wc -w)" -eq 4 ] || die "no messages in: $(cat plan)"
[ "$(exposed | awk '{ print $1 == $3 }')" = 0 ] || die "nothing is hidden: $(cat plan)"
blocking="plan config.yaml --ranks 4 $rates --efficiency 0.5 --train.overlap=false"
"$mha2mla" $blocking --ranks-per-host 1 >plan
[ "$(exposed | awk '{ print $1 == $3 }')" = 1 ] || die "something is hidden: $(cat plan)"
says 'communication dominates from 32 ranks on' 'nothing overlaps (train.overlap)'
! grep -q 'shared by' plan || die "ranks of a host each share: $(cat plan)"

# All ranks of a host share the parameters by default: less memory, fewer messages.
messages() { sed -n 's/.*, messages \([0-9.]*\) ms, exposed.*/\1/p' plan; }
alone=$(messages)
"$mha2mla" $blocking --ranks-per-host 2 >plan
says 'parameters (shared by 2 ranks)' 'communication dominates from 64 ranks on'
two=$(messages)
"$mha2mla" $blocking >plan
says 'parameters (shared by 4 ranks)'
echo "$alone $two $(messages)" | awk '{ exit !($1 > $2 && $2 > $3 && $3 > 0) }' ||
    die "messages of $alone, $two and $(messages) ms"

# Seconds of a step's messages, which are many here.
messages_s() {
    sed -n 's/.*, messages \([0-9:.]*\)\( s\)\{0,1\}, exposed.*/\1/p' plan |
        awk -F: '{ for (i = 1; i <= NF; i++) s = 60 * s + $i; print s }'
}

# A measured step replaces the efficiency: twice the seconds, half the share.
"$mha2mla" plan config.yaml --ranks 4 $rates --step-seconds 1 >plan
says 'of it (--step-seconds)' 'in 1.0 s: products'
refuses 2 '--step-seconds is 1e-09, but sums' plan config.yaml $rates --step-seconds 1e-9

# Twice the rate of sgemm halves what products take, and nothing else.
products() { sed -n 's/.*: products \([0-9.]*\) m\{0,1\}s, memory \([^,]*\), messages.*/\1 \2/p' plan; }
"$mha2mla" plan config.yaml --ranks 4 $rates --efficiency 0.5 >plan
before=$(products)
"$mha2mla" plan config.yaml --ranks 4 $rates --gflops 200 --efficiency 0.5 >plan
printf '%s\n%s\n' "$before" "$(products)" |
    awk 'NR == 1 { s = $1; m = $2 } NR == 2 { e = s / $1 - 2; exit !(e < 0.02 && e > -0.02 && m == $2) }' ||
    die "products '$before' became '$(products)'"

# Products in bfloat16: a plan for machines that have them, made on any. Parameters are sent in half
# the bytes: of two rounds of gradients and the parameters a sixth less.
network="--bandwidth 0.00001 --latency 0.001 --memory-bandwidth 5 --ranks-per-host 1 --train.overlap=false"
"$mha2mla" plan config.yaml --ranks 4 $network --gflops 100 >plan
says 'in float32 per step, between the copies' '  sgemm          100.0 GFLOP/s, given'
before=$(messages_s)
"$mha2mla" plan config.yaml --ranks 4 $network --train.compute=bfloat16 --gflops-bf16 2500 >plan
says '  bfloat16      2500.0 GFLOP/s, given' 'in bfloat16 per step, between the copies' 'products     in bfloat16 '
echo "$before $(messages_s)" | awk '{ e = 6 * $2 / $1 / 5 - 1; exit !(e < 0.02 && e > -0.02) }' ||
    die "messages of $before s became $(messages_s) s"
"$mha2mla" plan config.yaml --ranks 4 $network --train.compute=bfloat16 --emulate >plan
says 'products     in bfloat16 emulated' 'GFLOP/s, measured'
refuses 2 'plan: --gflops is a rate of float32, train.compute is bfloat16; give --gflops-bf16' \
    plan config.yaml --train.compute=bfloat16 --gflops 100
refuses 2 'train.compute is float32; add --train.compute=bfloat16' plan config.yaml --gflops-bf16 9
refuses 2 'plan: --gflops-bf16 is for a plan --serve with --compute bfloat16' \
    plan config.yaml --serve --gflops-bf16 9
refuses 2 'plan: --compute is for a plan with --serve' plan config.yaml --compute bfloat16

# A run that does not fit: the plan suggests one that would.
"$mha2mla" plan config.yaml $rates --memory 0.05 >plan
says 'fit          no: a rank needs' '(--memory)' '--train.micro_batch=' ': it fits'
micro=$(sed -n 's/.*--train.micro_batch=\([0-9]*\) needs.*/\1/p' plan)
"$mha2mla" plan config.yaml $rates --memory 0.05 --train.micro_batch="$micro" >plan
says 'fit          yes'
"$mha2mla" plan config.yaml $rates --memory 0.001 >plan
says 'fit          no' 'take a shorter data.seq_len'

# Measured under mpirun, on as many ranks as it is started on.
ranks 2 plan config.yaml
mv out plan
says 'ranks        2, ' 'GFLOP/s, measured' 'us each, measured' 'measured on 2 ranks at once'
[ "$(grep -c '^run  ' plan)" -eq 2 ] || die "more than one rank printed: $(cat plan)"
"$mha2mla" plan config.yaml >plan
says 'assumed: give --bandwidth and --latency, or start under mpirun'

# Serving: the table has the original and the widths of latents, each in every width of the cache.
rates="--gflops 100 --memory-bandwidth 20 --threads 2"
"$mha2mla" plan --serve config.yaml --batch 4 --memory 1 $rates --run.export_dtype=bfloat16 >plan
says 'load         4 sequences of 256 tokens, 2 threads' 'memory       1 GiB (--memory)' \
    'reading 20.0 GB/s, given; sgemm 100.0 GFLOP/s, given, of which products reach 70 %' \
    'original *   float32         1024 ' 'd_kv 8       float32          320 '
[ "$(grep -cE ' (reading|products)$' plan)" -eq 24 ] || die "other rows: $(cat plan)"
# 4 layers, 2 KV heads, 16 + 16 numbers of 2 bytes, 4 sequences of 256.
grep -qE '^ +bfloat16 +512 +[0-9.]+ +0\.5 ' plan || die "another cache: $(cat plan)"
"$mha2mla" plan --serve config.yaml --model.convert='{rope: high, rope_pairs: 1, svd: joint, d_kv: 6}' \
    $rates --batch 100 --memory 0.0001 >plan
says 'd_kv 6 *     float32          256 ' 'none' 'd_kv 8 ' 'd_kv 2 '
# Products in bfloat16: weights of 2 bytes, rates of both formats, of another machine or emulated.
"$mha2mla" plan --serve config.yaml --batch 4 $rates --compute bfloat16 --gflops-bf16 800 >plan
says 'parameters in BF16' \
    'products in bfloat16 800.0 GFLOP/s, given; sgemm, for absorbed attention, 100.0 GFLOP/s, given'
"$mha2mla" plan --serve config.yaml --memory-bandwidth 20 --compute bfloat16 --emulate >plan
grep -qE 'products in bfloat16 [0-9.]+ GFLOP/s, measured; sgemm, .*, measured, of which' plan ||
    die "no rates: $(cat plan)"
mkdir -p runs
refuses 2 'plan: --context is for a plan with --serve' plan config.yaml --context 8
refuses 2 'plan: --ranks is for a plan without --serve' plan config.yaml --serve --ranks 2
refuses 2 'plan: --batch is 0, allowed are 1 to' plan config.yaml --serve --batch 0
refuses 2 '--context is 257, more than max_position_embeddings 256 of config.yaml' \
    plan config.yaml --serve --context 257
refuses 2 'none.yaml' plan --serve none.yaml
refuses 2 'runs: not a Hugging Face model, config.json is missing' plan --serve runs

refuses 2 "plan needs one CONFIG, got 0" plan
refuses 2 "plan: --gflops is '4x', which is not a number" plan config.yaml --gflops 4x
refuses 2 "plan: --efficiency is 1.5, allowed is more than 0, at most 1" \
    plan config.yaml --efficiency 1.5
refuses 2 "plan: --memory is 0, allowed is more than 0" plan config.yaml --memory 0
refuses 2 "plan: --gflops is 'nan', which is not a number" plan config.yaml --gflops nan
refuses 2 "gives 8 micro-batches for 9 ranks" plan config.yaml --ranks 9
refuses 2 "unknown key train.stepz" plan config.yaml --train.stepz=3
