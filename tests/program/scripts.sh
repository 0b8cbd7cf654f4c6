#!/usr/bin/env bash
# The scripts that users start, with stand-ins for cmake, mpirun, srun and the program, which note
# how they are called: in a folder with a space in its name, from another folder, without stdin.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree="$work/a tree"
calls="$work/calls"

fail() {
    echo "program_scripts: $*" >&2
    [ ! -f "$work/out" ] || cat "$work/out" >&2
    exit 1
}

# expect_calls NAME: what was called is, line by line, what stdin says.
expect_calls() {
    diff -u - "$calls" >&2 || fail "$1: called something else (expected -, seen +)"
}

make_tree() {
    mkdir -p "$tree/tests" "$tree/configs" "$work/bin"
    cp "$root/quickstart.sh" "$root/test.sh" "$tree/"
    cp "$root/tests/setup.sh" "$tree/tests/"
    cp -r "$root/slurm" "$tree/"
    cp "$root/configs/demo.yaml" "$tree/configs/"
    cat >"$work/program" <<'END'
#!/bin/bash
echo "mha2mla $*" >>"$CALLS"
case $1 in
tokenize) : >"$7" ;;
sweep | compare) mkdir -p "${*: -1}" ;;
generate)
    echo " a pot by the gate"
    echo "mha2mla: KV cache: bfloat16, 240 bytes per token, nominal 1 KiB" >&2
    ;;
train) for word in "$@"; do case $word in --run.name=*) mkdir "runs/${word#*=}" ;; esac; done ;;
esac
END
    cat >"$work/bin/cmake" <<'END'
#!/bin/bash
[ "$1" = --build ] || exit 0
mkdir -p "build/$3" && cp "$PROGRAM" "build/$3/mha2mla"
END
    cat >"$work/bin/ctest" <<'END'
#!/bin/bash
[ -e /proc/self/fd/0 ] || echo "ctest without stdin" >>"$CALLS"
echo "ctest $1 $2" >>"$CALLS"
echo " 1/3 Test  #1: test_base ....................   Passed    0.01 sec"
echo " 2/3 Test  #2: test_mla .....................***Skipped   0.01 sec"
[ "$2" != "${FAILING:-}" ] ||
    { echo " 3/3 Test #30: test_mha .....................***Timeout 300.00 sec"; exit 8; }
echo " 3/3 Test #30: test_mha .....................   Passed    0.01 sec"
END
    cat >"$work/bin/mpirun" <<'END'
#!/bin/bash
[ -e /proc/self/fd/0 ] || echo "mpirun without stdin" >>"$CALLS"
echo "threads $OMP_NUM_THREADS, mpirun ${*:1:5}" >>"$CALLS"
while [ "$1" != build/release/mha2mla ]; do shift; done
exec "$@"
END
    cat >"$work/bin/srun" <<'END'
#!/bin/bash
echo "srun $*" >>"$CALLS"
END
    cat >"$work/bin/nproc" <<'END'
#!/bin/bash
echo "${CORES:-2}"
END
    cat >"$work/bin/lscpu" <<'END'
#!/bin/bash
printf '# Core,Socket\n0,0\n0,0\n1,0\n'
END
    chmod +x "$work/program" "$work/bin/"*
    export PATH="$work/bin:$PATH" CALLS="$calls" PROGRAM="$work/program"
}

# Runs with a closed stdin, from the folder /.
quickstart() {
    : >"$calls"
    (cd / && MHA2MLA_SKIP_INSTALL=1 "$tree/quickstart.sh" <&- >"$work/out" 2>&1)
}

test_quickstart_sweeps_and_compares() {
    quickstart || fail "quickstart.sh failed"
    expect_calls quickstart.sh <<'END'
mha2mla tokenize --tokenizer configs/demo/model --separator <|endoftext|> --out runs/demo/shards/train.h5 configs/demo/train.txt.gz
mha2mla tokenize --tokenizer configs/demo/model --separator <|endoftext|> --out runs/demo/shards/valid.h5 configs/demo/valid.txt.gz
threads 1, mpirun -n 2 --bind-to none build/release/mha2mla
mha2mla sweep configs/demo.yaml --d-kv 16,8,4 --baseline --out runs/demo/sweep
threads 1, mpirun -n 2 --bind-to none build/release/mha2mla
mha2mla train configs/demo-shared.yaml
mha2mla compare runs/demo-baseline runs/demo-dkv16 runs/demo-dkv8 runs/demo-dkv4 runs/demo-shared --out runs/demo/report
mha2mla generate runs/demo-baseline/model --prompt Dad gave Otto a tiny seed. Otto put it in -n 32 --stop .
mha2mla generate runs/demo-dkv16/model --prompt Dad gave Otto a tiny seed. Otto put it in -n 32 --stop .
mha2mla generate runs/demo-dkv8/model --prompt Dad gave Otto a tiny seed. Otto put it in -n 32 --stop .
mha2mla generate runs/demo-dkv4/model --prompt Dad gave Otto a tiny seed. Otto put it in -n 32 --stop .
mha2mla generate runs/demo-shared/model --prompt Dad gave Otto a tiny seed. Otto put it in -n 32 --stop .
END
    grep -qF 'dkv4       240 bytes: Dad gave Otto a tiny seed. Otto put it in a pot by the gate.' \
        "$work/out" || fail "no sentence of the model with d_kv 4"
    [ "$(tail -n 1 "$work/out")" = "$tree/runs/demo/report/report.html" ] ||
        fail "its last line is not the report: $(tail -n 1 "$work/out")"
}

test_quickstart_replaces_its_runs() {
    mkdir -p "$tree/runs/demo-dkv8"
    echo old >"$tree/runs/demo-dkv8/old"
    quickstart || fail "the second quickstart.sh failed"
    [ ! -e "$tree/runs/demo-dkv8/old" ] || fail "the old run's files are still there"
}

