# What the program tests share; sourced with the program's path as $1. Makes $work, a directory that
# is gone afterwards, and goes there.
mha2mla=$(realpath "$1")
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(realpath "$(mktemp -d)")

# Open MPI's session directory is shared by a user's jobs, and the last to leave removes it while
# another may be starting. The script has one of its own, which `kept` keeps from being empty.
sessions=$(mktemp -d)
export OMPI_MCA_orte_tmpdir_base=$sessions
mkdir -p "$sessions/ompi.$(uname -n | cut -d. -f1).$(id -u)/kept"

mounts=() # file systems of its own
clean_up() {
    local left
    left=$(jobs -pr) # in the background, by numbers that are no other process's by now
    [ -z "$left" ] || kill $left 2>/dev/null || true
    [ ${#mounts[@]} -eq 0 ] || umount -l "${mounts[@]}"
    rm -rf "$work" "$sessions"
}
trap clean_up EXIT
cd "$work"

die() {
    echo "FAILED: $*" >&2
    exit 1
}

# The shape of a model that trains in no time, for model.init of a config.
tiny_model="{hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 6,
         num_key_value_heads: 2, head_dim: 16, vocab_size: 1024, max_position_embeddings: 128,
         initializer_range: 0.05, tokenizer: $root/configs/demo/model}"

# ranks N COMMAND...: under mpirun, with its output in $work/out on failure.
ranks() {
    local n=$1
    shift
    mpirun -n "$n" --oversubscribe --bind-to none "$mha2mla" "$@" >out 2>&1 ||
        die "mpirun -n $n mha2mla $*: status $?: $(tail -n 3 out)"
}

# make_shard NAME LINES: NAME.h5 from the first lines of the demo's corpus NAME (train or valid).
make_shard() {
    zcat "$root/configs/demo/$1.txt.gz" | sed -n "1,$2p" >"$1.txt" # all is read: no broken pipe
    "$mha2mla" tokenize --tokenizer "$root/configs/demo/model" --separator '<|endoftext|>' \
        --out "$1.h5" "$1.txt" >/dev/null
}

# small_config VALIDATION: config.yaml of a run of the tiny model on train.h5, validated on valid.h5
# as VALIDATION says; stdin has the keys of optim, train and checkpoint.
small_config() {
    printf '%s\n' 'run: {name: base, dir: runs}' 'model:' "  init: $tiny_model" 'data:' \
        '  seq_len: 32' '  sources: [{name: stories, shards: [train.h5]}]' \
        "  validation: {shards: [valid.h5], $1}" >config.yaml
    cat >>config.yaml
}

# start_small_runs [LINE]: shards, config.yaml of a run of seven steps, with LINE, a model runs/start
# of a short one, and in $mla the arguments that train it converted.
start_small_runs() {
    make_shard train 1500
    make_shard valid 60
    small_config 'every: 3, sequences: 9' <<EOC
optim: {lr: 3.0e-3, warmup_steps: 2, decay_steps: 3}
train: {steps: 7, global_batch: 16, micro_batch: 2}
checkpoint: {every: 2, keep: 10}
${1-}
EOC
    ranks 1 train config.yaml --train.steps=3 --optim.decay_steps=0 --run.name=start
    mla="train config.yaml --model.init=none --model.base=runs/start/model
         --model.convert.rope_pairs=2 --model.convert.d_kv=6 --model.convert.samples=20"
}

# own_lines FILE: without what libraries say of the machine (hwloc: of a missing /sys).
own_lines() {
    grep -v '^\[hwloc' "$1" || true
}

# temporaries [DIR]: the files there, and below, that are not whole yet or were left.
temporaries() {
    find "${1:-.}" -name '.*.tmp-*'
}

# check_refusal STATUS TEXT GOT WHAT: what `refuses` and its like have in common. $work/err is what
# the program said, but for the lines of mpirun and of the work before the error.
check_refusal() {
    [ "$3" -eq "$1" ] || die "$4: status $3, expected $1: $(cat err)"
    grep -qF -- "$2" err || die "$4: said '$(cat err)', expected '$2'"
    [ "$(grep -c '^mha2mla: error: ' err)" -eq 1 ] || die "$4: not one error line: $(cat err)"
    [ -z "$(temporaries)" ] || die "$4: left $(temporaries)"
}

# refuses STATUS TEXT ARGUMENTS...: the program must end with this status, in time, and say one line
# and no other, with TEXT in it.
refuses() {
    local status=$1 text=$2 got=0
    shift 2
    timeout 600 "$mha2mla" "$@" >out 2>err </dev/null || got=$?
    check_refusal "$status" "$text" "$got" "mha2mla $*"
    [ "$(own_lines err | wc -l)" -eq 1 ] || die "mha2mla $*: more than one line: $(cat err)"
}

# breaks_off STATUS TEXT ARGUMENTS...: the same where the program tells of its work first.
breaks_off() {
    local status=$1 text=$2 got=0
    shift 2
    timeout 600 "$mha2mla" "$@" >out 2>err </dev/null || got=$?
    check_refusal "$status" "$text" "$got" "mha2mla $*"
}

# ranks_refuse N STATUS TEXT ARGUMENTS...: the same under mpirun, which adds lines of its own.
ranks_refuse() {
    local n=$1 status=$2 text=$3 got=0
    shift 3
    timeout 600 mpirun -n "$n" --oversubscribe --bind-to none "$mha2mla" "$@" >out 2>err \
        </dev/null || got=$?
    check_refusal "$status" "$text" "$got" "mpirun -n $n mha2mla $*"
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
