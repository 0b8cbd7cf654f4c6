#!/usr/bin/env bash
# The benchmarks of the step, so that they do not rot: that they run, on ranks too, that their
# figures fit together, and what the scripts make of them. How fast anything is, is not tested.
set -euo pipefail
# shellcheck source=tests/support/checks.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../support/checks.sh" "$1"
bench=$(dirname -- "$mha2mla")/bench/bench_step
mha2mla=$bench # what `refuses` and its like run
small=(smollm-135m 16 mla)

# expect_status STATUS GOT TEXT: how a script ended, and that it said TEXT.
expect_status() {
    [ "$2" -eq "$1" ] || die "status $2, expected $1: $(cat out)"
    grep -qF -- "$3" out || die "said '$(cat out)', expected '$3'"
}

test_step_on_two_ranks() {
    mpirun -n 2 --oversubscribe --bind-to none "$bench" --row row "${small[@]}" 2 1 >out 2>err ||
        die "bench_step on 2 ranks: $(cat err out)"
    grep -q '^smollm-135m, 1 layer, mla, T 16, 2 ranks x 1 thread, wall clock, 2 rounds' out ||
        die "another heading: $(head -n 1 out)"
    local part
    for part in 'attention back' reduce AdamW gather 'waiting for other ranks'; do
        grep -q "^$part  *[0-9]*\.[0-9][0-9] " out || die "no row '$part': $(cat out)"
    done
    # The step is at least its parts, tokens/s, with one decimal, are those of both ranks.
    awk -F '|' '{ forward = $6; passes = $7; sum = $7 + $8 + $9 + $10; step = $11
        rate = 32 / step
        if (!(forward > 0 && passes > 0 && sum <= step + 0.003)) bad = 1
        off = $12 > rate ? $12 - rate : rate - $12
        if (!(off < 0.1 * rate + 0.051 && $13 > 0 && $14 > 0 && $15 > 0.4)) bad = 1 }
        END { exit bad || NR != 1 }' row || die "its figures do not fit together: $(cat row)"
}

test_step_alone_takes_cpu_time() {
    "$bench" "${small[@]}" 1 1 >out || die "bench_step: $(cat out)"
    grep -q '1 rank x 1 thread, CPU time, 1 round$' out || die "another heading: $(head -n 1 out)"
    if grep -qE '^(reduce|gather|waiting)' out; then die "one rank exchanges: $(cat out)"; fi
}

# In bfloat16 there is a second rate, where the CPU has instructions for it; else that is said.
test_step_in_bfloat16() {
    "$bench" --compute bfloat16 "${small[@]}" 1 1 >out || die "bench_step: $(cat out)"
    if ! grep -qwE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then
        grep -q 'this CPU has neither AVX512-BF16 nor AMX-BF16; .* is not measured here' out ||
            die "does not say that it cannot: $(cat out)"
        LAYOUTS=1x1 COMPUTE=bfloat16 "$root/bench/bench_all.sh" "$bench" >out 2>&1 ||
            die "bench_all.sh: $(cat out)"
        return
    fi
    grep -qE '; products: in bfloat16 by (AMX|AVX512-BF16)$' out || die "another heading: $(cat out)"
    awk '/^part / { columns = $(NF - 1) == "of" && $NF == "bf16" }
        /^head \+ loss/ { parts = $(NF - 1) > 0 && $NF > 0 }
        /^step / { step = / of sgemm, [0-9.]+ of bf16$/ }
        /^sgemm / { rates = /bf16 [0-9.]+ GFLOP/ }
        END { exit !(columns && parts && step && rates) }' out || die "no second rate: $(cat out)"
    mpirun -n 2 --oversubscribe --bind-to none "$bench" --compute bfloat16 "${small[@]}" 1 1 >out 2>err ||
        die "bench_step on 2 ranks: $(cat err out)"
    if grep -qw avx512_bf16 /proc/cpuinfo; then
        "$bench" --compute bfloat16 --kernels avx512-bf16 "${small[@]}" 1 1 >out ||
            die "bench_step: $(cat out)"
        grep -q '; products: in bfloat16 by AVX512-BF16$' out || die "other kernels: $(head -n 2 out)"
    fi
}

