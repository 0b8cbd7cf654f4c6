#!/usr/bin/env bash
# Wrong input through the program, every subcommand: one line that says what is wrong, the exit
# status of its kind (2: the input, 1: the machine), no file that looks finished, no hang.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1 # outside mpirun, MPI needs no daemon: starts in 20 ms
export LC_ALL=C                          # sed works on bytes

golden=$root/tests/golden
gqa=$golden/models/gqa_tied # 2 layers of width 32, 4 heads of 8, 2 KV heads, vocabulary 64
mla=$golden/models/mla_gqa_2norm_joint

# ---- files that the cases start from -----------------------------------------------------------------

cp -r "$golden/tokenizer/tiny_bytelevel" tokenizer # 303 tokens
for i in $(seq 60); do
    echo "The ship sat on the mat, saw the hat $i times, and then it was gone."
done >text.txt
"$mha2mla" tokenize --tokenizer tokenizer --out shard.h5 text.txt >/dev/null
"$mha2mla" tokenize --tokenizer "$golden/tokenizer/tiny_spm" --out other.h5 text.txt >/dev/null
head -n 1 text.txt >short.txt
"$mha2mla" tokenize --tokenizer tokenizer --out short.h5 short.txt >/dev/null
cat >config.yaml <<END
run: {name: small, dir: runs}
model:
  init: {hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2,
         num_key_value_heads: 1, head_dim: 8, vocab_size: 303, max_position_embeddings: 64,
         tokenizer: tokenizer}
data:
  seq_len: 16
  sources: [{name: ships, shards: [shard.h5]}]
train: {steps: 0, global_batch: 4, micro_batch: 2}
END
"$mha2mla" train config.yaml 2>/dev/null
small=runs/small/model
"$mha2mla" score $small --data shard.h5 --out scores.h5 --samples 4 --seq-len 16 >/dev/null 2>&1
file_size() { stat -c %s "$1"; }

# edited_model SED: $gqa in the directory model, with its config.json edited.
edited_model() {
    rm -rf model
    cp -r "$gqa" model
    chmod -R u+w model
    sed -i "$1" model/config.json
    ! cmp -s "$gqa/config.json" model/config.json || die "'$1' changes nothing in config.json"
}

# edited_weights SED: the same for model.safetensors, whose length must stay.
edited_weights() {
    rm -rf model
    cp -r "$gqa" model
    chmod -R u+w model
    sed -i "$1" model/model.safetensors
    ! cmp -s "$gqa/model.safetensors" model/model.safetensors || die "'$1' changes no weights"
}