test_quickstart_oversubscribes_a_single_core() {
    CORES=1 quickstart || fail "quickstart.sh failed with one core"
    [ "$(grep -c 'mpirun -n 2 --bind-to none --oversubscribe' "$calls")" -eq 2 ] ||
        fail "mpirun was not told to oversubscribe"
}

test_quickstart_stops_at_a_failed_run() {
    printf '#!/bin/bash\nexit 1\n' >"$work/bin/mpirun.failing"
    chmod +x "$work/bin/mpirun.failing"
    mv "$work/bin/mpirun" "$work/bin/mpirun.good"
    mv "$work/bin/mpirun.failing" "$work/bin/mpirun"
    if quickstart; then fail "quickstart.sh went on after a failed run"; fi
    grep -q 'the sweep failed' "$work/out" || fail "what failed is not said"
    if grep -q compare "$calls"; then fail "it compared although a run failed"; fi
    mv "$work/bin/mpirun.good" "$work/bin/mpirun"
}

test_setup_names_the_packages_where_it_cannot_install() {
    local status=0 command
    mkdir -p "$work/few"
    for command in bash dirname; do ln -sf "$(command -v "$command")" "$work/few/$command"; done
    (cd / && PATH="$work/few" "$(command -v bash)" "$tree/quickstart.sh" >"$work/out" 2>&1) ||
        status=$?
    [ "$status" -eq 1 ] || fail "exit status $status without dpkg, expected 1"
    grep -q 'no Debian-like system.*libopenmpi-dev.*MHA2MLA_SKIP_INSTALL=1' "$work/out" ||
        fail "the packages are not named"
}

# A system where cmake is the one package missing and the user is not root.
test_setup_installs_only_what_is_missing() {
    local bin="$work/plain" name
    mkdir -p "$bin"
    for name in id dpkg-query sudo apt-get; do printf '#!/bin/bash\n' >"$bin/$name"; done
    echo 'echo 1000' >>"$bin/id"
    cat >>"$bin/dpkg-query" <<'END'
[ "${*: -1}" = cmake ] && echo "un " || echo "ii "
END
    cat >>"$bin/sudo" <<'END'
echo "sudo $*" >>"$CALLS"
END
    chmod +x "$bin/"*
    : >"$calls"
    (cd "$tree" && PATH="$bin:$PATH" bash -c '. tests/setup.sh && setup_packages') \
        >"$work/out" 2>&1 || fail "setup_packages failed"
    grep -q 'apt-get .*install -y --no-install-recommends cmake$' "$calls" ||
        fail "cmake was not installed through sudo: $(cat "$calls")"
    grep -q 'needs root): cmake$' "$work/out" || fail "it does not say what it installs"
}

test_tests_go_on_after_a_failed_preset_and_fail_in_the_end() {
    local status=0
    : >"$calls"
    (cd / && FAILING=ci MHA2MLA_SKIP_INSTALL=1 "$tree/test.sh" <&- >"$work/out" 2>&1) || status=$?
    [ "$status" -eq 1 ] || fail "test.sh: exit status $status after failed tests, expected 1"
    expect_calls test.sh <<'END'
ctest --preset ci
ctest --preset asan
ctest --preset tsan
END
    grep -qE '^ci +[0-9]+ +[0-9]+ +1 +1 +1$' "$work/out" || fail "no row of the failed preset"
    grep -qE '^tsan +[0-9]+ +[0-9]+ +2 +0 +1$' "$work/out" || fail "no row of the last preset"
    [ "$(tail -n 1 "$work/out")" = '5 passed, 1 failed, 3 skipped' ] || fail "other sums at the end"
    grep -q '^test.sh: tests failed in: ci ' "$work/out" || fail "the failed preset is not named"
}

# sweep TASK: the words srun is given in that task of the array.
sweep() {
    : >"$calls"
    (cd "$tree" && SLURM_ARRAY_TASK_ID=$1 SLURM_CPUS_PER_TASK=4 \
        bash slurm/sweep.sbatch configs/demo.yaml 16 8 --optim.lr=1e-4 >"$work/out" 2>&1)
}

test_each_task_of_a_sweep_says_which_run_it_is() {
    sweep 2 || fail "sweep.sbatch failed for task 2"
    expect_calls "sweep.sbatch, task 2" <<'END'
srun --mpi=pmix --kill-on-bad-exit=0 --wait=60 build/release/mha2mla sweep configs/demo.yaml --d-kv=16,8 --baseline --optim.lr=1e-4 --task=2
END
}

test_train_and_compare_jobs_pass_their_words_on() {
    mkdir -p "$tree/runs/demo-dkv16"
    : >"$calls"
    (cd "$tree" && bash slurm/train.sbatch configs/demo.yaml --run.name="my run" &&
        bash slurm/compare.sbatch runs/demo-dkv16) >"$work/out" 2>&1 || fail "a job script failed"
    expect_calls "train.sbatch and compare.sbatch" <<'END'
srun --mpi=pmix --kill-on-bad-exit=0 --wait=60 build/release/mha2mla train configs/demo.yaml --run.name=my run
srun --mpi=pmix --ntasks=1 build/release/mha2mla compare runs/demo-dkv16
END
}

make_tree
test_quickstart_sweeps_and_compares
test_quickstart_replaces_its_runs
test_quickstart_oversubscribes_a_single_core
test_quickstart_stops_at_a_failed_run
test_setup_names_the_packages_where_it_cannot_install
test_setup_installs_only_what_is_missing
test_tests_go_on_after_a_failed_preset_and_fail_in_the_end
test_each_task_of_a_sweep_says_which_run_it_is
test_train_and_compare_jobs_pass_their_words_on