test_step_refuses_what_it_cannot_run() {
    refuses 2 "0 words where 4 or 5 belong; usage: bench_step"
    refuses 2 "unknown shape 'gpt-2'; there are smollm-135m," gpt-2 16 mla 1
    refuses 2 "T is '16x', allowed are 1 to 1048576" smollm-135m 16x mla 1
    refuses 2 "attention is 'gqa', allowed are mha, mla and shared" smollm-135m 16 gqa 1
    refuses 2 "ROUNDS is '0', allowed are 1 to 99" smollm-135m 16 mla 0
    refuses 2 "LAYERS is '-1', allowed are 1 to 128" smollm-135m 16 mla 1 -1
    refuses 2 "'--row' is no option or lacks its value" --row
    refuses 2 "--compute is 'half', allowed are float32 and bfloat16" --compute half "${small[@]}" 1
    refuses 2 "--kernels is 'neon', allowed are amx and avx512-bf16" --kernels neon "${small[@]}" 1
    refuses 2 "--clock is 'sun', allowed are cpu and wall" --clock sun "${small[@]}" 1
    ranks_refuse 2 2 "--clock cpu is for one rank with one thread, there are 2 with 1" \
        --clock cpu "${small[@]}" 1
    refuses 1 "llama-2-7b-layer, T 1048576 needs" llama-2-7b-layer 1048576 mha 1 128
    refuses 2 "no/where: cannot be opened for rows" --row no/where "${small[@]}" 1 1
}

test_all_prints_rows_as_wide_as_their_heading() {
    SHAPES=smollm-135m ATTENTIONS=mla LENGTHS="16 1048576" LAYOUTS="1x1 2x1" ROUNDS=1 LAYERS=1 \
        TABLES=parts "$root/bench/bench_all.sh" "$bench" >rows 2>err || die "bench_all.sh: $(cat err)"
    awk -F '|' '/^\| shape/ { columns = NF }
        /^\| smollm-135m, 1 layer / { rows++; bad = bad || NF != columns }
        /left out: smollm-135m, T 1048576 needs .* GiB are available/ { left++ }
        END { exit bad || rows != 2 || left != 2 }' rows || die "another table: $(cat rows)"
    [ "$(grep -c '^AdamW ' parts)" -eq 2 ] || die "not two tables of parts: $(cat parts)"
}

test_all_refuses_a_bad_list() {
    local got=0
    LAYOUTS="2by1" "$root/bench/bench_all.sh" "$bench" >out 2>&1 || got=$?
    expect_status 1 "$got" "layout '2by1' is not RANKSxTHREADS"
    got=0
    SHAPES=gpt-2 "$root/bench/bench_all.sh" "$bench" >out 2>&1 || got=$?
    expect_status 1 "$got" "unknown shape 'gpt-2'"
}

