#!/usr/bin/env bash
# Step time of two ranks against the rate of the network between them, with and without
# train.overlap, beside what it could be, in float32 and, where the CPU has it, in bfloat16. Each rank
# has a network namespace of its own, joined by a virtual cable whose ends send no faster than the
# rate (tc tbf). Needs root, iproute2, Open MPI.
#
#     sudo bench/bench_network.sh build/release/mha2mla [STEPS [RATE...]]
#     sudo bench/bench_network.sh build/release/mha2mla 8 100mbit 300mbit 1gbit unlimited
#     sudo env SHAPE=smollm-135m ROUNDS=1 bench/bench_network.sh build/release/mha2mla 6 10gbit
#
# Each figure is the least of STEPS steps in each of ROUNDS (3) rounds, the ways in alternation, so
# that what else the machine does counts little. SHAPE is small, 8 layers of multi-head attention and
# SEQUENCES (4) of 256 tokens on each rank, or smollm-135m, MLA of d_kv 16 and SEQUENCES (1) of 2048.
# COMPUTES names the types of products that are measured.
#
#     measured   rate of an all-gather of 16 MiB, in Mbit/s, as `plan` measures it
#     messages   numbers of gradients, and of parameters: train.reduce_dtype, train.compute
#     busy       of a step: forward, backward, update
#     transfer   of a step at that rate: half the gradients and half the parameters each way
#     best       the larger of busy and transfer
#     blocking   the step without overlap
#     overlap    the step
#     exposed    share of the step with overlap that is spent waiting for the other rank
set -euo pipefail
if [ -z "${BENCH_NETWORK_INSIDE:-}" ]; then
    [ "$(id -u)" -eq 0 ] || { echo "bench_network.sh needs root for network namespaces" >&2; exit 77; }
    BENCH_NETWORK_INSIDE=1 exec unshare --net --uts --ipc --mount --pid --fork --kill-child \
        --mount-proc bash "$0" "$@"
fi
mha2mla=$(realpath "$1")
root=$(cd -- "$(dirname -- "$0")/.." && pwd)
steps=${2:-8}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- 100mbit 300mbit 1gbit unlimited
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# This namespace is host h1; h2 is one that a sleeping process holds. Both find each other by name.
hostname h1
printf '127.0.0.1 localhost\n10.99.0.1 h1\n10.99.0.2 h2\n' >hosts
mount --bind hosts /etc/hosts
unshare --net --uts --ipc --mount sh -c \
    'hostname h2; mount -t tmpfs tmpfs /dev/shm; echo $$ >h2.pid; exec sleep infinity' &
until [ -s h2.pid ]; do sleep 0.02; done
h2=$(cat h2.pid)
in_h2() { nsenter -t "$h2" --net --uts "$@"; }
ip link add cable type veth peer name cable netns "$h2"
ip addr add 10.99.0.1/24 dev cable
in_h2 ip addr add 10.99.0.2/24 dev cable
for device in lo cable; do ip link set $device up && in_h2 ip link set $device up; done
cat >agent <<EOF
#!/bin/sh
shift
exec nsenter -t $h2 --net --uts --ipc --mount sh -c "\$*"
EOF
chmod +x agent
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_plm=rsh \
    OMPI_MCA_ras=^slurm OMPI_MCA_plm_rsh_agent="$work/agent" OMPI_MCA_btl=tcp,self \
    OMPI_MCA_btl_tcp_if_include=10.99.0.0/24 OMPI_MCA_oob_tcp_if_include=10.99.0.0/24 \
    OMPI_MCA_hwloc_base_binding_policy=none OMP_NUM_THREADS=1

# limit RATE: of both ends.
limit() {
    tc qdisc del dev cable root 2>/dev/null || true
    in_h2 tc qdisc del dev cable root 2>/dev/null || true
    [ "$1" != unlimited ] || return 0
    tc qdisc add dev cable root tbf rate "$1" burst 256kb latency 300ms
    in_h2 tc qdisc add dev cable root tbf rate "$1" burst 256kb latency 300ms
}

zcat "$root/configs/demo/train.txt.gz" >train.txt
"$mha2mla" tokenize --tokenizer "$root/configs/demo/model" --separator '<|endoftext|>' \
    --out train.h5 train.txt >/dev/null
case ${SHAPE:=small} in
small)
    T=256 sequences=${SEQUENCES:-4} convert=none
    shape="{hidden_size: 256, intermediate_size: 768, num_hidden_layers: 8, num_attention_heads: 8,
            num_key_value_heads: 4, vocab_size: 1024, max_position_embeddings: 256}"
    ;;
