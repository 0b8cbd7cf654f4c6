#!/usr/bin/env bash
# The training step here and in PyTorch, in alternation: tokens/s of each in every layout, and the
# ratio of the best of each.
#
#     bench/bench_step.sh BENCH_STEP SHAPE T mha|mla [ROUNDS [LAYERS]]
#     bench/bench_step.sh build/release/bench/bench_step smollm-135m 2048 mla 3
#     LAYOUTS='1x1' MODES=eager bench/bench_step.sh build/release/bench/bench_step smollm-135m 512 mla
#     COMPUTE=bfloat16 bench/bench_step.sh build/release/bench/bench_step smollm-135m 2048 mla 3
#
# In every round each program runs once in each of LAYOUTS (RANKSxTHREADS; all that fill this
# machine unless set), PyTorch in each of MODES (eager, compiled); medians over the rounds. Several
# ranks are DistributedDataParallel over gloo there. Its AdamW is the faster of fused and foreach.
# COMPUTE is the number format of products in both, float32 unless set; PyTorch has it by autocast.
# Where the CPU has no products in bfloat16 this is said and nothing is measured. With LAYOUTS=1x1
# alone both are timed by CPU time, so that what else the machine runs counts little. Needs python3
# with torch ('pip install torch'), and g++ for the compiled mode.
set -euo pipefail

