#!/usr/bin/env bash
# Text from an original and a converted model: where prompts come from, how answers end, batches and
# ranks, the quantized cache, and what is refused.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1 LC_ALL=C

model=$root/configs/demo/model
"$mha2mla" convert "$model" --out mla --rope high --rope-pairs 4 --d-kv 16 >/dev/null
prompt='The ship' # its answer is longer than 60 tokens

# generate ARGUMENTS...: what the model answers; what is said of it is in `said`.
generate() {
    "$mha2mla" generate "$@" 2>said || die "generate $*: status $?: $(cat said)"
}

# ids FILE: the ids of the answers, a line each.
ids() {
    grep -o '"ids":\[[^]]*\]' "$1" | tr -d '"ids:[]'
}

# reasons FILE: why the answers ended.
reasons() {
    grep -o '"finish_reason":"[a-z]*"' "$1" | cut -d'"' -f4 | paste -sd' '
}

test_prompt_comes_from_option_file_and_pipe() {
    generate "$model" -p "$prompt" -n 24 </dev/null >whole
    [ "$(wc -c <whole)" -gt 24 ] || die "an answer of $(wc -c <whole) bytes"
    generate "$model" --prompt="$prompt" --max-new-tokens 24 | cmp - whole
    printf '%s\n' "$prompt" >prompt.txt # its line end is not part of the prompt
    generate "$model" -f prompt.txt -n 24 | cmp - whole
    generate "$model" --file - -n 24 <prompt.txt | cmp - whole
    printf '%s' "$prompt" | generate "$model" -n 24 | cmp - whole
    grep -q '^mha2mla: prompt: [0-9]* tokens in .* decoding: 23 tokens' said || die "$(cat said)"
    # 1280 bytes of full keys and values, in bfloat16
    grep -q 'KV cache: bfloat16, 1280 bytes per token, nominal .* real .* peak memory' said ||
        die "$(cat said)"
    generate mla -p "$prompt" -n 4 >/dev/null
    grep -q 'KV cache: bfloat16, 480 bytes per token' said || die "$(cat said)"
}

test_json_has_text_ids_and_reason() {
    generate "$model" -p "$prompt" -n 24 --json >answer.json
    [ "$(wc -l <answer.json)" -eq 1 ] && [ "$(ids answer.json | tr ',' '\n' | wc -l)" -eq 24 ] ||
        die "$(cat answer.json)"
    grep -q '^{"prompt":0,"sample":0,"text":".*","finish_reason":"length","prompt_tokens":' \
        answer.json || die "$(cat answer.json)"
}

# A stop string that is cut out of the middle of an answer, so that it crosses tokens, ends it there.
test_stop_strings_cross_tokens() {
    local text stop length
    text=$(cat whole)
    for length in 1 2 5 9; do
        stop=${text:14:length}
        generate "$model" -p "$prompt" -n 24 --stop $'\x01never' --stop "$stop" >got
        [ "$(cat got)" = "${text%%"$stop"*}" ] || die "--stop '$stop': '$(cat got)' of '$text'"
    done
    generate "$model" -p "$prompt" -n 24 --stop "$stop" --json >got
    [ "$(reasons got)" = stop ] && grep -qF '"stop":"' got || die "$(cat got)"
}

# The token that an answer has in third place as one that ends texts.
test_end_tokens_of_generation_config() {
    local third
    cp -r "$model" with_end
    third=$(ids answer.json | cut -d, -f3)
    echo "{\"eos_token_id\": [1000, $third], \"bos_token_id\": 0}" >with_end/generation_config.json
    generate with_end -p "$prompt" -n 24 --json >got
    [ "$(reasons got)" = eos ] || die "$(cat got)"
    [ "$(ids got)" = "$(ids answer.json | cut -d, -f1-3)" ] ||
        [[ $(ids answer.json) == "$(ids got),"* ]] || die "$(ids got) of $(ids answer.json)"
    generate with_end -p "$prompt" -n 24 --json --ignore-eos >got
    [ "$(ids got)" = "$(ids answer.json)" ] && [ "$(reasons got)" = length ] || die "$(cat got)"
}

