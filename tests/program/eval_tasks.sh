#!/usr/bin/env bash
# eval --tasks: the table, the files, the same on any number of ranks; what is refused, and how it
# stops. On rows of its own and the demo's model.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1

model=$root/configs/demo/model
mkdir tasks
for i in 1 2 3 4 5 6 7; do
    echo "{\"goal\": \"Do it $i times\", \"sol1\": \"with care\", \"sol2\": \"in a hurry\", \"label\": $((i % 2))}"
done >tasks/piqa.jsonl
printf '%s\n' '{"question": "What is cold?", "choices": {"text": ["fire", "ice", "hot tea"], "label": ["A", "B", "C"]}, "answerKey": "B"}' |
    gzip >tasks/arc_easy.jsonl.gz
printf '%s\n' '{"sentence": "Tom saw Tim, but _ ran.", "option1": "Tom", "option2": "Tim", "answer": "2"}' >tasks/winogrande.jsonl

# ---- what comes out, on one rank and on three
"$mha2mla" eval "$model" --tasks tasks --rules lm-eval --out one.json --log-samples one.jsonl >one.txt 2>err ||
    die "$(cat err)"
grep -q '^rules lm-eval, no BOS put, at most 512 tokens, KV cache float32: 2560.0 bytes/token$' one.txt ||
    die "the first line: $(cat one.txt)"
[ "$(awk '{ print $1 }' one.txt | tr '\n' ' ')" = 'rules task arc_easy piqa winogrande no ' ] || die "the table: $(cat one.txt)"
grep -qE '^piqa +0\.[0-9]{4} +0\.[0-9]{4} +0\.[0-9]{4} +0\.[0-9]{4} +7 +0' one.txt || die "piqa: $(cat one.txt)"
grep -qE '^winogrande .* - +- +1 +0  within 2 stderr of chance, 0.5000$' one.txt || die "winogrande: $(cat one.txt)"
[ "$(wc -l <one.jsonl)" -eq 9 ] || die "samples: $(cat one.jsonl)"
grep -q '"acc_norm_stderr,none": ' one.json || die "no acc_norm of lm-eval's: $(cat one.json)"
mpirun -n 3 --oversubscribe --bind-to none "$mha2mla" eval "$model" --tasks tasks --rules lm-eval \
    --out three.json --log-samples three.jsonl >three.txt 2>err || die "$(cat err)"
for file in txt json jsonl; do
    cmp one.$file three.$file || die "three ranks write another .$file"
done

# Products in bfloat16, which any CPU can emulate, on one rank and on two.
for ranks in 1 2; do
    mpirun -n $ranks --oversubscribe --bind-to none "$mha2mla" eval "$model" --tasks tasks --rules lm-eval \
        --compute bfloat16 --emulate --out $ranks.json --log-samples $ranks.jsonl >$ranks.txt 2>err || die "$(cat err)"
done
for file in txt json jsonl; do
    cmp 1.$file 2.$file || die "two ranks write another .$file in bfloat16"
done
grep -q 'KV cache float32: 2560.0 bytes/token, products in bfloat16$' 1.txt || die "$(cat 1.txt)"
grep -q '"compute": "bfloat16"' 1.json || die "$(cat 1.json)"
! cmp -s 1.jsonl one.jsonl || die "products in bfloat16 change no bit"

# A cache of other numbers gives other likelihoods, and the result says which it was.
"$mha2mla" eval "$model" --tasks tasks --only piqa --rules lm-eval --kv-bits 16 --limit 3 \
    --log-samples bf16.jsonl --out bf16.json >out 2>err || die "$(cat err)"
grep -q 'KV cache bfloat16: 1280.0 bytes/token' out || die "$(cat out)"
[ "$(wc -l <bf16.jsonl)" -eq 3 ] || die "--limit 3: $(cat bf16.jsonl)"
! cmp -s bf16.jsonl <(grep piqa one.jsonl | head -n 3) || die "bfloat16 changes no bit"
grep -q '"limit": 3' bf16.json || die "no limit in $(cat bf16.json)"

# The reference takes the validation split of openbookqa where it is there.
row='{"question_stem": "The sun is", "choices": {"text": ["hot", "cold"], "label": ["A", "B"]}, "answerKey": "A"}'
mkdir split
echo "$row" >split/openbookqa.jsonl
printf '%s\n%s\n' "$row" "$row" >split/openbookqa_validation.jsonl
"$mha2mla" eval "$model" --tasks split >out 2>err || die "$(cat err)"
grep -qE '^openbookqa .* 2 +0 ' out || die "the validation split: $(cat out)"
"$mha2mla" eval "$model" --tasks split --rules lm-eval >out 2>err || die "$(cat err)"
grep -qE '^openbookqa .* 1 +0 ' out || die "the test split: $(cat out)"

