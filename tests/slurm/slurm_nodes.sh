#!/usr/bin/env bash
# tests/support/slurm_cluster.sh itself: it passes on exit status and stdin, and however it ends, it
# leaves no process, no network interface and no file behind.
set -euo pipefail
cluster=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../support" && pwd)/slurm_cluster.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Its processes are recognized by this variable.
export CLUSTER_UNDER_TEST=$work

fail() {
    echo "slurm_nodes: $*" >&2
    exit 1
}

# clusters_processes: the names of its processes. They are in another namespace of process ids.
clusters_processes() {
    local environment process
    grep -lszxF "CLUSTER_UNDER_TEST=$work" /proc/[0-9]*/environ | while read -r environment; do
        process=${environment%/environ}
        if [ "$(readlink "$process/ns/pid")" != "$(readlink /proc/self/ns/pid)" ]; then
            cat "$process/comm"
        fi
    done 2>/dev/null || true
}

# nothing_is_left HOW: waits up to 60 s, because killed processes take a moment to disappear.
nothing_is_left() {
    local processes
    for _ in {1..600}; do
        processes=$(clusters_processes)
        [ -n "$processes" ] || break
        sleep 0.1
    done
    [ -z "$processes" ] || fail "$1: processes are left: $(xargs <<<"$processes")"
    [ "$(ip -o link | wc -l)" -eq "$links" ] || fail "$1: a network interface is left: $(ip link)"
    [ "$(ls -A /var/lib/slurm)" = "$files" ] || fail "$1: files are left in /var/lib/slurm"
}

test_status_and_stdin_are_handed_on() {
    local status=0
    echo words | "$cluster" bash -c 'cat; exit 7' >"$work/out" || status=$?
    [ "$status" -ne 77 ] || exit 77
    [ "$status" -eq 7 ] || fail "status $status, expected 7"
    [ "$(<"$work/out")" = words ] || fail "stdin did not arrive: $(<"$work/out")"
    nothing_is_left 'at its end'
}

# test_it_is_ended_by SIGNAL: while a job runs on both nodes.
test_it_is_ended_by() {
    local id
    rm -f "$work/runs"
    "$cluster" srun --nodes=2 --ntasks=2 bash -c "echo \$HOSTNAME >>'$work/runs'; sleep 600" \
        2>/dev/null &
    id=$!
    for _ in {1..3000}; do
        [ "$(wc -l 2>/dev/null <"$work/runs")" = 2 ] && break
        sleep 0.1
    done
    [ "$(sort "$work/runs" | xargs)" = 'n1 n2' ] || fail "ran on $(xargs <"$work/runs"), not n1 n2"
    clusters_processes | grep -qx slurmd || fail 'its processes are not seen'
    kill "-$1" $id
    wait $id 2>/dev/null || true
    nothing_is_left "after SIG$1"
}

links=$(ip -o link | wc -l)
files=$(ls -A /var/lib/slurm 2>/dev/null || true)
test_status_and_stdin_are_handed_on
test_it_is_ended_by TERM
test_it_is_ended_by KILL
