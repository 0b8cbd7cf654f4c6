#!/usr/bin/env bash
# `export` of a run, a checkpoint and a model's directory, in every format: which files are there,
# what they cost and what is warned of, what is refused. tests/peer runs them in other programs.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1

# refuses STATUS TEXT ARGUMENT...
refuses() {
    local status=0
    "$mha2mla" "${@:3}" >out 2>&1 || status=$?
    [ "$status" = "$1" ] || die "${*:3}: status $status: $(cat out)"
    grep -qF -- "$2" out || die "${*:3}: $(cat out)"
}

loss() {
    "$mha2mla" eval "$1" --perplexity valid.h5 --seq-len 64 --max-tokens 256 2>/dev/null
}

start_small_runs
"$mha2mla" $mla --run.name=healed >out 2>&1 || die "$(tail -n 3 out)"

# What the run wrote, and what export makes of the run, of its last checkpoint and of the model.
"$mha2mla" export runs/healed --out of-run >out
grep -q '^of-run: step 7 of healed, ' out || die "$(cat out)"
"$mha2mla" export runs/healed/checkpoints/step-00000007 --out of-checkpoint >/dev/null
"$mha2mla" export runs/healed/model --out of-model >out
grep -q '^of-model: [0-9.]* M parameters$' out || die "$(cat out)"
for dir in runs/healed/model of-run of-checkpoint of-model; do
    for file in configuration_mha2mla.py modeling_mha2mla.py; do
        cmp "$root/model/hf/python/$file" $dir/$file || die "$dir/$file"
    done
    for file in config.json generation_config.json; do
        grep -q '"bos_token_id": 0' $dir/$file && grep -q '"eos_token_id": 0' $dir/$file ||
            die "$dir/$file: $(cat $dir/$file)"
    done
    cmp of-run/config.json $dir/config.json || die "$dir/config.json is another"
    cmp of-run/model.safetensors $dir/model.safetensors || die "$dir has other weights"
done
[ "$(loss of-model)" = "$(loss runs/healed/model)" ] || die 'the loss has changed'

# A model with its original attention is a plain Llama, with the tokenizer's ids.
grep -q '"LlamaForCausalLM"' runs/start/model/config.json || die 'the start is no Llama'
grep -q '"eos_token_id": 0' runs/start/model/config.json || die 'the start has no eos'
[ ! -e runs/start/model/modeling_mha2mla.py ] || die 'the start has code'

# DeepSeek's format.
"$mha2mla" export of-model --out deepseek --format deepseek --dtype bfloat16 >out 2>said
grep -q '"DeepseekV3ForCausalLM"' deepseek/config.json || die "$(cat deepseek/config.json)"
[ ! -e deepseek/modeling_mha2mla.py ] && [ -e deepseek/tokenizer.json ] || die "$(ls deepseek)"
head -n 1 out | grep -q "^DeepSeek's format: .* bytes per token (own format 80), " || die "$(cat out)"
grep -q 'the latent has no norm' said || die "$(cat said)"
refuses 2 'whose latent has no norm' export of-model --out none --format deepseek --dtype float16
refuses 2 'has its original attention' export runs/start/model --out none --format deepseek
refuses 2 '--plain-rope needs pairs that a layer keeps once' export of-model --out none \
    --format deepseek --plain-rope
refuses 2 '--plain-rope is for --format deepseek and gguf' export of-model --out none --plain-rope
refuses 2 "config.json: 'model_type' is \"deepseek_v3\"" eval deepseek --perplexity valid.h5

# The layout of the paper's code.
"$mha2mla" export runs/healed --out paper --format v1.2 >out
grep -q '"qk_tensor_path": "paper/qk_rank.pth"' paper/config.json || die "$(cat paper/config.json)"
[ -s paper/qk_rank.pth ] && [ -e paper/tokenizer.json ] || die "$(ls paper)"
refuses 2 'has its original attention' export runs/start/model --out none --format v1.2

# A GGUF: one file, of the original attention here.
for dtype in float32 q8_0; do
    "$mha2mla" export runs/start/model --out start-$dtype.gguf --format gguf --dtype $dtype >out
    [ "$(head -n 1 out)" = 'GGUF: architecture llama' ] || die "$(cat out)"
    [ "$(head -c 4 start-$dtype.gguf)" = GGUF ] || die "start-$dtype.gguf"
done
[ "$(stat -c %s start-q8_0.gguf)" -lt "$(stat -c %s start-float32.gguf)" ] || die "$(ls -l)"
refuses 2 'is there and no GGUF file' export runs/start/model --out runs/start/model/config.json \
    --format gguf
refuses 2 '--dtype q8_0 is for --format gguf' export runs/start/model --out none --dtype q8_0
refuses 2 'convert with --form shared' export of-model --out none --format gguf
refuses 2 'is a directory' export runs/start/model --out runs --format gguf

refuses 2 'nor a model' export runs --out none
refuses 2 "is the base model's directory" export of-model --out of-model
[ ! -e none ] || [ -z "$(ls none)" ] || die "something was written: $(ls none)"
"$mha2mla" export --help >out
grep -q -- '--format NAME' out && grep -q 'deepseek' out || die "$(cat out)"
