# Sourced by quickstart.sh and test.sh: installs what the build needs, where something is missing,
# and sets what both need to run ranks on one machine. Must be sourced from the project's root.
#
#     . tests/setup.sh
#     setup_packages
#     setup_build release
#     setup_mpi
#
# MHA2MLA_SKIP_INSTALL=1 leaves installing to you.
# shellcheck shell=bash

# Everything the build, compare --out (gnuplot) and the tests use, by the names of Debian 12. One
# test also wants chromium, a large package, and is skipped where it is missing.
SETUP_PACKAGES=(
    build-essential cmake ninja-build pkg-config
    libopenmpi-dev openmpi-bin
    libopenblas-openmp-dev liblapacke-dev
    libhdf5-dev zlib1g-dev libzstd-dev libyaml-dev libjansson-dev libpcre2-dev libssl-dev
    libutf8proc-dev gnuplot-nox
    libcmocka-dev
)
# What only test.sh needs: the cluster in tests/support/slurm_cluster.sh, and the compiler of
# tests/program/aarch64.sh; `file`, without which CPack makes no .deb, and man for its manual page.
SETUP_TEST_PACKAGES=(slurm-wlm munge iproute2 gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    file man-db)

setup_say() {
    printf '\n== %s\n' "$*"
}

setup_fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Runs apt-get as root: directly, or through sudo, which asks on the terminal if there is one.
setup_apt() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            setup_fail "installing needs root and there is no sudo: run as root" \
                "'apt-get install ${SETUP_PACKAGES[*]}', then start this again"
        as_root=(sudo)
        if ! { : >/dev/tty; } 2>/dev/null; then
            as_root=(sudo -n)
        fi
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=600 "$@"
}

# setup_packages [PACKAGE...]: installs what is missing of what the build needs and of these; does
# nothing, and needs no root, if nothing is.
setup_packages() {
    local package missing=()
    SETUP_PACKAGES+=("$@")
    if [ "${MHA2MLA_SKIP_INSTALL:-0}" = 1 ]; then
        return
    fi
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        setup_fail "this is no Debian-like system: install what Debian calls ${SETUP_PACKAGES[*]}" \
            "by hand, then start this again with MHA2MLA_SKIP_INSTALL=1"
    fi
    for package in "${SETUP_PACKAGES[@]}"; do
        case "$(dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null || true)" in
        ?i*) ;;
        *) missing+=("$package") ;;
        esac
    done
    if [ "${#missing[@]}" -eq 0 ]; then
        return
    fi
    setup_say "Installing compiler, MPI and libraries (needs root): ${missing[*]}"
    setup_apt -qq update ||
        setup_fail "apt-get update failed (see above): mend it, or install ${missing[*]} by hand" \
            "and start this again with MHA2MLA_SKIP_INSTALL=1"
    setup_apt -qq install -y --no-install-recommends "${missing[@]}" ||
        setup_fail "apt-get install failed (see above): install ${missing[*]} by hand and start" \
            "this again with MHA2MLA_SKIP_INSTALL=1"
}

# setup_build PRESET [TARGET]: configures and builds into build/PRESET, all of it or one target.
# --fresh, because a cache from before the tree was moved or a package was installed would stop
# CMake.
setup_build() {
    setup_say "Building the $1 preset in build/$1"
    cmake --fresh --preset "$1" >"${TMPDIR:-/tmp}/mha2mla-configure.$$" 2>&1 || {
        cat "${TMPDIR:-/tmp}/mha2mla-configure.$$" >&2
        rm -f "${TMPDIR:-/tmp}/mha2mla-configure.$$"
        setup_fail "configuring failed (see above)"
    }
    rm -f "${TMPDIR:-/tmp}/mha2mla-configure.$$"
    cmake --build --preset "$1" ${2:+--target "$2"} || setup_fail "the build failed (see above)"
}

# Cores that Open MPI counts as slots: real ones, among those this process may use. nproc would
# repeat OMP_NUM_THREADS if that is set.
setup_cores() {
    local allowed real
    allowed=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
    real=$(lscpu --parse=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l || true)
    if [ "${real:-0}" -ge 1 ] && [ "$real" -lt "$allowed" ]; then
        echo "$real"
    else
        echo "$allowed"
    fi
}

# Sets SETUP_MPIRUN, the command that starts two ranks of one thread each on this machine.
setup_mpi() {
    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
    # Containers often forbid one process to read another's memory; shared memory always works.
    export OMPI_MCA_btl_vader_single_copy_mechanism=none
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    SETUP_MPIRUN=(mpirun -n 2 --bind-to none)
    if [ "$(setup_cores)" -lt 2 ]; then
        SETUP_MPIRUN+=(--oversubscribe)
    fi
}
