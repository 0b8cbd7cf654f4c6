#!/usr/bin/env bash
# `eval --longbench`: the table and the JSON file, ranks, a file of predictions that is stopped,
# killed and gone on from, and what is refused.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1 LC_ALL=C

model=$root/configs/demo/model sets=$root/tests/golden/longbench/sets
own="--longbench $sets --max-length 200"

# evaluate ARGUMENTS...: the table in `table`, what is said besides in `said`.
evaluate() {
    "$mha2mla" eval "$@" >table 2>said || die "eval $*: status $?: $(cat said)"
}

# lines FILE: the predictions in it.
lines() {
    [ -e "$1" ] && tail -n +2 "$1" | wc -l || echo 0
}

test_table_and_json() {
    evaluate "$model" $own --out eval.json --predictions whole.jsonl
    grep -q '^greedy, at most 200 tokens of prompt and answer, 9 of 9 prompts cut in the middle' \
        table || die "$(cat table)"
    grep -q 'KV cache float32: 2560.0 bytes/token' table || die "$(cat table)"
    [ "$(awk 'NR > 2 && NF == 7 { print $1, $2, $3, $4 }' table | paste -sd,)" = \
        "hotpotqa qa_f1 32 3,trec classification 64 1,passage_count count 32 1,lcc edit_sim 64 2,niah_own match_all 128 2" ] ||
        die "$(cat table)"
    grep -q '^no average of 16, these are missing: narrativeqa, qasper, ' table || die "$(cat table)"
    grep -q 'warning: niah_own: 2 of 2 prompts are longer than the model.s 200 tokens' said ||
        die "$(cat said)"
    grep -q '^mha2mla: prompts: 1224 tokens in .* answers: .* tokens/s' said || die "$(cat said)"
    local part
    for part in '"longbench_lcc": {' '"code_sim_score,none": ' '"niah_own": {' '"kind": "longbench"' \
        '"string_match_all,none": ' '"metric": "edit_sim"' '"max_length": 200' '"n_cut": 9' \
        '"bytes_per_token": 2560.0' '"original_bytes_per_token": 1280.0' '"prompt": '; do
        grep -qF "$part" eval.json || die "no $part: $(cat eval.json)"
    done
    ! grep -q '"average' eval.json || die "an average of 4 sets: $(cat eval.json)"
    [ "$(lines whole.jsonl)" -eq 9 ] && [ ! -e whole.jsonl.lock ] || die "$(ls; cat whole.jsonl)"
}

# What is complete is scored again and not decoded: the weights need not be there.
test_predictions_alone() {
    cp -r "$model" weightless
    cp table first
    cp whole.jsonl again.jsonl
    evaluate weightless $own --predictions again.jsonl
    cmp table first
    cmp again.jsonl whole.jsonl
    ! grep -q 'tokens/s' said && grep -q '9 of 9 answers are in again.jsonl' said || die "$(cat said)"
    # Fewer sets and rows: the others' answers stay in the file.
    evaluate weightless $own --predictions again.jsonl --only lcc,hotpotqa --limit 1
    [ "$(awk 'NR > 2 && NF == 7 { print $1, $4 }' table | paste -sd,)" = "hotpotqa 1,lcc 1" ] ||
        die "$(cat table)"
    cmp again.jsonl whole.jsonl
}

test_ranks_and_caches() {
    local n bits
    for n in 2 3; do
        mpirun -n $n --oversubscribe --bind-to none "$mha2mla" eval "$model" $own \
            --predictions ranks.jsonl >table 2>said || die "$n ranks: $(cat said)"
        cmp table first
        cmp ranks.jsonl whole.jsonl
        rm ranks.jsonl
    done
    for bits in 32 2; do
        evaluate "$model" --longbench "$sets" --only hotpotqa,niah_own --max-length 400 --kv-bits $bits \
            --predictions $bits.jsonl
        [ "$(lines $bits.jsonl)" -eq 5 ] || die "$(cat $bits.jsonl)"
    done
    grep -q 'KV cache channel 2 bits: 200.0 bytes/token' table || die "$(cat table)"
    ! cmp -s <(tail -n +2 32.jsonl) <(tail -n +2 2.jsonl) || die "2 bits answer as 32 do"
}