if [ $# -lt 4 ] || [ $# -gt 6 ]; then
    sed -n '2,16s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
bench=$1 shape=$2 T=$3 attention=$4 rounds=${5:-3} layers=${6:-}
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=bench/layouts.sh
. "$here/layouts.sh"
read -ra layouts <<<"${LAYOUTS-$(layouts_all | tr '\n' ' ')}"
read -ra modes <<<"${MODES-eager compiled}"
layouts_check "${layouts[@]}"
[[ $rounds =~ ^[1-9][0-9]?$ ]] || setup_fail "ROUNDS is '$rounds', allowed are 1 to 99"
compute=${COMPUTE:-float32}
case $compute in float32 | bfloat16) ;; *) setup_fail "COMPUTE is '$compute', allowed are float32 and bfloat16" ;; esac
clock=$(layouts_clock "${layouts[@]}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# peer LAYOUT ARGUMENTS...: bench_torch.py, under torchrun where it is several processes.
peer() (
    ranks=${1%x*} threads=${1#*x} launch=(python3)
    shift
    if [ "$ranks" -gt 1 ]; then
        export GLOO_SOCKET_IFNAME=${GLOO_SOCKET_IFNAME:-lo}
        launch=(python3 -m torch.distributed.run --standalone --nproc-per-node "$ranks")
    fi
    OMP_NUM_THREADS=$threads "${launch[@]}" "$here/bench_torch.py" "$shape" "$T" "$attention" "$@" \
        --dtype "$compute" ${layers:+--layers "$layers"}
)

# note WHO LAYOUT FILE: adds what one run printed to the figures: who, layout, tokens/s, GiB.
note() {
    local rate peak
    rate=$(grep -o '[0-9.]* tokens/s' "$3" | tail -n 1) || setup_fail "$1 $2 printed no tokens/s"
    peak=$(grep -o 'peak [0-9.]* GiB' "$3" | tail -n 1) || setup_fail "$1 $2 printed no peak"
    peak=${peak#peak }
    echo "round $round: $1 $2: $rate, $peak"
    echo "$1 $2 ${rate% tokens/s} ${peak% GiB}" >>"$work/figures"
}

# reason FILE: why a program failed: what it calls an error, else the last it said.
reason() {
    grep -m 1 -o 'error: .*' "$1" || grep '[^[:space:]]' "$1" | tail -n 1
}

run_ours() {
    layouts_run "$1" "$bench" --compute "$compute" --clock "$clock" "$shape" "$T" "$attention" 1 \
        ${layers:+"$layers"} >"$work/out" 2>"$work/err" </dev/null ||
        setup_fail "mha2mla on $1: $(cat "$work/err" "$work/out" >"$work/both" && reason "$work/both")"
    if grep -q 'is not measured here' "$work/out"; then
        cat "$work/out"
        exit 0
    fi
    note mha2mla "$1" "$work/out"
}

# A mode that does not work in a layout is left out of the later rounds, too.
run_theirs() {
    local option=()
    [ ! -e "$work/failed-$1-$2" ] || return 0
    [ "$1" = eager ] || option=(--compile)
    if ! peer "$2" 1 --adamw "$adamw" --clock "$clock" "${option[@]}" >"$work/out" \
        2>"$work/err" </dev/null; then
        echo "torch-$1 $2 is left out: $(reason "$work/err")"
        touch "$work/failed-$1-$2"
        return
    fi
    note "torch-$1" "$2" "$work/out"
}

# Medians over the rounds as a table, then the best of both and their ratio.
report() {
    sort -k1,2 -k3,3n "$work/figures" | awk '
        function flush() {
            if (n == 0) return
            median = n % 2 ? rates[(n + 1) / 2] : (rates[n / 2] + rates[n / 2 + 1]) / 2
            rate[who, layout] = median
            peak[who, layout] = most
            rows[++n_rows] = who SUBSEP layout
            side = who == "mha2mla" ? "ours" : "theirs"
            if (median > rate[best[side]]) best[side] = who SUBSEP layout
        }
        { if ($1 != who || $2 != layout) { flush(); n = 0; most = 0; who = $1; layout = $2 }
          rates[++n] = $3
          if ($4 > most) most = $4 }
        function named(key,  parts) {
            split(key, parts, SUBSEP)
            return parts[1] " " parts[2] ": " sprintf("%.1f tokens/s, peak %.2f GiB", rate[key], peak[key])
        }
        END {
            flush()
            print "| program | ranks x threads | tokens/s | peak, GiB | mha2mla / it |"
            print "|---|---|---|---|---|"
            for (i = 1; i <= n_rows; i++) {
                split(rows[i], parts, SUBSEP)
                printf "| %s | %s | %.1f | %.2f | %.2f |\n", parts[1], parts[2], rate[rows[i]],
                       peak[rows[i]], rate["mha2mla", parts[2]] / rate[rows[i]]
            }
            print "best, " named(best["ours"])
            if (!("theirs" in best)) exit
            print "best, " named(best["theirs"])
            printf "ratio of the best %.2f, of their peaks %.2f\n",
                   rate[best["ours"]] / rate[best["theirs"]], peak[best["ours"]] / peak[best["theirs"]]
        }'
}

python3 -c 'import torch' 2>/dev/null ||
    setup_fail "python3 has no torch to compare with; install it with 'pip install torch'"
if [[ " ${modes[*]} " == *" compiled "* ]] && ! command -v "${CXX:-g++}" >/dev/null; then
    echo "torch-compiled is left out: it needs a C++ compiler; install g++"
    modes=("${modes[@]/compiled/}")
fi
chosen=$(peer 1x1 5 --choose-adamw 2>"$work/err") ||
    setup_fail "bench_torch.py: $(reason "$work/err")"
adamw=${chosen##*: }
echo "$(date '+%-d %B %Y'), $(setup_cores) cores:$(sed -n 's/^model name[^:]*://p' /proc/cpuinfo |
    head -n 1), torch $(python3 -c 'import torch; print(torch.__version__)'), AdamW $chosen"
echo "$shape $attention T $T${layers:+, layers: $layers}, products in $compute, rounds: $rounds, $clock time"
for ((round = 1; round <= rounds; round++)); do
    for layout in "${layouts[@]}"; do
        run_ours "$layout"
        for mode in ${modes[@]+"${modes[@]}"}; do
            [ -z "$mode" ] || run_theirs "$mode" "$layout"
        done
    done
done
echo
report
