#!/usr/bin/env bash
# The Debian package and the archive that cpack makes of a build tree: the package is installed into
# a root of its own, the program runs from there, and removing the package leaves nothing behind.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
build=$(dirname -- "$mha2mla")
installed=$work/root/usr

for tool in cpack dpkg dpkg-deb dpkg-shlibdeps file; do
    command -v $tool >/dev/null || {
        echo "skipped: $tool is missing"
        exit 77
    }
done

# in_root WORDS...: dpkg on the root below $work, as root of a user namespace where we are not root.
# Paths that the machine's own dpkg leaves out (documentation, in containers) are installed here.
in_root() {
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(unshare --map-root-user)
    "${as_root[@]}" dpkg --root="$work/root" --log=/dev/null --force-depends --force-not-root \
        --path-include='/usr/*' "$@" >dpkg.log 2>&1
}

test_packages_are_made() {
    cpack --config "$build/CPackConfig.cmake" -B "$work/packages" >cpack.log 2>&1 ||
        die "cpack: $(tail -n 5 cpack.log)"
    deb=$(echo packages/mha2mla_*.deb)
    archive=$(echo packages/mha2mla-*.tar.gz)
    for file in "$deb" "$archive"; do [ -f "$file" ] || die "no $file: $(ls packages)"; done
}

# has_field NAME REGEX: the package's control file has this field.
has_field() {
    dpkg-deb --field "$deb" "$1" >field
    grep -qE -- "$2" field || die "the package's $1 is '$(cat field)', expected $2"
}

test_package_names_what_it_needs() {
    has_field Package '^mha2mla$'
    has_field Version "^$("$mha2mla" --version | cut -d' ' -f2)$"
    has_field Maintainer '.+ <.+@.+>'
    has_field Section '^science$'
    has_field Description '^converts .*attention'
    has_field Recommends 'gnuplot-nox'
    has_field Depends 'openmpi-bin'
    for library in libopenmpi libopenblas0 libhdf5- libyaml-0 libjansson libpcre2-8 libutf8proc \
        libssl liblapacke zlib1g libzstd1 libc6; do
        has_field Depends "(^|, )$library"
    done
}

test_package_is_installed() {
    mkdir -p root/var/lib/dpkg/{info,updates}
    : >root/var/lib/dpkg/status
    : >root/var/lib/dpkg/available
    in_root --install "$deb" || die "dpkg --install: $(cat dpkg.log)"
    for file in bin/mha2mla share/man/man1/mha2mla.1 \
        share/bash-completion/completions/mha2mla \
        share/mha2mla/configs/demo/model/model.safetensors \
        share/mha2mla/slurm/train.sbatch share/mha2mla/slurm/eval.sbatch share/doc/mha2mla/README.md \
        share/doc/mha2mla/copyright; do
        [ -f "$installed/$file" ] || die "/usr/$file is not in the package"
    done
    [ -x "$installed/share/mha2mla/slurm/submit.sh" ] || die "submit.sh is not executable"
    PATH=$installed/bin:$PATH
    hash -r
    [ "$(command -v mha2mla)" = "$installed/bin/mha2mla" ] || die "another program is found"
}

test_program_knows_no_path_of_its_build() {
    for path in "$root" "$build"; do
        if grep -qaF -- "$path" "$installed/bin/mha2mla"; then die "the program contains $path"; fi
    done
}

# example COMMAND: the last of the examples that its --help ends with.
example() {
    mha2mla "$1" --help | tail -n 1
}

# runs WORDS: a command line, in a folder of a user's who has copied the configs.
runs() {
    (cd project && sh -euc "$1") >out 2>&1 || die "$1: status $?: $(tail -n 3 out)"
}

test_manual_page_is_rendered() {
    command -v man >/dev/null || return 0
    LC_ALL=C MANWIDTH=100 man --local-file --warnings "$installed/share/man/man1/mha2mla.1" \
        >page 2>warnings </dev/null || die "man fails: $(cat warnings)"
    [ ! -s warnings ] || die "man warns: $(head -n 3 warnings)"
    grep -qE '^NAME' page && grep -qF 'mha2mla train' page || die "no manual page: $(head page)"
}

# completions WORDS...: what bash offers for the last word, one per line.
completions() {
    bash -c '. "$1" && shift && COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) && _mha2mla &&
        printf "%s\n" "${COMPREPLY[@]}"' - \
        "$installed/share/bash-completion/completions/mha2mla" mha2mla "$@"
}

test_bash_completes() {
    completions tr >out || die "the completion fails"
    grep -qx 'train' out || die "tr is completed to $(cat out)"
    completions compare --o >out || die "the completion fails"
    grep -qE '^--out=?$' out || die "compare --o is completed to $(cat out)"
}

test_examples_of_the_help_work() {
    mkdir -p project/runs/demo/shards
    cp -r "$installed/share/mha2mla/configs" project/
    runs "$(example tokenize)"
    runs "$(example inspect)"
    cp project/runs/demo/shards/{valid,train}.h5 # a small one in its place
    runs "$(example convert)"
    runs "$(example plan)"
    # The example of train, with less work.
    runs "$(example train) --train.steps=2 --train.global_batch=2 --train.micro_batch=1 \
        --optim.decay_steps=0 --model.convert.samples=4 --data.validation.sequences=2 \
        --data.sources='[{name: stories, shards: [runs/demo/shards/valid.h5]}]'"
}

test_report_needs_nothing_but_the_program() {
    command -v gnuplot >/dev/null || return 0
    runs "mha2mla compare runs/demo-dkv12 --out report"
    for file in report.html curves.csv curves.gp curves.svg curves.png; do
        [ -s "project/report/$file" ] || die "compare --out wrote no $file"
    done
}

test_modulefile_finds_its_prefix() {
    [ -r /usr/share/modules/init/bash ] || return 0
    (
        set +u
        . /usr/share/modules/init/bash
        PATH=/usr/bin:/bin
        module use "$installed/share/mha2mla/modulefiles"
        module load mha2mla
        [ "$(command -v mha2mla)" = "$installed/bin/mha2mla" ]
    ) || die "the module does not lead to the program"
}

test_archive_runs_from_any_folder() {
    mkdir "a folder"
    tar -xzf "$archive" -C "a folder" --strip-components=1
    "a folder/bin/mha2mla" --version >out || die "the archive's program does not run"
    cmp "a folder/bin/mha2mla" "$installed/bin/mha2mla"
}

test_removal_leaves_nothing() {
    in_root --purge mha2mla || die "dpkg --purge: $(cat dpkg.log)"
    [ -z "$(find root -path root/var/lib/dpkg -prune -o -type f -print)" ] ||
        die "left behind: $(find root -path root/var/lib/dpkg -prune -o -type f -print)"
    for folder in bin share; do [ ! -e "$installed/$folder" ] || die "/usr/$folder is left"; done
}

test_packages_are_made
test_package_names_what_it_needs
test_package_is_installed
test_program_knows_no_path_of_its_build
test_manual_page_is_rendered
test_bash_completes
test_examples_of_the_help_work
test_report_needs_nothing_but_the_program
test_modulefile_finds_its_prefix
test_archive_runs_from_any_folder
test_removal_leaves_nothing