# At a high temperature tokens are any bytes; what comes through the pipe is UTF-8 all the same, and
# the same as in JSON.
test_samples_are_valid_utf8_and_follow_from_the_seed() {
    local seed
    generate "$model" -p "$prompt" -n 200 --temperature 1000 --samples 3 | cat >first
    seed=$(sed -n 's/^mha2mla: seed //p' said)
    [ -n "$seed" ] || die "no seed is told: $(cat said)"
    iconv -f UTF-8 -t UTF-8 first >/dev/null || die "what is printed is not UTF-8"
    generate "$model" -p "$prompt" -n 200 --temperature 1000 --samples 3 --seed "$seed" --batch 1 |
        cmp - first
    ! grep -q seed said || die "a seed that was given is told"
    grep -qx -- '--- answer 3 of 3 ---' first || die "$(cat first)"
    generate "$model" -p "$prompt" -n 200 --temperature 1000 --samples 3 --seed 7 >second
    ! cmp -s first second || die "another seed gives the same answers"
    grep -q $'\xef\xbf\xbd' first second || die "no token was a part of a character"
}

test_filters() {
    generate "$model" -p "$prompt" -n 24 --temperature 2 --seed 3 >free
    ! cmp -s free whole || die "a temperature of 2 changes nothing"
    generate "$model" -p "$prompt" -n 24 --temperature 2 --seed 3 --top-k 1 | cmp - whole
    generate "$model" -p "$prompt" -n 24 --temperature 2 --seed 3 --top-p 0.0001 | cmp - whole
    generate "$model" -p "$prompt" -n 24 --temperature 2 --seed 3 --min-p 1 | cmp - whole
    generate "$model" -p "$prompt" -n 60 --repetition-penalty 5 --json >got
    [ "$(ids got | tr ',' '\n' | sort | uniq -d | wc -l)" -lt \
        "$(generate "$model" -p "$prompt" -n 60 --json | tee all >/dev/null; ids all | tr ',' '\n' |
            sort | uniq -d | wc -l)" ] || die "a penalty of 5 leaves as many tokens repeated"
}

# Prompts of different lengths: order and bytes are the same for any batch and any number of ranks.
test_batches_and_ranks_give_the_same_lines() {
    local n arguments
    local text='Iris has a yellow duck. One day'
    for n in 1 2 3 4 5 6 7; do
        printf '{"prompt": "%s", "id": "number %d"}\n' "${text:0:$((4 * n))}" "$n"
    done >prompts.jsonl
    echo '"a string is a prompt, too"' >>prompts.jsonl
    for arguments in "-n 20" "-n 12 --samples 2 --temperature 0.9 --seed 5"; do
        generate mla --prompts prompts.jsonl $arguments --batch 1 >lines
        [ "$(sed 's/^{"prompt":\([0-9]*\).*/\1/' lines | uniq | paste -sd' ')" = "0 1 2 3 4 5 6 7" ] ||
            die "$(cat lines)"
        grep -q '"id":"number 3"' lines || die "no id is repeated: $(cat lines)"
        for n in 3 8 64; do
            generate mla --prompts prompts.jsonl $arguments --batch $n | cmp - lines
        done
        generate mla --prompts - $arguments <prompts.jsonl | cmp - lines
        for n in 2 3; do
            mpirun -n $n --oversubscribe --bind-to none "$mha2mla" generate mla \
                --prompts prompts.jsonl $arguments 2>said >got || die "$n ranks: $(cat said)"
            cmp got lines
        done
    done
    # Standard input is rank 0's alone; fewer prompts than ranks share the samples.
    generate mla -p "$prompt" -n 10 --samples 3 --temperature 1 --seed 2 >lines
    printf '%s' "$prompt" | mpirun -n 2 --oversubscribe --bind-to none "$mha2mla" generate mla \
        -n 10 --samples 3 --temperature 1 --seed 2 2>said >got || die "$(cat said)"
    cmp got lines
    # A seed that is drawn is the same on all ranks and makes the answers again.
    mpirun -n 2 --oversubscribe --bind-to none "$mha2mla" generate mla --prompts prompts.jsonl -n 8 \
        --temperature 1 2>said >lines || die "$(cat said)"
    generate mla --prompts prompts.jsonl -n 8 --temperature 1 \
        --seed "$(sed -n 's/^mha2mla: seed //p' said)" | cmp - lines
}

