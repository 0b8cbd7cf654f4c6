#!/usr/bin/env bash
# The methods of conversion through the program: statistics by `score`, conversions of one file of
# scores on any number of ranks, a conversion that makes its own, a run and a sweep that do.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
start_small_runs
model=runs/start/model

# Statistics have the same bits on any number of ranks, so has their file, which has no times in it.
collect="--data train.h5 --samples 20 --seq-len 32 --windows 8 --attention-windows 5"
"$mha2mla" score "$model" --out scores.h5 $collect >/dev/null 2>&1
"$mha2mla" score "$model" --out norms.h5 --data train.h5 --samples 20 --seq-len 32 >/dev/null 2>&1
ranks 3 score "$model" --out scores-3.h5 $collect
cmp scores.h5 scores-3.h5 || die "another file of scores on 3 ranks"

options="--rope-pairs 2 --d-kv 6"
for method in whitened closed; do
    "$mha2mla" convert "$model" --out $method --method $method --rope kl $options --scores scores.h5 \
        >/dev/null 2>&1
    ranks 2 convert "$model" --out $method-2 --method $method --rope kl $options --scores scores-3.h5
    cmp $method/model.safetensors $method-2/model.safetensors || die "$method: 2 ranks give another"
    refuses 2 "norms.h5: has norms of RoPE pairs alone, no statistics of activations" \
        convert "$model" --out none --method $method $options --scores norms.h5
    # The same scores made on the way.
    "$mha2mla" convert "$model" --out $method-data --method $method --rope kl $options $collect \
        >/dev/null 2>&1
    cmp $method/model.safetensors $method-data/model.safetensors || die "$method: --data gives another"
    [ -e $method-data.scores.h5 ] || die "$method: no $method-data.scores.h5"
done
[ ! -e none ] || die "a model was written"
! cmp -s whitened/model.safetensors closed/model.safetensors || die "two methods, one model"
refuses 2 "--rope uniform with --method whitened needs --scores" \
    convert "$model" --out none --method whitened --rope uniform $options
refuses 2 "--method closed has one latent for keys and values" \
    convert "$model" --out none --method closed --svd split $options --scores scores.h5
refuses 2 "has norms of RoPE pairs alone" \
    convert "$model" --out none --rope kl $options --scores norms.h5
refuses 2 "model.convert.svd is split, but the method closed needs joint" \
    $mla --model.convert.method=closed --model.convert.svd=split

# What is left to the program is what it says.
same() { # NAME OPTIONS, NAME OPTIONS
    "$mha2mla" convert "$model" --out "$1" --scores scores.h5 $2 >/dev/null 2>&1
    "$mha2mla" convert "$model" --out "$3" --scores scores.h5 $4 >/dev/null 2>&1
    cmp "$1/model.safetensors" "$3/model.safetensors" || die "$2 is not $4"
}
same share "--cache 25%" chosen "--cache 25% --form shared --method closed --rope kl --refit all"
same widths "$options" papers "$options --form per-head --method paper --rope 2-norm"
"$mha2mla" convert "$model" --out outputs --scores scores.h5 --cache 25% --refit outputs >/dev/null 2>&1
! cmp -s share/model.safetensors outputs/model.safetensors || die "queries were not refitted"
refuses 2 "--refit is 'keys'" convert "$model" --out none --cache 25% --scores scores.h5 --refit keys

# A run that calibrates and converts itself, on any number of ranks, and from a file.
closed="--model.convert.method=closed --model.convert.rope=kl --model.convert.windows=6"
ranks 1 $mla $closed --run.name=one
ranks 2 $mla $closed --run.name=two
"$mha2mla" compare --assert-equal runs/one runs/two >/dev/null || die "another run on two ranks"
[ -e runs/one/scores.h5 ] || die "no scores in the run's directory"
ranks 1 $mla $closed --run.name=again --model.convert.scores=runs/one/scores.h5
"$mha2mla" compare --assert-equal runs/one runs/again >/dev/null || die "another run from its scores"

# The same settings give the same weights, whether `convert` has them or a run.
as_a_run() {
    local name=$1 option keys=()
    shift
    for option in "$@"; do
        local key=${option%%=*}
        keys+=("--model.convert.${key//-/_}=${option#*=}")
    done
    "$mha2mla" convert "$model" --out by-$name --dtype float32 --data train.h5 --seq-len 32 \
        "${@/#/--}" >/dev/null 2>&1
    ranks 2 train config.yaml --model.init=none --model.base="$model" --run.name=$name --train.steps=0 \
        --optim.warmup_steps=0 --optim.decay_steps=0 "${keys[@]}"
    cmp by-$name/model.safetensors runs/$name/model/model.safetensors ||
        die "convert and train: $name differs"
}
calibration="samples=20 windows=6 attention-windows=4 window-len=16"
as_a_run paper rope=2-norm rope-pairs=2 d-kv=6 samples=20
as_a_run pools form=per-head method=closed rope=kl cache=37.5% refit=outputs pool=kv-head key-weight=0.3 $calibration
as_a_run slots form=shared method=closed rope=kl slots=4 latent=9 pool=head $calibration
as_a_run auto cache=25% $calibration
as_a_run uniform form=shared method=whitened rope=shared-uniform cache=25% key-weight=0 $calibration

ranks 1 sweep config.yaml --model.init=none --model.base="$model" --model.convert.rope_pairs=2 \
    --model.convert.d_kv=6 --model.convert.samples=20 --train.steps=2 --optim.decay_steps=0 \
    --vary model.convert.method=paper,whitened,closed
[ "$(find runs -name metrics.jsonl | wc -l)" -ge 6 ] || die "sweep: $(find runs -maxdepth 1)"
