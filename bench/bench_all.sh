#!/usr/bin/env bash
# The training step of every shape, with the original attention and with MLA, at every length and in
# every layout (RANKSxTHREADS) of this machine's cores: one row each, Markdown, on stdout.
#
#     bench/bench_all.sh [BENCH_STEP] >rows.md
#     SHAPES=smollm-135m ATTENTIONS=mla LENGTHS=512 LAYOUTS='2x1 1x2' ROUNDS=5 bench/bench_all.sh
#     LAYERS=2 ROUNDS=1 bench/bench_all.sh          # a quick look, with fewer layers
#     COMPUTE=bfloat16 bench/bench_all.sh           # with products in bfloat16, where the CPU has them
#     TABLES=parts.txt bench/bench_all.sh           # keeps each step's table of parts
#
# BENCH_STEP is build/release/bench/bench_step unless given. What does not fit into the memory is
# left out, with the reason in its row. Columns: forward is forward and loss alone; fwd + bwd,
# reduce, AdamW, gather and what is too small for a column make the step; tokens/s are those of all
# ranks; sgemm is the rate of all ranks together, "of sgemm" the step's share of it, in bfloat16
# that of the program's own square products, "bf16"; peak is that of
# all ranks; ran is the share of the time that the threads had a core: rows in which other programs
# took part of it say little. With LAYOUTS=1x1 alone it is timed by CPU time, else by the wall clock.
set -euo pipefail

if [ $# -gt 1 ] || [ "${1:-}" = --help ]; then
    sed -n '2,18s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=bench/layouts.sh
. "$here/layouts.sh"
bench=${1:-$here/../build/release/bench/bench_step}
command -v "$bench" >/dev/null ||
    setup_fail "$bench is not there; build it with 'cmake --build --preset release'"
read -ra shapes <<<"${SHAPES-smollm-135m smollm-360m llama-2-7b-layer}"
read -ra attentions <<<"${ATTENTIONS-mha mla}"
read -ra lengths <<<"${LENGTHS-512 2048}"
read -ra layouts <<<"${LAYOUTS-$(layouts_all | tr '\n' ' ')}"
layouts_check "${layouts[@]}"
compute=${COMPUTE:-float32}
clock=$(layouts_clock "${layouts[@]}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# row SHAPE ATTENTION LENGTH LAYOUT: runs it; exit status 2 is wrong usage, which ends everything.
row() {
    local status=0
    : >"$work/row"
    layouts_run "$4" "$bench" --compute "$compute" --clock "$clock" --row "$work/row" "$1" "$3" "$2" "${ROUNDS:-3}" \
        ${LAYERS:+"$LAYERS"} >"$work/table" 2>"$work/log" </dev/null || status=$?
    if grep -q 'is not measured here' "$work/table"; then
        cat "$work/table"
        exit 0
    fi
    if [ "$status" -eq 0 ]; then
        cat "$work/row"
        [ -z "${TABLES:-}" ] || { cat "$work/table" && echo; } >>"$TABLES"
        return
    fi
    [ -s "$work/log" ] || cp "$work/table" "$work/log"
    local reason
    reason=$(grep -m 1 -o 'error: .*' "$work/log" || tail -n 1 "$work/log")
    [ "$status" -ne 2 ] || setup_fail "$1 $2 T $3 on $4: ${reason#error: }"
    echo "| $1 | $2 | $3 | $4 | left out: ${reason#error: } |"
}

echo "$(date '+%-d %B %Y'), $(setup_cores) cores:$(sed -n 's/^model name[^:]*://p' /proc/cpuinfo |
    head -n 1), products in $compute, rounds: ${ROUNDS:-3}, $clock time."
echo
square=sgemm
[ "$compute" != bfloat16 ] || square=bf16
echo "| shape | attention | T | ranks x threads | forward, s | fwd + bwd, s | reduce, s | AdamW, s |" \
    "gather, s | step, s | tokens/s | of $square | $square, GFLOP/s | peak, GiB | ran |"
echo "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
for shape in "${shapes[@]}"; do
    for attention in "${attentions[@]}"; do
        for length in "${lengths[@]}"; do
            for layout in "${layouts[@]}"; do
                row "$shape" "$attention" "$length" "$layout"
            done
        done
    done
done
