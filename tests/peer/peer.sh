#!/usr/bin/env bash
# Exported models in the programs that they are exported for: transformers with the code beside the
# weights, transformers alone (--format deepseek), llama.cpp (--format gguf), lm_eval. PYTHON has the packages of
# requirements.txt; without it they are installed into build/peer-venv, unless ctest runs this.
#
#     [PYTHON=/path/to/python] tests/peer/peer.sh build/release/mha2mla
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
if [ -z "${PYTHON-}" ]; then
    [ -z "${PEER_NEEDS_PYTHON-}" ] || { echo "PYTHON names no interpreter with the packages"; exit 77; }
    venv=$here/../../build/peer-venv
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet -r "$here/requirements.txt"
    PYTHON=$(realpath -s "$venv/bin/python")
fi
. "$here/../support/checks.sh" "$1"
tasks=${ASSETS_DIR:-$root/../shared/assets}/tasks
export OMPI_MCA_ess_singleton_isolated=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 HF_HOME=$work/hf
export TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1 # the models are tiny

make_shard valid 1200

# loss_of DIR: its loss here.
loss_of() {
    "$mha2mla" eval "$1" --perplexity valid.h5 --seq-len 256 --max-tokens 2048 2>/dev/null |
        sed -n 's/^loss \([0-9.]*\).*/\1/p'
}

# check DIR [--in OTHER] [OPTION...]: losses, caches and texts in transformers, of OTHER if it is
# given, against the loss of DIR here.
check() {
    local loss dir=$1
    [ "${2-}" != --in ] || dir=$3
    loss=$(loss_of "$1")
    echo "== $dir, loss $loss"
    [ "$dir" = "$1" ] || set -- "$1" "${@:4}"
    "$PYTHON" "$here/check_transformers.py" "$dir" valid.h5 --loss "$loss" "${@:2}" 2>log || {
        tail -n 5 log >&2
        die "$dir"
    }
}

# In their own form: per KV head, with one latent, one for each of keys and values, all pairs.
convert="convert $root/configs/demo/model --dtype float32"
"$mha2mla" $convert --out joint --rope uniform --rope-pairs 2 --d-kv 8 >/dev/null
"$mha2mla" $convert --out split --rope high --rope-pairs 2 --d-kv 8 --svd split >/dev/null
"$mha2mla" $convert --out all-pairs --rope high --rope-pairs 16 --d-kv 8 >/dev/null
check joint --cache-numbers 120
check split --cache-numbers 120
check all-pairs --cache-numbers 400

# The shared form, with and without a norm of the latent.
make_shard train 1500
shared="$convert --form shared --method closed --rope kl --slots 4 --latent 24"
"$mha2mla" $shared --out shared --data train.h5 --samples 16 --windows 4 --attention-windows 2 \
    --seq-len 256 >/dev/null 2>&1
"$mha2mla" $shared --out normed --scores shared.scores.h5 --latent-norm >/dev/null 2>&1
check shared --cache-numbers 160
check normed --cache-numbers 160

# In DeepSeek's format, in transformers alone, with the loss of the model itself. Groups of codes do not
# divide any number of rotated dims.
for model in joint split shared normed; do
    "$mha2mla" export $model --out deepseek-$model --format deepseek >said 2>&1 || die "$(cat said)"
    check $model --in deepseek-$model --skip-quantized
done

# As GGUF in llama.cpp: the original, and the shared form with one table of frequencies, in every
# type of numbers. Q8_0 rounds enough for other texts.
for norm in '' --latent-norm; do
    "$mha2mla" $convert --form shared --rope shared-uniform --method closed --slots 4 --latent 24 \
        --out "uniform$norm" --data train.h5 --samples 16 --windows 4 --attention-windows 2 \
        --seq-len 256 $norm >/dev/null 2>&1
done
prompt='Dad gave Otto a tiny seed. Otto put it in'
for model in "$root/configs/demo/model" uniform uniform--latent-norm; do
    loss=$(loss_of "$model")
    text=$("$mha2mla" generate "$model" -p "$prompt" -n 24 --ignore-eos --kv-bits 32 2>/dev/null)
    for dtype in float32 float16 bfloat16 q8_0; do
        echo "== $(basename "$model") as GGUF, $dtype, loss $loss"
        "$mha2mla" export "$model" --out model.gguf --format gguf --dtype $dtype >said 2>&1 ||
            die "$(cat said)"
        more=(--prompt "$prompt" --text "$text")
        [ $dtype != q8_0 ] || more=(--within 0.01)
        "$PYTHON" "$here/check_gguf.py" model.gguf valid.h5 --loss "$loss" \
            --tokenizer "$root/configs/demo/model" "${more[@]}" || die "$model as GGUF"
    done
done

# Other architectures, with random weights.
for kind in llama3 qwen2 qwen3 smollm3; do
    "$PYTHON" "$here/random_model.py" "$root/configs/demo/model" $kind --vocab-size 1024 \
        --kind $kind 2>log || die "$(tail -n 5 log)"
    loss=$(loss_of $kind)
    echo "== $kind as GGUF, loss $loss"
    "$mha2mla" export $kind --out model.gguf --format gguf >said 2>&1 || die "$(cat said)"
    "$PYTHON" "$here/check_gguf.py" model.gguf valid.h5 --loss "$loss" || die "$kind as GGUF"
    "$mha2mla" convert $kind --dtype float32 --out $kind-mla --rope uniform --rope-pairs 3 --d-kv 16 \
        >/dev/null
    check $kind-mla --skip-quantized
done

# Tokenizers of other kinds, with a random model.
for tokenizer in tiny_bytelevel tiny_llama3 tiny_qwen2 tiny_spm; do
    "$PYTHON" "$here/random_model.py" "$root/tests/golden/tokenizer/$tokenizer" "$tokenizer" \
        --vocab-size 512 2>log || die "$(tail -n 5 log)"
    "$mha2mla" export "$tokenizer" --out model.gguf --format gguf >said 2>&1 || die "$(cat said)"
    echo "== $tokenizer as GGUF"
    "$PYTHON" "$here/check_gguf.py" model.gguf --tokenizer "$tokenizer" || die "$tokenizer as GGUF"
done

if [ -d "$tasks" ]; then
    "$mha2mla" eval joint --tasks "$tasks" --rules lm-eval --only arc_easy,openbookqa --limit 24 \
        --log-samples samples.jsonl >/dev/null 2>&1
    "$PYTHON" "$here/check_lm_eval.py" joint "$tasks" samples.jsonl 2>log || {
        tail -n 5 log >&2
        die 'lm_eval'
    }
else
    echo "no $tasks: lm_eval is not compared"
fi
