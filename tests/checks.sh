# What the program tests share; sourced with the program's path as $1. Makes $work, a directory that
# is gone afterwards, and goes there.
mha2mla=$(realpath "$1")
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

die() {
    echo "FAILED: $*" >&2
    exit 1
}

# ranks N COMMAND...: under mpirun, with its output in $work/out on failure.
ranks() {
    local n=$1
    shift
    mpirun -n "$n" --oversubscribe --bind-to none "$mha2mla" "$@" >out 2>&1 ||
        die "mpirun -n $n mha2mla $*: status $?: $(tail -n 3 out)"
}

# ranks_fail N STATUS TEXT COMMAND...: all ranks end together with this status, within two minutes, and
# one line of the program's, and only one, is an error: TEXT.
ranks_fail() {
    local n=$1 status=$2 text=$3 got=0
    shift 3
    timeout 120 mpirun -n "$n" --oversubscribe --bind-to none "$mha2mla" "$@" >out 2>&1 || got=$?
    [ "$got" -eq "$status" ] || die "$n ranks of $*: status $got, expected $status: $(cat out)"
    grep 'mha2mla: error: ' out | grep -qF -- "$text" || die "$n ranks of $*: no '$text': $(cat out)"
    [ "$(grep -c 'mha2mla: error: ' out)" -eq 1 ] || die "$n ranks of $*: more than one: $(cat out)"
}

# make_shard NAME LINES: NAME.h5 from the first lines of the demo's corpus NAME (train or valid).
make_shard() {
    zcat "$root/configs/demo/$1.txt.gz" | sed -n "1,$2p" >"$1.txt" # all is read: no broken pipe
    "$mha2mla" tokenize --tokenizer "$root/configs/demo/model" --separator '<|endoftext|>' \
        --out "$1.h5" "$1.txt" >/dev/null
}

# refuses STATUS TEXT ARGUMENTS...: the program must end with this status and say, in one line, TEXT.
refuses() {
    local status=$1 text=$2 got=0
    shift 2
    "$mha2mla" "$@" >out 2>err </dev/null || got=$?
    [ "$got" -eq "$status" ] || die "mha2mla $*: status $got, expected $status: $(cat err)"
    grep -qF -- "$text" err || die "mha2mla $*: said '$(cat err)', expected '$text'"
    [ "$(wc -l <err)" -eq 1 ] || die "mha2mla $*: more than one line: $(cat err)"
}

# field NAME FILE: the values of a number in metrics.jsonl, one per line.
field() {
    grep -o "\"$1\":[^,}]*" "$2" | cut -d: -f2
}

# close A B TOLERANCE: the files' numbers agree line by line, relative to B.
close() {
    [ -s "$1" ] && [ "$(wc -l <"$1")" -eq "$(wc -l <"$2")" ] || die "$1 and $2 have other lengths"
    paste "$1" "$2" | awk -v tolerance="$3" '
        { e = ($1 - $2) / $2; if (e < 0) e = -e; if (!(e <= tolerance)) { print; bad = 1 } }
        END { exit bad }' || die "$1 and $2 differ by more than $3"
}