# put FILE OFFSET BYTES: bytes as printf writes them.
put() {
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# ---- the command line --------------------------------------------------------------------------

refuses 2 "no command is given; see mha2mla --help"
refuses 2 "unknown command 'trian'; did you mean 'train'?" trian
refuses 2 "unknown command 'xyzzy'; see mha2mla --help" xyzzy
refuses 2 "--run.name=x stands before the command; see mha2mla --help" --run.name=x train
for command in tokenize score convert plan train sweep eval compare inspect; do
    refuses 2 "$command: unknown option --hlep; did you mean --help?" $command --hlep
    refuses 2 "$command: unknown option --zzz=3; see mha2mla $command --help" $command --zzz=3
done
mpirun -n 3 --oversubscribe --bind-to none "$mha2mla" eval --help >out 2>err
[ "$(grep -c '^usage: mha2mla eval' out)" -eq 1 ] || die "eval --help on 3 ranks: $(cat out err)"
refuses 2 "tokenize: --tokenizer DIR is missing" tokenize
refuses 2 "score: --data SHARD.h5 is missing" score $small
refuses 2 "convert: the share of the cache to keep is missing" convert $small --out new
refuses 2 "convert: --slots P is missing" convert $small --out new --form shared --latent 8
refuses 2 "convert: --d-kv N is missing" convert $small --out new --rope-pairs 2
refuses 2 "--cache is '0.125', which is no share" \
    convert $small --out new --form shared --cache 0.125 --rope kl --scores none.h5
refuses 2 "train needs one CONFIG, got 0" train
refuses 2 "eval: what to measure is missing; give --perplexity SHARD.h5" eval $small
refuses 2 "eval needs one MODEL, got 2" eval $small $small --perplexity shard.h5
refuses 2 "compare needs at least one RUN" compare
refuses 2 "inspect needs one PATH, got 2" inspect a b
refuses 2 "inspect: PATH is empty" inspect ""
refuses 2 "manual takes no arguments, 'x' was given" manual x
refuses 2 "help takes one COMMAND at most, got 2" help train eval
refuses 2 "unknown command 'trian'; did you mean 'train'?" help trian
refuses 2 "tokenize: --out needs a value" tokenize --out --tokenizer tokenizer text.txt
refuses 2 "tokenize: --out is empty" tokenize --tokenizer tokenizer --out= text.txt
for command in "eval $small --perplexity shard.h5" "score $small --data shard.h5 --out s.h5" \
    "generate $small -p x"; do
    refuses 2 "--compute is 'float16', allowed are float32, bfloat16" $command --compute float16
done
refuses 2 "eval: --seq-len is '4k', which is not a whole number" \
    eval $small --perplexity shard.h5 --seq-len 4k
refuses 2 "convert: --rope-pairs is 0, allowed are 1 to" \
    convert $small --out new --rope-pairs 0 --d-kv 4
refuses 2 "train: --dry-run takes no value" train config.yaml --dry-run=yes

# ---- model directories -------------------------------------------------------------------------

refuses 2 "none: not a directory with a Hugging Face model" eval none --perplexity shard.h5
refuses 2 "none: not a directory with a Hugging Face model" \
    convert none --out new --rope-pairs 2 --d-kv 4 --rope high
refuses 2 "none: not a directory with a Hugging Face model" \
    score none --data shard.h5 --out new.h5
refuses 2 "none: neither a file nor a directory" inspect none
refuses 2 "runs: not a Hugging Face model, config.json is missing" inspect runs

# refuses_config TEXT SED: model/config.json so edited is refused with that text.
refuses_config() {
    edited_model "$2"
    refuses 2 "model/config.json: $1" inspect model
}
rm -rf model
cp -r "$gqa" model
: >model/config.json
refuses 2 "model/config.json: empty, not JSON" inspect model
head -c 300 "$gqa/config.json" >model/config.json
refuses 2 "not valid JSON" inspect model
echo '[1]' >model/config.json
refuses 2 "model/config.json: not a JSON object" inspect model
for _ in $(seq 5000); do printf '{"a":['; done >model/config.json
refuses 2 "not valid JSON: maximum parsing depth reached" inspect model
refuses_config "'architectures' is [\"MixtralForCausalLM\"], supported is" \
    's/LlamaForCausalLM/MixtralForCausalLM/'
refuses_config "'model_type' is \"gemma\", supported is \"llama\"" 's/"llama"/"gemma"/'
refuses_config "rope_scaling: 'rope_type' is \"yarn\", supported is" \
    's/"rope_scaling": null/"rope_scaling": {"rope_type":"yarn","factor":8.0}/'
refuses_config "'attention_bias' is not true or false" 's/"attention_bias": false/"attention_bias": 1/'
refuses_config "'mlp_bias' is true" 's/"mlp_bias": false/"mlp_bias": true/'
refuses_config "'hidden_act' is \"gelu\", supported is \"silu\"" 's/"silu"/"gelu"/'
refuses_config "head width is 7, RoPE needs an even one" 's/"hidden_act"/"head_dim": 7, &/'
refuses_config "'hidden_size' 32 does not divide among 5 heads" 's/\(attention_heads"\): 4/\1: 5/'
refuses_config "4 query heads do not divide among 3 KV heads" 's/\(value_heads"\): 2/\1: 3/'
refuses_config "'hidden_size' is missing" 's/hidden_size/hidden_siz/'
refuses_config "'hidden_size' is not a whole number" 's/"hidden_size": 32/"hidden_size": "32"/'
refuses_config "'hidden_size' is -32, allowed are 1 to" 's/"hidden_size": 32/"hidden_size": -32/'
refuses_config "'rope_theta' is 0, allowed are 1 to" 's/10000.0/0/'
edited_model 's/"hidden_act"/"mha2mla": {"rope_pairs": 2, "d_kv": 8, "svd": "joint"}, &/'
refuses 2 "tensor 'model.layers.0.self_attn.rope_pairs' is missing" inspect model
[ ! -s out ] || die "inspect printed half of a broken model: $(cat out)"

# ---- weights -----------------------------------------------------------------------------------

# refuses_weights TEXT: the directory model is refused by a command that reads weights.
refuses_weights() {
    refuses 2 "$1" eval model --perplexity shard.h5
}
edited_model 's/"hidden_size": 32/"hidden_size": 64/'
refuses_weights "tensor 'model.embed_tokens.weight' has shape [64, 32], expected is [64, 64]"
edited_model 's/"tie_word_embeddings": true/"tie_word_embeddings": false/'
refuses_weights "lm_head.weight; if the head is the embedding, config.json must say tie_word"
rm model/model.safetensors
refuses_weights "model: has neither model.safetensors nor model.safetensors.index.json"
: >model/pytorch_model.bin
refuses_weights "model/pytorch_model.bin: not supported; save the model as safetensors"
size=$(file_size "$gqa/model.safetensors")
for length in 0 4 8 100 2000 $((size / 2)) $((size - 1)); do
    head -c "$length" "$gqa/model.safetensors" >model/model.safetensors
    refuses_weights "model/model.safetensors: "
done
refuses_weights "it is damaged or was not copied completely" # the last of these
edited_weights 's/data_offsets":\[8192,8320\]/data_offsets":[8192,9e99]/'
refuses_weights "'data_offsets' are not two whole numbers"
edited_weights 's/data_offsets":\[8192,8320\]/data_offsets":[8320,8192]/'
refuses_weights "data offsets 8320 to 8192 are no range"
edited_weights 's/"F32","shape":\[32\]/"F32","shape":[33]/'
refuses_weights "of F32 [33] has 128 bytes of data, which does not fit"
edited_weights 's/"shape":\[32,32\]/"shape":[16,64]/'
refuses_weights "has shape [16, 64], expected is [32, 32]"
edited_weights 's/layers.0.input_layernorm/layers.0.input_layernurm/'
refuses_weights "model: missing in the weights: model.layers.0.input_layernorm.weight"
edited_weights 's/"F32","shape":\[32\]/"Q32","shape":[32]/'
refuses_weights "has unknown dtype 'Q32'"
edited_weights 's/"F32","shape":\[32\]/"I32","shape":[32]/'
refuses_weights "has dtype I32, supported are F32, F16, BF16 and F64"
put model/model.safetensors 0 '\377\377\377\377\377\377\377\177'
refuses_weights "header of 9223372036854775807 bytes in a file of $size"
refuses 2 "header of 9223372036854775807 bytes" inspect model/model.safetensors
cp "$gqa/model.safetensors" model/
put model/model.safetensors $((size - 4)) '\0\0\300\177'
refuses_weights "tensor 'model.norm.weight' has nan at row 31"
cp -r "$golden/models/mqa_sharded" sharded
rm sharded/model-00002-of-00003.safetensors
refuses 2 "sharded/model-00002-of-00003.safetensors: the file is missing" inspect sharded

# Finite weights whose products overflow.
cp -r $small huge
put huge/model.safetensors $(($(file_size huge/model.safetensors) - 4)) '\0\0\177\177'
put huge/model.safetensors $(($(file_size huge/model.safetensors) - 8)) '\0\0\177\177'
refuses 1 "tokens is not finite: numbers overflow" eval huge --perplexity shard.h5
[ ! -s out ] || die "eval printed a loss that is no number: $(cat out)"

# ---- tokenizer and text ------------------------------------------------------------------------

# refuses_text TEXT FILE [OPTION...]: tokenizing the file is refused, and there is no shard.
refuses_text() {
    local text=$1
    shift
    refuses 2 "$text" tokenize --tokenizer tokenizer --out new.h5 "$@"
    [ ! -e new.h5 ] || die "tokenize $* left a shard"
}
# refuses_tokenizer TEXT [SED]: the same for tokenizer.json so edited.
refuses_tokenizer() {
    mkdir -p broken
    [ $# -eq 1 ] || sed "$2" tokenizer/tokenizer.json >broken/tokenizer.json
    refuses 2 "$1" tokenize --tokenizer broken --out new.h5 text.txt
    [ ! -e new.h5 ] || die "a broken tokenizer left a shard"
}
refuses_tokenizer "broken: has neither tokenizer.json nor vocab.json and merges.txt"
refuses_tokenizer "broken/tokenizer.json:232:" '232,$d'
refuses_tokenizer "broken/tokenizer.json: model: type 'Unigram' is not supported; only BPE is" \
    's/"type": *"BPE"/"type": "Unigram"/'
refuses_tokenizer "pre_tokenizer: type 'Metaspaze' is not supported" \
    's/"type": *"ByteLevel"/"type": "Metaspaze"/'
refuses_tokenizer "broken/tokenizer.json: key 'modell' is not supported" 's/"model"/"modell"/'
refuses 2 "tokenizer.json: a file; name the directory that it is in" \
    tokenize --tokenizer tokenizer/tokenizer.json --out new.h5 text.txt
refuses_text "none.txt: no such file" none.txt
refuses_text "none-*.txt: no such file" 'none-*.txt'
refuses_text "[a-: no such file" '[a-'
refuses_text "shard.h5: the name of a text file ends in .jsonl, .json or .txt, or in one of these" shard.h5
mkdir folder.txt
refuses_text "folder.txt: is a directory, not a text file" folder.txt
gzip -c text.txt >whole.txt.gz
for length in 5 40 $(($(file_size whole.txt.gz) / 2)) $(($(file_size whole.txt.gz) - 1)); do
    head -c "$length" whole.txt.gz >cut.txt.gz
    refuses_text "cut.txt.gz: cannot be read: unexpected end of file (truncated gzip" cut.txt.gz
done
cp whole.txt.gz cut.txt.gz
put cut.txt.gz 60 '\0\0\0\0\0\0\0\0'
refuses_text "cut.txt.gz: cannot be read: " cut.txt.gz
# refuses_line TEXT LINE: a .jsonl file with this second line is refused.
refuses_line() {
    printf '{"text": "fine"}\n%b\n' "$2" >lines.jsonl
    refuses_text "lines.jsonl:2: $1" lines.jsonl
}
refuses_line "not valid JSON at column" '{"text": "broken}'
refuses_line "not valid JSON at column" '{"text": "\\xff"}'
refuses_line "no field 'text'; name the one with the text by --text-field" '{"body": "a"}'
refuses_line "field 'text' is not a string" '{"text": 3}'
refuses_line "not a JSON object with a field 'text'" '["text"]'
: >empty.txt
refuses_text "new.h5: no tokens to write; is the text empty?" empty.txt
refuses_text "--eos: the tokenizer in tokenizer has no token '<end>'" text.txt --eos '<end>'
refuses 2 "new.hdf: the name of a shard ends in .h5" \
    tokenize --tokenizer tokenizer --out new.hdf text.txt
refuses 1 "none/new.h5: cannot be written: No such file or directory" \
    tokenize --tokenizer tokenizer --out none/new.h5 text.txt
refuses 1 "text.txt/new.h5: cannot be written: Not a directory" \
    tokenize --tokenizer tokenizer --out text.txt/new.h5 text.txt
mkdir folder.h5
refuses 2 "folder.h5: is a directory; name a file to write" \
    tokenize --tokenizer tokenizer --out folder.h5 text.txt

# ---- shards ------------------------------------------------------------------------------------

# refuses_shard TEXT FILE: eval and inspect refuse the file.
refuses_shard() {
    refuses 2 "$1" eval $small --perplexity "$2"
    refuses 2 "$1" inspect "$2"
}
cp text.txt text.h5
refuses_shard "text.h5: not a readable HDF5 file" text.h5
size=$(file_size shard.h5)
for length in 0 1 100 2000 $((size / 2)) $((size - 1)); do
    head -c "$length" shard.h5 >cut.h5
    refuses_shard "cut.h5: not a readable HDF5 file" cut.h5
done
refuses 2 "scores.h5: not a token shard" eval $small --perplexity scores.h5
refuses 2 "runs/small: not a Hugging Face model itself; the one of this run is runs/small/model" \
    eval runs/small --perplexity shard.h5
refuses 2 "none.h5: no such file" eval $small --perplexity none.h5
refuses 2 "none-*.h5: no such file" score $small --data 'none-*.h5' --out new.h5
refuses 2 "folder.h5: is a directory, not a token shard" eval $small --perplexity folder.h5
refuses 2 "other.h5: made with tokenizer" eval $small --perplexity other.h5
refuses 2 "other.h5: made with tokenizer" score $small --data other.h5 --out new.h5 --seq-len 16
refuses 2 "no shard of 'short.h5' holds 65 tokens, one sample" eval $small --perplexity short.h5
refuses 2 "--seq-len is 65, more than max_position_embeddings 64 of $small" \
    eval $small --perplexity shard.h5 --seq-len 65
refuses 2 "--seq-len is 65, more than max_position_embeddings 64 of $small" \
    score $small --data shard.h5 --out new.h5 --seq-len 65
refuses 2 "--kv-bits 5: allowed are 32, 16, 8, 4, 3 and 2 bits" \
    eval $small --perplexity shard.h5 --kv-bits 5
refuses 2 "KV scheme channel has no reference policy; choose hqq or quanto, or append" \
    eval $small --perplexity shard.h5 --kv-bits 4 --kv-policy reference
refuses 2 "--kv-scheme hqq with --kv-policy append quantizes the KV cache; give --kv-bits 8" \
    eval $small --perplexity shard.h5 --kv-scheme hqq
refuses 2 "windows of 64 tokens: the reference policy quantizes their first half, and needs 128" \
    eval $small --perplexity shard.h5 --kv-bits 4 --kv-policy reference --kv-scheme hqq
refuses 2 "--kv-rotate changes what a KV cache holds; give --kv-bits" \
    eval $small --perplexity shard.h5 --kv-rotate
refuses 2 ", the model's vocabulary has 64; tokenize the text with the model's own tokenizer" \
    eval "$gqa" --perplexity shard.h5

# ---- scores and conversion ---------------------------------------------------------------------

# refuses_convert STATUS TEXT MODEL [OPTION...]: convert refuses and creates no directory.
refuses_convert() {
    local status=$1 text=$2
    shift 2
    refuses "$status" "$text" convert "$@"
    [ ! -e new ] || die "convert $* made a directory"
}
to="--out new --rope-pairs 2 --d-kv 4"
refuses_convert 2 "--rope 2-norm with --method paper needs --scores, which mha2mla score makes" $small $to
refuses_convert 2 "convert: --rope is 'lowest', allowed are high, low, uniform, 2-norm" \
    $small $to --rope lowest
refuses_convert 2 "convert: --svd is 'both', allowed are joint, split" $small $to --svd both
refuses_convert 2 "convert: --dtype is 'int8', allowed are float32" $small $to --rope low --dtype int8
refuses_convert 2 "none.h5: cannot be opened: No such file" $small $to --scores none.h5
refuses_convert 2 "text.txt: not a readable HDF5 file" $small $to --scores text.txt
refuses_convert 2 "shard.h5: not a file of RoPE scores" $small $to --scores shard.h5
refuses_convert 2 "scores.h5: n_heads is 2, needed is 4; make scores of this model" \
    "$gqa" $to --scores scores.h5
cp scores.h5 damaged.h5
for place in 100 $(($(file_size scores.h5) / 2)) $(($(file_size scores.h5) - 20)); do
    put damaged.h5 "$place" '\251\252\253\254'
done
refuses_convert 2 "damaged.h5: " $small $to --scores damaged.h5
refuses 2 "damaged.h5: " inspect damaged.h5
head -c 1000 scores.h5 >damaged.h5
refuses_convert 2 "damaged.h5: not a readable HDF5 file" $small $to --scores damaged.h5
refuses_convert 2 "has latent attention already (d_kv 8); convert its original" \
    "$mla" $to --rope high
refuses_convert 2 "rope_pairs is 9, allowed are 1 to 4" \
    $small --out new --rope-pairs 9 --d-kv 4 --rope high
refuses_convert 2 "d_kv is 99, allowed are 1 to 12 with rope_pairs 2 and joint SVD" \
    $small --out new --rope-pairs 2 --d-kv 99 --rope high
refuses_convert 2 "$small: is the base model's directory; name another to save to" \
    $small --out $small --rope-pairs 2 --d-kv 4 --rope high
refuses_convert 2 "text.txt: is a file; name a directory to save to" \
    $small --out text.txt --rope-pairs 2 --d-kv 4 --rope high
refuses_convert 1 "text.txt: directory cannot be made: a file has this name" \
    $small --out text.txt/new --rope-pairs 2 --d-kv 4 --rope high
refuses 2 "has latent attention already; score its original" \
    score "$mla" --data shard.h5 --out new.h5
refuses 1 "none/new.h5: cannot be written: No such file or directory" \
    score $small --data shard.h5 --out none/new.h5
refuses 2 "folder.h5: is a directory; name a file to write" \
    score $small --data shard.h5 --out folder.h5
"$mha2mla" inspect $small >/dev/null || die "the base model is damaged"

# ---- training configs --------------------------------------------------------------------------

refuses 2 "none.yaml: cannot be opened: No such file or directory" train none.yaml
refuses 2 "runs: is a directory, not a regular file" train runs
mkfifo pipe.yaml
refuses 2 "pipe.yaml: is a named pipe, not a regular file" train pipe.yaml
refuses 2 "empty.txt: empty; see mha2mla train --help-config" train empty.txt
refuses 2 "shard.h5: not valid YAML" train shard.h5
echo 'run: [' >broken.yaml
refuses 2 "broken.yaml:2:1: not valid YAML" train broken.yaml

# refuses_setting TEXT OVERRIDE...: config.yaml so changed is refused, before a directory is made.
refuses_setting() {
    local text=$1
    shift
    refuses 2 "$text" train config.yaml --run.name=new "$@"
    [ ! -e runs/new ] || die "train $* made a directory"
}
base="--model.init=none --model.base=$small --model.convert.rope_pairs=2 --model.convert.d_kv=4"
refuses_setting "unknown key train.stepz; did you mean train.steps?" --train.stepz=3
refuses_setting "train: --train.steps has no value; write --train.steps=VALUE" --train.steps
refuses_setting "train: --optim.lr has no value; write --optim.lr=5e-4" --optim.lr 5e-4
refuses_setting "train.steps is 'many', which is not a whole number" --train.steps=many
refuses_setting "run.dir is null, which is no text; leave the key out for its default" --run.dir=null
refuses_setting "log.tensorboard is 'yes'; write true" --log.tensorboard=yes
refuses_setting "train.steps is '2.0', which is not a whole number; write it as 2" --train.steps=2.0
refuses_setting "run.dir has '\${X}', which is not expanded in a config" "--run.dir=a/\${X}"
refuses_setting "optim.lr is -1, allowed are 0 to 10" --optim.lr=-1
refuses_setting "data.sources must be a list of mappings" --data.sources=3
refuses_setting "model.base and model.init are both given; keep one" --model.base=$small
refuses_setting "model.base is missing" --model.init=none
refuses_setting "nowhere: not a directory with a Hugging Face model" $base --model.base=nowhere
refuses_setting "d_kv is 99, allowed are 1 to 12" $base --model.convert.d_kv=99
refuses_setting "rope_pairs is 9, allowed are 1 to 4" $base --model.convert.rope_pairs=9
refuses_setting "has latent attention already" $base --model.base="$mla"
refuses_setting "train.micro_batch is 3, which does not divide train.global_batch 4" \
    --train.micro_batch=3
refuses_setting "data.seq_len is 65, more than model.init.max_position_embeddings 64" \
    --data.seq_len=65
refuses_setting "data.seq_len is 65, more than max_position_embeddings 64 of $small" \
    $base --data.seq_len=65
refuses_setting "run.name is 'a/b', which names no directory in run.dir" --run.name=a/b
refuses 2 "runs/small: there is a run already; remove it or set --run.name" \
    train config.yaml --resume never
refuses 1 "text.txt: directory cannot be made: a file has this name" \
    train config.yaml --run.dir=text.txt

# Several mistakes: a line for each, in the order of the file, then how many.
sed 's/head_dim: 8/head_dim: wide/; s/steps: 0/stepz: 0/' config.yaml >several.yaml
status=0
"$mha2mla" train several.yaml 2>err || status=$?
[ "$status" -eq 2 ] || die "several mistakes: status $status"
diff - <(own_lines err) <<'END' || die "several mistakes: other lines"
mha2mla: error: several.yaml:4: model.init.head_dim is 'wide', which is not a whole number
mha2mla: error: several.yaml:9: unknown key train.stepz; did you mean train.steps?
mha2mla: error: several.yaml:9: train.steps is missing; give it, or train.fraction and data.pretraining_tokens
mha2mla: error: several.yaml: 3 errors
END

# Mistakes that show only once the run has started: after a correction the same command works.
for attempt in "$base" "--model.convert=none"; do
    for shard in none.h5 other.h5 cut.h5; do
        breaks_off 2 "$shard: " train config.yaml --run.name=again $attempt \
            "--data.sources=[{name: ships, shards: [$shard]}]"
    done
    breaks_off 2 "no shard of 'short.h5' holds" train config.yaml --run.name=again $attempt \
        --data.seq_len=60 "--data.sources=[{name: ships, shards: [short.h5]}]"
    [ ! -e runs/again/model ] || die "a run that broke off left a model"
done
"$mha2mla" train config.yaml --run.name=again 2>err || die "the corrected run: $(cat err)"
breaks_off 1 "validation loss is nan over" train config.yaml --run.name=huge \
    --model.init=none --model.base=huge --train.steps=2 "--data.validation={shards: [shard.h5]}"
[ ! -e runs/huge/model ] || die "a run that diverged left a model"

# ---- more than one rank: one message -----------------------------------------------------------

ranks_refuse 2 2 "train: unknown option --zzz" train config.yaml --zzz
ranks_refuse 2 2 "gives 1 micro-batches for 2 ranks; use at most 1 ranks or a smaller micro_batch" \
    train config.yaml --run.name=new --train.micro_batch=4
ranks_refuse 2 2 "runs/small: there is a run already" train config.yaml --resume never
ranks_refuse 2 2 "other.h5: made with tokenizer" train config.yaml --run.name=two \
    "--data.sources=[{name: ships, shards: [other.h5]}]"
ranks_refuse 2 2 "none: not a directory with a Hugging Face model" eval none --perplexity shard.h5
ranks_refuse 2 1 "none/new.h5: cannot be written" \
    score $small --data shard.h5 --out none/new.h5

# ---- runs --------------------------------------------------------------------------------------

refuses 2 "none: not a run directory, run.json is missing" compare none
refuses 2 "$small: not a run directory, run.json is missing" compare runs/small $small
# refuses_run TEXT FILE SED: a run whose file is so edited; no half table is printed.
refuses_run() {
    rm -rf run
    cp -r runs/small run
    sed -i "$3" "run/$2"
    refuses 2 "run/$2$1" compare runs/small run
    [ ! -s out ] || die "compare printed half a table: $(cat out)"
}
printf '{"step":1,"tokens":64,"loss":5.5}\n{"step":2,"tokens":128,"loss":5.25}\n' \
    >runs/small/metrics.jsonl
refuses_run ":1:10: not valid JSON" run.json 1d
refuses_run ": its format is 'x', not 'mha2mla-run'" run.json 's/mha2mla-run/x/'
refuses_run ": 'd_kv' is missing" run.json 's/"d_kv"/"dkv"/'
refuses_run ": 'name' is not a string" run.json 's/"name": "small"/"name": 3/'
refuses_run ": control characters in 'name'" run.json 's/"small"/"\\u001b[31m"/'
refuses_run ": 'attention' is 'none', allowed are mla and original" run.json \
    's/"original",/"none",/'
refuses_run ": 'cache_numbers_per_token' is 0, allowed are 1 to" run.json \
    's/\("cache_numbers_per_token"\): 32/\1: 0/'
refuses_run ":2:16: not valid JSON" metrics.jsonl '2s/"tokens"/tokens/'
refuses_run ":2: 'step' is missing" metrics.jsonl '2s/step/stop/'
refuses_run ":2: 'valid_loss' is not a number" metrics.jsonl '2s/"loss":5.25/"valid_loss":"x"/'
rm -rf run
cp -r runs/small run
rm run/metrics.jsonl
refuses 2 "run/metrics.jsonl: cannot be opened" compare run
printf '{"step":1,"tokens":64,"lo' >run/metrics.jsonl # a run that is still writing
"$mha2mla" compare run >out || die "a last line without its end is refused"

# ---- standard output cannot be written ---------------------------------------------------------

refuses 2 "text.txt: not a directory of a model, run or checkpoint, nor a .safetensors file" \
    inspect text.txt
for words in --help --version "inspect $gqa" "inspect shard.h5" "compare runs/small" \
    "eval $small --perplexity shard.h5" "train config.yaml --run.name=new --dry-run" \
    "convert --help"; do
    got=0
    timeout 600 "$mha2mla" $words >/dev/full 2>err </dev/null || got=$?
    check_refusal 1 "standard output cannot be written" "$got" "mha2mla $words >/dev/full"
done
[ ! -e runs/new ] || die "--dry-run made runs/new"