# Programs that print what the real ones do: 100 tokens/s per core here; there 40 eager and 50
# compiled, 100 on both cores with one thread each, and no compiled one on two ranks.
make_stand_ins() {
    mkdir -p bin
    cat >bin/bench_step <<'END'
#!/bin/bash
cores=$((${RANKS:-1} * OMP_NUM_THREADS))
echo "step  0.1 s  $((100 * cores)).0 tokens/s  9.9 GFLOP/s"
echo "sgemm 99.0 GFLOP/s, peak $cores.25 GiB on all ranks, 1.00 on the largest"
END
    cat >bin/mpirun <<'END'
#!/bin/bash
export RANKS=$2
while [ "${1##*/}" != bench_step ]; do shift; done
exec "$@"
END
    cat >bin/python3 <<'END'
#!/bin/bash
case "$*" in
*__version__*) echo 9.9 ;;
-c*) ;;
*--choose-adamw*) echo "fused 0.1 s, foreach 0.2 s: fused" ;;
*distributed*--compile*) echo "RuntimeError: no such thing" >&2; exit 1 ;;
*distributed*) echo "torch: step 1 s, 100.0 tokens/s, peak 4.50 GiB" ;;
*--compile*) echo "torch: step 1 s, $((50 * OMP_NUM_THREADS)).0 tokens/s, peak 3.00 GiB" ;;
*) echo "torch: step 1 s, $((40 * OMP_NUM_THREADS)).0 tokens/s, peak 2.00 GiB" ;;
esac
END
    chmod +x bin/*
}

test_peer_run_compares_the_best_of_both() {
    make_stand_ins
    PATH="$work/bin:$PATH" CXX=true LAYOUTS="1x1 2x1 1x2" "$root/bench/bench_step.sh" \
        "$work/bin/bench_step" smollm-135m 512 mla 2 >out 2>err || die "bench_step.sh: $(cat err out)"
    sed -n '/^| mha2mla/,$p' out | diff -u - <(cat <<'END'
| mha2mla | 1x1 | 100.0 | 1.25 | 1.00 |
| mha2mla | 1x2 | 200.0 | 2.25 | 1.00 |
| mha2mla | 2x1 | 200.0 | 2.25 | 1.00 |
| torch-compiled | 1x1 | 50.0 | 3.00 | 2.00 |
| torch-compiled | 1x2 | 100.0 | 3.00 | 2.00 |
| torch-eager | 1x1 | 40.0 | 2.00 | 2.50 |
| torch-eager | 1x2 | 80.0 | 2.00 | 2.50 |
| torch-eager | 2x1 | 100.0 | 4.50 | 2.00 |
best, mha2mla 1x2: 200.0 tokens/s, peak 2.25 GiB
best, torch-compiled 1x2: 100.0 tokens/s, peak 3.00 GiB
ratio of the best 2.00, of their peaks 0.75
END
    ) >&2 || die "bench_step.sh says something else (seen -, expected +)"
    [ "$(grep -c 'torch-compiled 2x1 is left out: RuntimeError: no such thing' out)" -eq 1 ] ||
        die "what failed is not said once: $(cat out)"
}

test_peer_run_refuses() {
    local got=0
    COMPUTE=half "$root/bench/bench_step.sh" "$bench" "${small[@]}" >out 2>&1 || got=$?
    expect_status 1 "$got" "COMPUTE is 'half', allowed are float32 and bfloat16"
    got=0
    mkdir -p without
    printf '#!/bin/bash\nexit 1\n' >without/python3
    chmod +x without/python3
    PATH="$work/without:$PATH" "$root/bench/bench_step.sh" "$bench" "${small[@]}" >out 2>&1 || got=$?
    expect_status 1 "$got" "no torch to compare with; install it with 'pip"
}

test_layouts_fill_the_cores() {
    mkdir -p eight
    printf '#!/bin/bash\necho 8\n' >eight/nproc
    printf '#!/bin/bash\n' >eight/lscpu
    chmod +x eight/*
    # shellcheck disable=SC2016
    PATH="$work/eight:$PATH" bash -c '. "$1" && layouts_all' - "$root/bench/layouts.sh" |
        diff -u - <(printf '%s\n' 1x1 8x1 4x2 2x4 1x8) >&2 || die "other layouts of 8 cores"
}

test_step_on_two_ranks
test_step_alone_takes_cpu_time
test_step_in_bfloat16
test_step_refuses_what_it_cannot_run
test_all_prints_rows_as_wide_as_their_heading
test_all_refuses_a_bad_list
test_peer_run_compares_the_best_of_both
test_peer_run_refuses
test_layouts_fill_the_cores