test_quantized_caches() {
    local arguments
    for arguments in "--kv-bits 8" "--kv-bits 4" "--kv-bits 3" "--kv-bits 2,4" "--kv-type float32" \
        "--kv-bits 4 --kv-scheme hqq" "--kv-bits 2 --kv-scheme quanto --kv-policy reference"; do
        generate mla -p "$prompt" -n 300 --ignore-eos --json $arguments >got
        [ "$(ids got | tr ',' '\n' | wc -l)" -eq 300 ] || die "$arguments: $(cat got)"
    done
    generate mla -p "$prompt" -n 8 --kv-bits 4 >/dev/null
    grep -q 'KV cache: channel 4 bits, 135 bytes per token' said || die "$(cat said)"
}

# An interrupt ends it with what there is, whole lines and the statistics.
test_an_interrupt_ends_it() {
    local got i signal
    for i in $(seq 2000); do echo "\"$prompt number $i\""; done >many.jsonl
    for signal in TERM INT; do
        : >out
        # Shells start background jobs with SIGINT ignored.
        env --default-signal=INT "$mha2mla" generate "$model" --prompts many.jsonl -n 300 \
            --ignore-eos >out 2>err &
        until [ -s out ]; do
            kill -0 $! || die "it ended: $(cat err)"
            sleep 0.05
        done
        kill -$signal $!
        got=0
        wait $! || got=$?
        [ $got -eq 1 ] && grep -q 'error: interrupted; [0-9]* of 2000 answers are complete' err ||
            die "SIG$signal: status $got: $(cat err)"
        grep -q '^mha2mla: KV cache: ' err || die "$(cat err)"
        # Between two batches no answer is interrupted.
        grep -q "interrupted; $(grep -vc '"finish_reason":"interrupted"' out) of" err &&
            [ "$(grep -c '^{.*}$' out)" -eq "$(wc -l <out)" ] || die "$(cat err; tail -n 2 out)"
    done
}

test_a_converted_model_warns_beyond_its_healing() {
    cp -r mla healed
    sed -i 's/"mha2mla": {/"mha2mla": {"healed_seq_len": 40,/' healed/config.json
    generate healed -p "$prompt" -n 20 >/dev/null
    ! grep -q warning said || die "$(cat said)"
    generate healed -p "$prompt" -n 50 >/dev/null
    grep -q 'warning: .*40' said || die "no warning: $(cat said)"
}

test_chat_templates() {
    local loop
    cp -r "$model" chat
    loop="{{'<|im_start|>' + message['role'] + '\\\\n' + message['content'] + '<|im_end|>' + '\\\\n'}}"
    loop="{% for message in messages %}$loop{% endfor %}"
    loop="$loop{% if add_generation_prompt %}{{ '<|im_start|>assistant\\\\n' }}{% endif %}"
    refuses 2 "tokenizer_config.json: has no 'chat_template'" generate "$model" -p x --chat
    printf '{"chat_template": "{{ bos_token }}"}' >chat/tokenizer_config.json
    refuses 2 "the chat template is none that is known here (ChatML), it begins with '{{ bos" \
        generate chat -p x --chat
    printf '{"chat_template": "%b"}' "$loop" >chat/tokenizer_config.json
    generate chat -p Hello --chat -n 5 --json >got
    generate chat -p '<|im_start|>user
Hello<|im_end|>
<|im_start|>assistant
' -n 5 --json | cmp - got
}

