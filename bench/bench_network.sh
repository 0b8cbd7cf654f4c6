#!/usr/bin/env bash
# Step time of two ranks against the rate of the network between them, with and without
# train.overlap, beside what it could be. Each rank has a network namespace of its own, joined by a
# virtual cable whose ends send no faster than the rate (tc tbf). Needs root, iproute2, Open MPI.
#
#     sudo bench/bench_network.sh build/release/mha2mla [STEPS [RATE...]]
#     sudo bench/bench_network.sh build/release/mha2mla 8 100mbit 300mbit 1gbit unlimited
#
# Each figure is the least of STEPS steps in each of ROUNDS (3) rounds, the ways in alternation, so
# that what else the machine does counts little.
#
#     compute    of a step: forward, backward, update
#     measured   rate of an all-gather of 16 MiB, in Mbit/s, as `plan` measures it
#     transfer   of a step at that rate: half the gradients and half the parameters each way
#     best       the larger of compute and transfer
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
cat >config.yaml <<EOF
run: {dir: runs}
model:
  init: {hidden_size: 256, intermediate_size: 768, num_hidden_layers: 8, num_attention_heads: 8,
         num_key_value_heads: 4, vocab_size: 1024, max_position_embeddings: 256}
data:
  seq_len: 256
  sources: [{name: stories, shards: [train.h5]}]
train: {steps: $steps, global_batch: 8, micro_batch: 4}
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
        awk '$1 == "messages" { print 8000 * $2 }'
}

rounds=$(seq ${ROUNDS:-3})
runs_of() { printf "$1-%s " $rounds; }
for rate in "$@"; do
    limit "$rate"
    plan_rate >"$rate.measured"
    for round in $rounds; do
        train "$rate-off-$round" --train.overlap=false
        train "$rate-on-$round"
        train "$rate-bf16-$round" --train.reduce_dtype=bfloat16
    done
done
off=$(for rate in "$@"; do runs_of "$rate-off"; done)
compute=$(echo "$(least forward_s $off) $(least backward_s $off) $(least update_s $off)" |
    awk '{ print $1 + $2 + $3 }')
parameters=$(sed -nE 's/.*"parameters": ([0-9]+).*/\1/p' "runs/$1-off-1/run.json")
echo "$parameters parameters, 2048 tokens per step on 2 ranks; seconds"
printf '%-10s %9s %9s %9s %9s %9s %9s %9s %9s\n' rate measured compute transfer best blocking overlap exposed bfloat16
for rate in "$@"; do
    on=$(runs_of "$rate-on")
    echo "$rate $compute $parameters $(step_s $(runs_of "$rate-off")) $(step_s $on) \
        $(step_s $(runs_of "$rate-bf16")) $(cat "$rate.measured")" | awk '{
        transfer = 4 * $3 * 8 / ($10 * 1e6)
        best = $2 > transfer ? $2 : transfer
        printf "%-10s %9.0f %9.3f %9.3f %9.3f %9.3f %9.3f %7.1f %% %9.3f\n", $1, $10, $2, transfer,
            best, $4, $6, 100 * $7 / $6, $8 }'
done
