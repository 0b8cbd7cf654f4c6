# Sourced by bench_all.sh and bench_step.sh: layouts "RxT" of R ranks with T threads each that fill
# this machine's cores, and how a program is started in one.
#
#     . bench/layouts.sh
#     for layout in $(layouts_all); do layouts_run "$layout" build/release/bench/bench_step ...; done
# shellcheck shell=bash
# shellcheck source=tests/setup.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../tests/setup.sh"

# One rank with one thread, then all cores: as ranks, as 2, 4, 8 ... threads of fewer ranks, as the
# threads of one rank.
layouts_all() {
    local cores threads
    cores=$(setup_cores)
    echo 1x1
    for ((threads = 1; threads < cores; threads *= 2)); do
        [ $((cores % threads)) -ne 0 ] || echo "$((cores / threads))x$threads"
    done
    [ "$cores" -eq 1 ] || echo "1x$cores"
}

# layouts_check LAYOUT...: says which is no layout.
layouts_check() {
    local layout
    [ $# -gt 0 ] || setup_fail "LAYOUTS is empty; give them as in LAYOUTS='1x1 2x1'"
    for layout in "$@"; do
        [[ $layout =~ ^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$ ]] ||
            setup_fail "layout '$layout' is not RANKSxTHREADS; give them as in LAYOUTS='1x1 2x1'"
    done
}

# layouts_clock LAYOUT...: what all of them can be timed by. Only one thread alone has CPU time that
# says how long it takes.
layouts_clock() {
    if [ "$*" = 1x1 ]; then echo cpu; else echo wall; fi
}

# layouts_run LAYOUT COMMAND...: on several ranks under mpirun.
layouts_run() (
    ranks=${1%x*} threads=${1#*x}
    shift
    setup_mpi
    unset OPENBLAS_NUM_THREADS # has the threads of OpenMP
    export OMP_NUM_THREADS=$threads
    [ "$ranks" -gt 1 ] || exec "$@"
    oversubscribe=()
    [ "$ranks" -le "$(setup_cores)" ] || oversubscribe=(--oversubscribe)
    exec mpirun -n "$ranks" --bind-to none "${oversubscribe[@]}" "$@"
)