smollm-135m)
    T=2048 sequences=${SEQUENCES:-1} convert='{rope: high, rope_pairs: 4, d_kv: 16}'
    shape="{hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30, num_attention_heads: 9,
            num_key_value_heads: 3, vocab_size: 49152, max_position_embeddings: 2048}"
    ;;
*)
    echo "bench_network.sh: SHAPE is '$SHAPE', allowed are small and smollm-135m" >&2
    exit 2
    ;;
esac
cat >config.yaml <<EOF
run: {dir: runs}
model:
  init: $shape
  convert: $convert
data:
  seq_len: $T
  sources: [{name: stories, shards: [train.h5]}]
train: {steps: $steps, global_batch: $((2 * sequences)), micro_batch: $sequences}
checkpoint: {every: 0}
EOF

# train NAME ARGUMENTS...
train() {
    local name=$1
    shift
    mpirun -H h1,h2 "$mha2mla" train config.yaml --run.name="$name" "$@" >log 2>&1 ||
        { cat log >&2; exit 1; }
}

# least NAME RUN...: of the runs' values of a number. step_s RUN...: the least time between the ends
# of two steps, and what of it was spent waiting.
least() {
    local name=$1 run
    shift
    for run in "$@"; do
        sed -nE "s/.*\"$name\":([^,}]*).*/\1/p" "runs/$run/metrics.jsonl" | tail -n +3
    done | sort -g | head -n 1
}
step_s() {
    local run
    for run in "$@"; do
        awk -F'[:,}]' '{
            end = exposed = 0
            for (i = 1; i < NF; i++) {
                if ($i == "\"elapsed_s\"") end = $(i + 1)
                if ($i == "\"reduce_s\"" || $i == "\"gather_s\"") exposed += $(i + 1)
            }
            if (NR > 2) print end - before, exposed
            before = end }' "runs/$run/metrics.jsonl"
    done | sort -g | head -n 1
}

# plan_rate: what this network does for messages, in Mbit/s.
plan_rate() {
    mpirun -H h1,h2 "$mha2mla" plan config.yaml --gflops 1 --memory-bandwidth 1 --latency 1 2>/dev/null |
        awk '$1 == "messages" && !n++ { print 8000 * $2 }'
}

if [ -z "${COMPUTES:=}" ]; then
    COMPUTES=float32
    ! "$mha2mla" train config.yaml --train.compute=bfloat16 --dry-run >log 2>&1 || COMPUTES+=' bfloat16'
fi
rounds=$(seq ${ROUNDS:-3})
runs_of() { printf "$1-%s " $rounds; }
for rate in "$@"; do
    limit "$rate"
    plan_rate >"$rate.measured"
    for round in $rounds; do
        for compute in $COMPUTES; do
            train "$rate-$compute-off-$round" --train.compute=$compute --train.overlap=false
            for reduce in float32 bfloat16; do
                train "$rate-$compute-$reduce-$round" --train.compute=$compute \
                    --train.reduce_dtype=$reduce
            done
        done
    done
done
parameters=$(sed -nE 's/.*"parameters": ([0-9]+).*/\1/p' "$(ls runs/*/run.json | head -n 1)")
echo "$parameters parameters, $((2 * sequences * T)) tokens per step on 2 ranks; seconds"
printf '%-10s %9s %-19s %8s %8s %8s %8s %8s %9s\n' rate measured messages busy transfer best \
    blocking overlap exposed

# row RATE COMPUTE REDUCE: of the table. Without overlap gradients were sent as float32.
row() {
    local off busy blocking=-
    off=$(runs_of "$1-$2-off")
    busy=$(echo "$(least forward_s $off) $(least backward_s $off) $(least update_s $off)" |
        awk '{ print $1 + $2 + $3 }')
    [ "$3" = bfloat16 ] || blocking=$(step_s $off | awk '{ printf "%.3f", $1 }')
    echo "$1 $2 $3 $(cat "$1.measured") $parameters $busy $blocking $(step_s $(runs_of "$1-$2-$3"))" |
        awk '{
            bytes = ($2 == "bfloat16" ? 2 : 4) + ($3 == "bfloat16" ? 2 : 4)
            transfer = bytes / 2 * $5 * 8 / ($4 * 1e6)
            printf "%-10s %9.0f %-19s %8.3f %8.3f %8.3f %8s %8.3f %7.1f %%\n", $1, $4, $3 ", " $2,
                $6, transfer, ($6 > transfer ? $6 : transfer), $7, $8, 100 * $9 / $8 }'
}
for rate in "$@"; do
    for compute in $COMPUTES; do
        for reduce in float32 bfloat16; do
            row "$rate" "$compute" "$reduce"
        done
    done
done
