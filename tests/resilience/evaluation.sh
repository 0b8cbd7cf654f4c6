#!/usr/bin/env bash
# Evaluation on tasks within a run: the same scores on any number of ranks, the same weights with
# and without it, one line of metrics.jsonl for each evaluation however often the run is resumed,
# and refusals before the first step.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"

make_shard train 300
mkdir tasks
cat >tasks/piqa.jsonl <<'EOC'
{"goal": "Fry an egg", "sol1": "Use a pan.", "sol2": "Use a hat.", "label": 0}
{"goal": "Dig", "sol1": "Take a spoon to the garden.", "sol2": "Take a spade.", "label": 1}
{"goal": "Read", "sol1": "a book", "sol2": "a brick", "label": 0}
EOC
cat >tasks/arc_easy.jsonl <<'EOC'
{"question": "What is hot?", "choices": {"text": ["fire", "ice"], "label": ["A", "B"]}, "answerKey": "A"}
EOC
cat >config.yaml <<EOC
model: {base: $root/configs/demo/model, convert: {rope: high, rope_pairs: 2, d_kv: 8}}
data: {seq_len: 32, sources: [{name: stories, shards: [train.h5]}]}
train: {steps: 6, global_batch: 4}
checkpoint: {every: 3, keep: 10}
EOC
tasks='--eval.tasks=tasks --eval.every=2'

# lines RUN: those of its evaluations.
lines() {
    grep '"tasks"' "runs/$1/metrics.jsonl" || true
}

# same_run RUN REFERENCE: the same lines, model and, but for the run's name, eval.json.
same_run() {
    [ "$(lines "$1")" = "$(lines "$2")" ] || die "$1: other evaluations: $(lines "$1")"
    cmp "runs/$1/model/model.safetensors" "runs/$2/model/model.safetensors" || die "$1: other weights"
    diff <(sed "s,runs/$1/,," "runs/$1/eval.json") <(sed "s,runs/$2/,," "runs/$2/eval.json") >difference ||
        die "$1: another eval.json: $(cat difference)"
}

ranks 1 train config.yaml --run.name=off
[ -z "$(lines off)" ] && [ ! -e runs/off/eval.json ] || die 'evaluated without being asked to'
ranks 1 train config.yaml --run.name=n1 $tasks
[ "$(lines n1 | grep -o '"step":[246]' | wc -l)" -eq 3 ] || die "evaluations: $(lines n1)"
cmp runs/off/model/model.safetensors runs/n1/model/model.safetensors || die 'evaluation changes weights'
ranks 2 train config.yaml --run.name=n2 $tasks
same_run n2 n1

# The numbers of the model that the run exports.
ranks 1 eval runs/n1/model --tasks tasks --limit 100 --out eval.json
diff <(grep -v '"step"\|"tokens"' runs/n1/eval.json | sed 's/,$//') <(sed 's/,$//' eval.json) >difference ||
    die "eval says another thing: $(cat difference)"

# A finished run is not evaluated again; one that has no eval.json is, and keeps its lines.
cp -r runs/n1 runs/again
rm runs/again/eval.json
ranks 1 train config.yaml --run.name=again $tasks
same_run again n1
ranks 2 train config.yaml --run.name=again $tasks
grep -q 'is finished' out || die "a finished run: $(cat out)"
same_run again n1

# From step 3 on, where later lines are written again.
rm -r runs/again/checkpoints/step-00000006 runs/again/eval.json
ranks 2 train config.yaml --run.name=again $tasks
same_run again n1

# All is refused before the first step, with one line.
for n in 1 2; do
    ranks_refuse $n 2 'nowhere' train config.yaml --run.name=bad --eval.tasks=nowhere
    ranks_refuse $n 2 "did you mean 'piqa'" train config.yaml --run.name=bad --eval.tasks=tasks --eval.only=[piqo]
done
mkdir rows
echo '{"goal": "Dig"}' >rows/piqa.jsonl
ranks_refuse 2 2 'piqa.jsonl:1' train config.yaml --run.name=bad --eval.tasks=rows
ranks_refuse 2 2 'model.init.tokenizer is not; texts of tasks need a tokenizer' train config.yaml --run.name=bad \
    --model.base=none --model.convert=none --eval.tasks=tasks \
    '--model.init={hidden_size: 48, intermediate_size: 96, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 8192, max_position_embeddings: 64}'
[ ! -e runs/bad/metrics.jsonl ] || die 'a refused run has begun'

# A question longer than the model's 512 positions is cut on the left, and counted.
mkdir long
awk 'BEGIN { printf("{\"goal\": \""); for (i = 0; i < 600; i++) printf("step %d ", i)
             print "\", \"sol1\": \"go\", \"sol2\": \"stay\", \"label\": 0}" }' >long/piqa.jsonl
head -n 1 tasks/piqa.jsonl >>long/piqa.jsonl
ranks 2 train config.yaml --run.name=long --train.steps=1 --eval.tasks=long
grep -q '"n_cut": 1' runs/long/eval.json || die "not cut: $(cat runs/long/eval.json)"
[ "$(lines long | wc -l)" -eq 1 ] || die "evaluations after the last step alone: $(lines long)"
! grep -q 'forwards' out || die "a run tells of forwards: $(cat out)"

# A new run in a directory from which an old one was removed does not keep its scores.
for mode in never auto; do
    mkdir -p "runs/new-$mode"
    cp runs/n1/eval.json "runs/new-$mode/eval.json"
    ranks 2 train config.yaml --run.name="new-$mode" --train.steps=1 --resume $mode
    [ ! -e "runs/new-$mode/eval.json" ] || die "--resume $mode: eval.json of an earlier run"
done

# Every run of a sweep is evaluated, and the comparison has their scores.
ranks 2 sweep config.yaml --run.name=swept --train.steps=2 --d-kv 8,4 --baseline $tasks --out compared
for name in baseline dkv8 dkv4; do
    [ -s "runs/swept-$name/eval.json" ] || die "the sweep's $name has no eval.json"
    [ "$(lines "swept-$name" | wc -l)" -eq 1 ] || die "$name: $(lines "swept-$name")"
done
[ "$(grep -c piqa compared/tasks.csv)" -ge 3 ] || die "no scores in the comparison: $(ls compared)"

# A signal while rows are scored, too many to be done before it: the step is saved, and evaluated
# first when the run goes on.
mkdir many
for ((i = 0; i < 8000; i++)); do cat tasks/piqa.jsonl; done >many/piqa.jsonl
"$mha2mla" train config.yaml --run.name=stopped --eval.tasks=many --eval.every=2 --eval.limit=0 >out 2>&1 &
until grep -qs '"step":2,' runs/stopped/metrics.jsonl; do
    kill -0 $! || die "ended before step 2: $(cat out)"
    sleep 0.1
done
kill -USR1 $!
got=0
wait $! || got=$?
[ $got -eq 75 ] || die "a signal while evaluating: status $got: $(cat out)"
[ -z "$(lines stopped)" ] || die 'an evaluation that was stopped has a line'
ranks 2 train config.yaml --run.name=stopped $tasks
same_run stopped n1
