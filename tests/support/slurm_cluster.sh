#!/usr/bin/env bash
# A throw-away Slurm cluster on this machine: a head and two nodes of four CPUs, each with its own
# processes, network, hostname and /dev/shm (Linux namespaces), joined by a bridge. Needs root, but
# no systemd and no cgroups; everything ends with this script, whatever ends it.
#
#     tests/support/slurm_cluster.sh COMMAND [ARGUMENT...]    runs COMMAND on the head; its exit status
#
# and within COMMAND:
#
#     "$SLURM_CLUSTER" --crash n2      the node's power is cut: no process of it gets to say goodbye
#     "$SLURM_CLUSTER" --boot n2       it is switched on again
#
# Exit status 77 and a line with the reason where a cluster cannot be: no root, no Slurm, no
# namespaces. SLURM_CLUSTER_LOGS=DIR has the daemons' logs written there, to be read afterwards.
set -euo pipefail

# What of Slurm lies on disk, behind a tmpfs that only the cluster sees. Debian's package makes it.
D=/var/lib/slurm
NODES=(n1 n2)

skip() {
    echo "slurm_cluster.sh: skipped: $*" >&2
    exit 77
}

fail() {
    echo "slurm_cluster.sh: $*" >&2
    tail -n 15 $D/log/*.log >&2 || true
    exit 1
}

# write_config: two partitions, the second of which may take nodes from the first.
write_config() {
    cat <<END
ClusterName=throwaway
SlurmctldHost=head(10.77.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits until its old credential has expired: 120 s by default.
AuthInfo=socket=$D/munge/socket,cred_expire=10
StateSaveLocation=$D/state
SlurmdSpoolDir=$D/spool/%n
SlurmctldPidFile=$D/slurmctld.pid
SlurmdPidFile=$D/slurmd.%n.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/%n.log
# PMIx keeps a folder per job here: nodes on one machine need one each.
TmpFS=$D/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,bf_resolution=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# A node that was down comes back by itself; who answers late, on a loaded machine, is not down.
ReturnToService=2
SlurmdTimeout=60
MessageTimeout=30
TCPTimeout=20
BatchStartTimeout=60
KillWait=10
MailProg=/bin/true
# More CPUs than the machine has.
SlurmdParameters=config_overrides
NodeName=n1 NodeAddr=10.77.0.11 CPUs=4 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeAddr=10.77.0.12 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
END
}

# connect NODE: its network, which outlives the node's processes.
connect() {
    local i=1${1#n}
    : >"$D/net/$1"
    unshare --net="$D/net/$1" true
    ip link add "v$1" master br0 type veth peer name eth0 netns "$D/net/$1"
    nsenter --net="$D/net/$1" ip address add "10.77.0.$i/24" dev eth0
    nsenter --net="$D/net/$1" ip link set eth0 up
    nsenter --net="$D/net/$1" ip link set lo up
}

# boot NODE: with empty folders, for what a crash left there stops Slurm from restarting the job.
boot() {
    rm -rf "$D/spool/$1" "$D/tmp/$1" "$D/slurmd.$1.pid"
    mkdir -p "$D/spool/$1"
    mkdir -p "$D/tmp/$1"
    chmod 1777 "$D/tmp/$1"
    ip link set "v$1" up
    nsenter --net="$D/net/$1" unshare --pid --fork --kill-child --mount-proc --uts --ipc --mount \
        "$0" --init "$1" </dev/null >"$D/log/$1.console.log" 2>&1 &
    echo $! >"$D/$1.pid"
    disown # its end is nothing to report
}

# init NODE: the node's first process, which outlives a slurmd that is killed.
init() {
    hostname "$1"
    mount -t tmpfs tmpfs /dev/shm
    slurmd -N "$1"
    sleep infinity &
    wait
}

# crash NODE: first the network falls silent, then all processes are gone.
crash() {
    ip link set "v$1" down
    kill -KILL "$(<"$D/$1.pid")"
}

start_head() {
    mount -t tmpfs -o mode=711 tmpfs $D 2>/dev/null || skip "no folder $D, or no mounts allowed"
    mkdir -p $D/{state,log,net,spool,tmp}
    mkdir -m 711 $D/munge
    mkdir -m 700 $D/munge/private
    [ -z "${SLURM_CLUSTER_LOGS:-}" ] || mount --bind "$SLURM_CLUSTER_LOGS" $D/log
    hostname head
    ip link set lo up
    ip link add br0 type bridge 2>/dev/null || skip "this kernel has no network bridge"
    ip address add 10.77.0.1/24 dev br0
    ip link set br0 up
    printf '%s\n' '127.0.0.1 localhost' '10.77.0.1 head' '10.77.0.11 n1' '10.77.0.12 n2' >$D/hosts
    mount --bind $D/hosts /etc/hosts
    (umask 077 && head -c 128 /dev/urandom >$D/munge/key)
    munged --key-file=$D/munge/key --socket=$D/munge/socket --pid-file=$D/munge/pid \
        --log-file=$D/munge/private/log --seed-file=$D/munge/private/seed ||
        fail "munged does not start"
    write_config >$D/slurm.conf
    slurmctld || fail "slurmctld does not start"
}

start_nodes() {
    local node deadline=$((SECONDS + 300))
    for node in "${NODES[@]}"; do
        connect "$node"
        boot "$node"
    done
    until [ "$(sinfo --noheader --Node --partition=main --format=%t 2>/dev/null |
        grep -c '^idle$')" -eq ${#NODES[@]} ]; do
        [ $SECONDS -lt $deadline ] || fail "the nodes are not idle after 300 s: $(sinfo 2>&1)"
        sleep 0.1
    done
}

# run_cluster COMMAND...: as the first process of the namespaces, at whose end the kernel ends all.
run_cluster() {
    local status=0
    export SLURM_CLUSTER=$0 SLURM_CONF=$D/slurm.conf
    # Gone with the cluster.
    export TMPDIR=$D/tmp
    # Nodes times CPUs are more than there is: ranks that wait must let the others run.
    export OMPI_MCA_mpi_yield_when_idle=1
    start_head
    start_nodes
    "$@" <&0 || status=$?
    exit $status
}

# start COMMAND...: unshare does not heed SIGTERM and SIGINT, so they are answered here; and should
# this script be killed, unshare and with it everything else goes, too.
start() {
    local status=0
    setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount-proc --net --uts --ipc \
        --mount "$(realpath -- "$0")" --cluster "$@" <&0 &
    # shellcheck disable=SC2064 # this process, now
    trap "kill -KILL $!; exit 143" TERM INT HUP
    wait $! || status=$?
    exit $status
}

check_machine() {
    local tool
    [ "$(id -u)" -eq 0 ] || skip "needs root"
    for tool in slurmctld slurmd munged sinfo ip unshare nsenter setpriv; do
        command -v $tool >/dev/null || skip "no $tool (apt-get install slurm-wlm munge iproute2)"
    done
    unshare --pid --fork --mount-proc --net --uts --ipc --mount true 2>/dev/null ||
        skip "no namespaces allowed here"
}

PATH=$PATH:/usr/sbin:/sbin
case ${1:-} in
--boot | --crash | --init) "${1#--}" "$2" ;;
--cluster) shift && run_cluster "$@" ;;
-* | "") echo "usage: slurm_cluster.sh COMMAND [ARGUMENT...]" >&2 && exit 2 ;;
*) check_machine && start "$@" ;;
esac
