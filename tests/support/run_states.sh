# What a run's checkpoints and metrics hold, bit by bit; sourced after checks.sh by tests whose runs
# save every second of seven steps.

# state RUN STEP: the digest of a checkpoint.
state() {
    "$mha2mla" inspect --verify "runs/$1/checkpoints/step-0000000$2" | awk '$1 == "state" { print $2 }'
}

# losses RUN: the lines of metrics.jsonl without their times.
losses() {
    sed -E 's/,"[a-z_]+_s":[^,}]*//g' "runs/$1/metrics.jsonl"
}

# same_states RUN REFERENCE: all checkpoints and all losses are equal.
same_states() {
    local step
    for step in 2 4 6 7; do
        [ -n "$(state "$2" $step)" ] || die "$2: no state at step $step"
        [ "$(state "$1" $step)" = "$(state "$2" $step)" ] || die "$1: another state than $2 at step $step"
    done
    diff <(losses "$1") <(losses "$2") >difference || die "$1: other losses than $2: $(cat difference)"
}