# stop_midway SIGNAL STATUS [LAUNCHER...]: it ends while a long evaluation is answering.
stop_midway() {
    local signal=$1 status=$2 got=0 before
    before=$(lines stopped.jsonl)
    shift 2
    "$@" "$mha2mla" eval "$model" --longbench long --max-length 200 --batch 2 \
        --predictions stopped.jsonl >table 2>said &
    local job=$!
    until [ "$(lines stopped.jsonl)" -ge $((before + 3)) ]; do
        kill -0 $job || die "it ended: $(cat said)"
        sleep 0.02
    done
    kill -"$signal" $job
    wait $job || got=$?
    [ $got -eq "$status" ] || die "SIG$signal: status $got: $(cat said)"
    [ ! -s table ] || die "a table of a part: $(cat table)"
}

test_a_stopped_evaluation_goes_on() {
    local i
    mkdir long
    for i in $(seq 1000); do
        sed "s/Question: Who/Question: $i. Who/" "$sets/trec.jsonl"
    done >long/trec.jsonl
    local few="--longbench long --max-length 200 --limit 12"
    evaluate "$model" $few --predictions few.jsonl
    cp table few
    stop_midway TERM 75
    grep -q '^mha2mla: stopped by SIGTERM; [0-9]* of 1000 answers are in stopped.jsonl' said ||
        die "$(cat said)"
    stop_midway KILL 137
    stop_midway USR1 75 mpirun -n 2 --oversubscribe --bind-to none
    grep -q '^mha2mla: stopped by SIGUSR1; ' said || die "$(cat said)"
    evaluate "$model" $few --predictions stopped.jsonl
    cmp table few
    cmp <(grep -E '"row":([0-9]|10|11),' stopped.jsonl) <(tail -n +2 few.jsonl)
    grep -q 'of 12 answers are in stopped.jsonl' said || die "it began again: $(cat said)"
}

test_what_is_refused() {
    refuses 2 "gov_report: answers have up to 512 tokens, prompt and answer together 512" \
        eval "$model" --longbench gov
    refuses 2 "niah_own: answers have up to 128 tokens, prompt and answer together 128; give a longer \
--max-length or --only hotpotqa,trec,passage_count,lcc" eval "$model" --longbench "$sets" --max-length 128
    refuses 2 "'lccc' is neither a set of LongBench nor in" eval "$model" $own --only lccc
    refuses 2 "has no qasper.jsonl and no qasper.jsonl.gz" eval "$model" $own --only trec,qasper
    refuses 2 "empty: has no set of LongBench" eval "$model" --longbench empty
    refuses 2 "bad/lcc.jsonl:2: 'answers' is missing" eval "$model" --longbench bad
    refuses 2 "--max-length is 513, more than" eval "$model" --longbench "$sets" --max-length 513
    refuses 2 "eval: --batch goes with --longbench" eval "$model" --tasks "$sets" --batch 2
    refuses 2 "eval: --tasks and --longbench exclude each other" eval "$model" $own --tasks "$sets"
    refuses 2 "--out and --predictions are one file, both.jsonl; give two" \
        eval "$model" $own --predictions both.jsonl --out both.jsonl
    refuses 2 "--out bad/lcc.jsonl would replace a file of --longbench; name another" \
        eval "$model" --longbench bad --out bad/lcc.jsonl
    refuses 2 "--out and --log-samples are one file, both.jsonl; give two" \
        eval "$model" --tasks "$sets" --log-samples both.jsonl --out both.jsonl
    refuses 2 "max_length is 200 there and 210 here; name another file" \
        eval "$model" --longbench "$sets" --max-length 210 --predictions whole.jsonl
    ranks_refuse 2 2 'cache is "float32" there and "channel 4 bits" here' \
        eval "$model" $own --kv-bits 4 --predictions whole.jsonl
    ranks_refuse 2 2 "bad/lcc.jsonl:2: 'answers' is missing" eval "$model" --longbench bad
    cp -r "$model" long_model
    sed -i 's/"max_position_embeddings": 512/"max_position_embeddings": 16777216/' long_model/config.json
    refuses 2 "the KV cache (float32, 2560 bytes per token, 64 at a time)" \
        eval long_model --longbench "$sets" --batch 64
    refuses 2 "/dev/full: is a device, not a regular file" eval "$model" $own --only trec --predictions /dev/full
}

test_table_and_json
test_predictions_alone
test_ranks_and_caches
test_a_stopped_evaluation_goes_on
mkdir empty bad gov
printf '%s\n' '{"context": "x", "input": "", "answers": ["y"]}' '{"context": "x", "input": ""}' \
    >bad/lcc.jsonl
printf '%s\n' '{"context": "x", "input": "", "answers": ["y"]}' >gov/gov_report.jsonl
test_what_is_refused