test_bad_input_is_one_line() {
    refuses 2 "is empty; give it as --prompts" generate "$model" --prompts ""
    refuses 2 "--prompt and --file are both given" generate "$model" -p x -f prompt.txt
    refuses 2 "nowhere.txt" generate "$model" -f nowhere.txt
    printf 'caf\xe9' >latin1.txt
    refuses 2 "latin1.txt: byte 0xE9 at offset 3 is not UTF-8" generate "$model" -f latin1.txt
    refuses 2 "--prompt: byte 0xE9 at offset 3" generate "$model" -p $'caf\xe9'
    refuses 2 "--stop has byte 0xE9" generate "$model" -p x --stop $'\xe9'
    printf '"one"\n{"prompt": 3}\n' >bad.jsonl
    refuses 2 "bad.jsonl:2: neither a string nor an object" generate "$model" --prompts bad.jsonl
    : >empty.jsonl
    refuses 2 "empty.jsonl: has no prompts" generate "$model" --prompts empty.jsonl
    refuses 2 "--kv-bits 5: allowed are" generate mla -p x --kv-bits 5
    refuses 2 "--kv-bits 2,4,8: allowed are" generate mla -p x --kv-bits 2,4,8
    refuses 2 "give --kv-bits 8, 4, 3 or 2" generate mla -p x --kv-scheme hqq
    refuses 2 "--kv-scheme is 'fast', allowed are channel, hqq, quanto" \
        generate mla -p x --kv-bits 4 --kv-scheme fast
    refuses 2 "KV scheme channel has no reference policy" \
        generate mla -p x --kv-bits 4 --kv-policy reference
    refuses 2 "--max-new-tokens is 0, allowed are -1" generate "$model" -p x -n 0
    refuses 2 "--top-p" generate "$model" -p x --top-p 1.5
    refuses 2 "top-p is 0, allowed are more than 0" generate "$model" -p x --top-p 0
    refuses 2 "--temperature" generate "$model" -p x --temperature -1
    refuses 2 "unknown option --top-n; did you mean --top-k" generate "$model" -p x --top-n 3
    refuses 2 "512" generate "$model" -p x --ctx 600
    refuses 2 "with 510 of --max-new-tokens are 513, " generate "$model" -p "$prompt" -n 510
    refuses 2 "the prompt has 3 tokens, --ctx is 3" generate "$model" -p "$prompt" --ctx 3
    refuses 2 "GiB are needed" generate "$model" -p "$prompt" --memory 0.001
    refuses 2 "nowhere" generate nowhere -p x
    # A model whose tokenizer names no beginning of a text; the demo's does.
    generate "$model" -p '' -n 4 --json >got
    grep -q '"prompt_tokens":1,' got || die "$(cat got)"
    cp -r "$model" nameless
    echo '{}' >nameless/tokenizer_config.json
    refuses 2 "--prompt: the prompt is empty, and nameless names no token" \
        generate nameless -p ''
    cp -r "$model" cut
    truncate -s 100000 cut/model.safetensors
    refuses 2 "cut/model.safetensors" generate cut -p x
    ranks_refuse 2 2 "latin1.txt: byte 0xE9 at offset 3" generate "$model" -f latin1.txt
    ranks_refuse 2 2 "the prompt has 3 tokens, --ctx is 3" generate "$model" -p "$prompt" --ctx 3
    : | ("$mha2mla" generate "$model" -p "$prompt" -n 4 >/dev/full 2>err && die "a full disk is no error"
        grep -q 'standard output cannot be written' err || die "$(cat err)")
}

test_prompt_comes_from_option_file_and_pipe
test_json_has_text_ids_and_reason
test_stop_strings_cross_tokens
test_end_tokens_of_generation_config
test_samples_are_valid_utf8_and_follow_from_the_seed
test_filters
test_batches_and_ranks_give_the_same_lines
test_quantized_caches
test_an_interrupt_ends_it
test_a_converted_model_warns_beyond_its_healing
test_chat_templates
test_bad_input_is_one_line
