#!/usr/bin/env bash
# A manifest whose members say something else: with its checksum as it was and with one that is made
# right again, inspect, export and train refuse it by name or take the checkpoint before it. Nothing
# crashes on a zero and nothing is exported that no step has trained.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1

make_shard train 300
make_shard valid 60
small_config 'every: 2, sequences: 4' <<'EOC'
optim: {lr: 3.0e-3}
train: {steps: 2, global_batch: 4, micro_batch: 2}
EOC
ranks 1 train config.yaml
mla='train config.yaml --model.init=none --model.base=runs/base/model --model.convert.rope=high
     --model.convert.rope_pairs=2 --model.convert.d_kv=6 --train.steps=4 --checkpoint.every=2'
ranks 2 $mla --run.name=whole
newest=checkpoints/step-00000004/manifest.json
whole=runs/whole/$newest

# reseal FILE: a checksum that is right, as train/checkpoint/manifest.h says it is computed.
reseal() {
    head -n -2 "$1" >body
    printf '  "checksum": "%s"\n}\n' "$(sha256sum <body | cut -d ' ' -f 1)" | cat body - >"$1"
}
cp $whole same
reseal same
cmp same $whole || die 'the checksum is computed in another way than the header says'

# changed SED: a copy of the run whose newest manifest was edited.
changed() {
    rm -rf runs/changed
    cp -r runs/whole runs/changed
    sed -i "$1" runs/changed/$newest
    ! cmp -s runs/changed/$newest $whole || die "'$1' changes nothing"
}

# goes_back TEXT: the run resumes from the checkpoint before, having said TEXT, and ends as it did.
goes_back() {
    rm -rf runs/changed/model
    "$mha2mla" $mla --run.name=changed >out 2>&1 || die "$1: status $?: $(cat out)"
    grep 'warning: the checkpoint of step 4 is skipped: ' out | grep -qF -- "$1" ||
        die "train does not say '$1': $(cat out)"
    grep -q 'resuming runs/changed from step 2,' out || die "$1: $(cat out)"
    cmp runs/changed/model/model.safetensors runs/whole/model/model.safetensors
}

# damaged SED TEXT: the change is noticed by the checksum, and TEXT is said where that is made right.
damaged() {
    changed "$1"
    refuses 2 'manifest.json: is damaged: its text has SHA-256' inspect runs/changed/${newest%/*}
    reseal runs/changed/$newest
    refuses 2 "manifest.json: $2" inspect runs/changed/${newest%/*}
    refuses 2 "manifest.json: $2" export runs/changed/${newest%/*} --out exported
    goes_back "$2"
}
damaged 's/"n_kv_heads": 2/"n_kv_heads": 0/' "shape: 'n_kv_heads' is 0, allowed are 1 to 4096"
damaged 's/"svd": "joint"/"svd": "banana"/' "shape: 'svd' is \"banana\", allowed are \"joint\" and"
damaged 's/"rope_theta": 10000.0/"rope_theta": 0.0/' "shape: 'rope_theta' is 0, allowed are 1 to"
damaged 's/"rms_eps": [0-9.e-]*/"rms_eps": -1.0/' "shape: 'rms_eps' is -1, allowed are 1e-12 to 1"
damaged '/"rope_pairs": \[/{n;s/0/9/}' "'rope_pairs'[0] is 9, allowed are 0 to 6"
damaged 's/"step": 4/"step": 5/' "'next_sample' is 16, the other members make it 20"
damaged 's/"global_batch": 4/"global_batch": 0/' "'global_batch' is 0, allowed are 1 to"
damaged 's/"name": "shard-0001.h5"/"name": "..\/shard.h5"/' "files[1]: 'name' is \"../shard.h5\""

# An export of the run takes the checkpoint before it.
changed 's/"rope_theta": 10000.0/"rope_theta": 20000.0/'
"$mha2mla" export runs/changed --out exported >out 2>err || die "export: $(cat err)"
grep -q 'checkpoint of step 4 is skipped: .* is damaged: its text has SHA-256' err ||
    die "export: $(cat err)"
grep -q 'step 2 of whole' out || die "export: $(cat out)"

# What is in bounds is held against the config, and against the base of an export.
reseal runs/changed/$newest
refuses 2 "'rope_theta' is 10000, the model to save has 20000" \
    export runs/changed/${newest%/*} --out other
ranks_refuse 1 2 "its model has rope_theta 20000, the config's 10000" $mla --run.name=changed

# The checksums of the files, and their sizes, are members too.
changed 's/"crc32": \([0-9]*\)[0-9]/"crc32": \11/'
reseal runs/changed/$newest
if ! cmp -s runs/changed/$newest $whole; then
    # A checksum may end in 1 already, so which file is named is open.
    refuses 2 '.h5: is damaged: CRC-32' export runs/changed/${newest%/*} --out other
    goes_back 'is damaged: CRC-32'
fi

# Every line with a value, one after another: -99 is what none may be, but for the losses and what
# the data's own check looks at.
n_lines=0
in_data=0
for line in $(seq "$(wc -l <$whole)"); do
    text=$(sed -n "${line}p" $whole)
    case $text in
    *'"data": {'*) in_data=1 ;;
    *'"shape": {'*) in_data=0 ;;
    esac
    case $text in
    *'"loss"'* | *'"valid_loss"'* | *'"checksum"'* | *[\[\{\]\}]*) continue ;;
    *'"seq_len"'*) ;;
    *) [ $in_data = 0 ] || continue ;;
    esac
    changed_line="${line}s/\\(: \\|^ *\\)\\(\"[^\"]*\"\\|[-+.0-9a-z]*\\)\\(,\\?\\)\$/\\1-99\\3/"
    cp runs/whole/$newest runs/changed/$newest
    sed -i "$changed_line" runs/changed/$newest
    ! cmp -s runs/changed/$newest $whole || die "line $line is not changed: $text"
    refuses 2 'manifest.json: ' inspect runs/changed/${newest%/*}
    reseal runs/changed/$newest
    refuses 2 'manifest.json: ' inspect runs/changed/${newest%/*}
    ! grep -q 'is damaged' err || die "line $line: $(cat err)"
    n_lines=$((n_lines + 1))
done
[ $n_lines -gt 100 ] || die "only $n_lines lines were changed"