# ---- what is refused, each in one line
# ends STATUS TEXT ARGUMENT...
ends() {
    local status=0
    "$mha2mla" eval "${@:3}" >out 2>err || status=$?
    [ $status -eq "$1" ] || die "$*: status $status: $(cat err)"
    grep -qF -- "$2" err || die "expected '$2', got: $(cat err)"
    [ "$(own_lines err | grep -c .)" -eq 1 ] || die "more than a line: $(cat err)"
    [ ! -s out ] || die "printed: $(cat out)"
}
refuses() {
    ends 2 "$@"
}
refuses "no task 'piqua'; did you mean 'piqa'?" "$model" --tasks tasks --only piqua
refuses "have no task 'mmlu_continuation'" "$model" --tasks tasks --only mmlu_continuation
refuses "tasks: has no mmlu.jsonl or mmlu.jsonl.gz, the rows of task mmlu" "$model" --tasks tasks --only mmlu
refuses "--limit is 0" "$model" --tasks tasks --limit 0
refuses "none: no directory with rows of tasks" "$model" --tasks none
refuses "--seq-len goes with --perplexity, not with --tasks" "$model" --tasks tasks --seq-len 64
refuses "--perplexity and --tasks exclude each other" "$model" --tasks tasks --perplexity a.h5
refuses "--max-length is 513" "$model" --tasks tasks --max-length 513
ends 1 "absent/a.json: cannot be written" "$model" --tasks tasks --out absent/a.json

# Files that are read, by any spelling, or twice the same.
ln -s tasks linked
cp -r "$model" copied
refuses "--out tasks/piqa.jsonl would replace a file of --tasks; name another" "$model" --tasks tasks --out tasks/piqa.jsonl
refuses "--log-samples linked/arc_easy.jsonl.gz would replace a file of --tasks" "$model" --tasks ./tasks/ --only piqa \
    --log-samples linked/arc_easy.jsonl.gz
for file in config.json model.safetensors tokenizer.json; do
    refuses "--out copied/$file would replace a file of MODEL" copied --tasks tasks --out copied/$file
    cmp "copied/$file" "$model/$file"
done
refuses "--out and --log-samples are one file, tasks/both; give two" "$model" --tasks tasks --out tasks/both --log-samples linked/../tasks/both
"$mha2mla" eval copied --tasks tasks --only piqa --out copied/eval.json --log-samples tasks/samples.jsonl >out 2>err || die "$(cat err)"
"$mha2mla" eval copied --tasks tasks --only piqa --out copied/eval.json --log-samples tasks/samples.jsonl >out 2>err ||
    die "its own result: $(cat err)"
rm -r copied/eval.json tasks/samples.jsonl

# More memory than a machine has, by its shape, before any weights are read.
sed -i 's/\("num_hidden_layers": \)[0-9]*/\11000/; s/\("intermediate_size": \)[0-9]*/\11000000/' copied/config.json
refuses "GiB are needed, of which the weights take" copied --tasks tasks --only piqa
mkdir bad
echo '{"goal": "a", "sol1": "b", "sol2": "c", "label": -1}' >bad/piqa.jsonl
refuses "bad/piqa.jsonl:1: 'label' has no label" "$model" --tasks bad --only piqa
echo '{"goal": "a", "sol1": "b", "label": 0}' >>tasks/piqa.jsonl
refuses "tasks/piqa.jsonl:8: the column 'sol2' is missing" "$model" --tasks tasks --only piqa
head -c 40 tasks/arc_easy.jsonl.gz >bad/arc_easy.jsonl.gz
refuses "bad/arc_easy.jsonl.gz: cannot be read: " "$model" --tasks bad --only arc_easy
: >bad/winogrande.jsonl
refuses "bad/winogrande.jsonl: has no rows" "$model" --tasks bad --only winogrande
# Nothing stands before the gap, and no file names a token that begins or ends a text.
cp -r "$model" headless
sed -i '/"bos_token\|"eos_token\|"unk_token\|"pad_token/d' headless/tokenizer_config.json
sed -i '/"bos_token_id"\|"eos_token_id"/d' headless/config.json
rm -f headless/generation_config.json headless/special_tokens_map.json
sed -i 's/<|endoftext|>/<|no text ends|>/g' headless/tokenizer.json
echo '{"sentence": "_ ran.", "option1": "Tom", "option2": "Tim", "answer": "2"}' >bad/winogrande.jsonl
refuses "bad/winogrande.jsonl:1: nothing stands before the choices, and the tokenizer of headless names no token" \
    headless --tasks bad --only winogrande
"$mha2mla" eval "$model" --tasks bad --only winogrande >out 2>err || die "$(cat err)"

# ---- a stop leaves neither file. There is work for longer than this script takes to notice.
mkdir long
awk 'BEGIN { for (i = 0; i < 20000; i++) printf("{\"goal\": \"Count to %d\", \"sol1\": \"one by one\", \"sol2\": \"all at once\", \"label\": 0}\n", i) }' >long/piqa.jsonl
"$mha2mla" eval "$model" --tasks long --out stopped.json --log-samples stopped.jsonl >out 2>err &
pid=$!
while ! grep -q 'tasks left out' err; do
    kill -0 $pid 2>/dev/null || die "ended before it was stopped: $(cat out err)"
    sleep 0.05
done
kill -USR1 $pid
status=0
wait $pid || status=$?
[ $status -eq 75 ] || die "status $status after SIGUSR1: $(cat err)"
[ ! -e stopped.json ] && [ ! -e stopped.jsonl ] && [ -z "$(temporaries .)" ] || die "left: $(ls)"
