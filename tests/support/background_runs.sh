# What the tests of faults share; sourced after checks.sh. Runs in the background that can be
# watched, stopped and killed, one rank at a time; every wait has an end.
N_RANKS=2

# start NAME ARGUMENTS...: a run of config.yaml on N_RANKS ranks, in the background; its output is
# in NAME.log. The limit is for a hang, on any machine.
start() {
    local name=$1
    shift
    run_dir=runs/$name log=$name.log
    : >"$log" # now, not when the shell in the background gets to it: an earlier life has steps, too
    timeout -k 10 300 mpirun -n "$N_RANKS" --oversubscribe --bind-to none env "${shim[@]}" \
        "$mha2mla" train config.yaml --run.name="$name" "$@" >"$log" 2>&1 </dev/null &
    job=$!
}
shim=()

make_fault_shim() {
    [ -e "$work/fault_shim.so" ] || "${CC:-cc}" -shared -fPIC -O1 -o "$work/fault_shim.so" \
        "$root/tests/support/fault_shim.c" -ldl
}

# start_holding STEPS NAME ARGUMENTS...: `start`, where rank 0 waits in each of these steps ('7' or
# '7|9'), before it adds the step's line to metrics.jsonl: until `release`, or until it gets a signal
# that it handles. So what a test does to a run hits it where it is meant to, however slow the machine
# is.
start_holding() {
    local steps=$1
    shift
    make_fault_shim
    rm -f gate held
    shim=(LD_PRELOAD="$work/fault_shim.so" TORTURE_FAULT=WAIT TORTURE_RANK=0 TORTURE_AT=1
        TORTURE_COUNT=9 TORTURE_UNDER=/metrics.jsonl TORTURE_FIRED="$work/held"
        TORTURE_GATE="$work/gate" TORTURE_TEXT="\"step\":($steps),"$'[^\n]*"loss"[^\n]*\n$')
    start "$@"
    shim=()
}

# start_held STEPS NAME ARGUMENTS...: the same; returns when rank 0 waits in the first of them.
start_held() {
    start_holding "$@"
    until_held
}

until_held() {
    until_true test -s held || die "$run_dir: does not get there: $(tail -n 5 "$log")"
}

release() {
    rm -f held
    : >gate
}

# ends_with STATUS: of the run that was started.
ends_with() {
    local got=0
    wait "$job" || got=$?
    [ "$got" -eq "$1" ] || die "$run_dir: status $got, expected $1: $(tail -n 5 "$log")"
}

# finishes NAME ARGUMENTS...: starts a run, which must end well.
finishes() {
    start "$@"
    ends_with 0
}

# until_true COMMAND...: looks every 10 ms, while the run is there, and once more when it has ended.
until_true() {
    while ! "$@" 2>/dev/null; do
        kill -0 "$job" 2>/dev/null || {
            "$@" 2>/dev/null
            return
        }
        sleep 0.01
    done
}

# Steps are counted in the lines of this life of the run: configs have log.every 1.
has_steps() {
    [ "$(grep -cE 'mha2mla: step [0-9]+/' "$log")" -ge "$1" ]
}

says() {
    grep -qF -- "$1" "$log"
}

until_step() {
    until_true has_steps "$1" || die "$run_dir: not $1 steps: $(tail -n 5 "$log")"
}

until_it_says() {
    until_true says "$1" || die "$run_dir: does not say '$1': $(tail -n 5 "$log")"
}

# ranks_of_job: "RANK PID" of each rank that runs.
ranks_of_job() {
    local pid
    for pid in $(pgrep -P "$(pgrep -P "$job" | head -n 1)" -f "$(basename "$mha2mla")"); do
        printf '%s %s\n' "$(tr '\0' '\n' <"/proc/$pid/environ" |
            sed -n 's/^OMPI_COMM_WORLD_RANK=//p')" "$pid"
    done 2>/dev/null
}

# signal_rank SIGNAL RANK: to the process of that rank; signal_ranks SIGNAL: to all of them.
signal_rank() {
    kill -"$1" "$(ranks_of_job | awk -v r="$2" '$1 == r { print $2 }')" 2>/dev/null
}

signal_ranks() {
    kill -"$1" $(ranks_of_job | cut -d' ' -f2) 2>/dev/null
}

# processes_of_run: of this test's, as other tests may have runs of the same name.
processes_of_run() {
    local pid
    for pid in $(pgrep -f -- "train config.yaml --run.name=${run_dir#runs/}( |\$)"); do
        [ "$(readlink "/proc/$pid/cwd")" != "$work" ] || echo "$pid"
    done
}

# leaves_nobody: no process of the run that has ended is left. A killed one takes a moment to go.
leaves_nobody() {
    local i
    for i in $(seq 600); do
        [ -n "$(processes_of_run)" ] || return 0
        sleep 0.1
    done
    die "$run_dir: processes are left: $(ps -o pid,args -p "$(processes_of_run | xargs)")"
}

# newest: the step of the run's newest checkpoint that has a manifest.
newest() {
    local manifest
    manifest=$(ls "$run_dir"/checkpoints/step-*/manifest.json 2>/dev/null | tail -n 1)
    [ -n "$manifest" ] || return 1
    manifest=${manifest%/*}
    echo $((10#${manifest##*step-}))
}

# same_run A B: the runs' curves and models have the same bits.
same_run() {
    local what
    for what in step loss grad_norm valid_loss; do
        field "$what" "runs/$1/metrics.jsonl" >"$1.$what" || true # none: no validation
        field "$what" "runs/$2/metrics.jsonl" >"$2.$what" || true
        cmp -s "$1.$what" "$2.$what" ||
            die "runs/$1 has another $what than runs/$2: $(diff "$1.$what" "$2.$what" | head -n 5)"
    done
    [ -s "$2.loss" ] || die "runs/$2 has no steps"
    cmp "runs/$1/model/model.safetensors" "runs/$2/model/model.safetensors" ||
        die "runs/$1 has another model than runs/$2"
}
