# What the Slurm tests share; sourced on the cluster's head with the program's path as $1. Goes to
# $work, as checks.sh makes it.
# shellcheck shell=bash disable=SC2154 # checks.sh sets mha2mla and root
. "$(dirname -- "${BASH_SOURCE[0]}")/checks.sh" "$1"
trap 'echo "FAILED: ${BASH_SOURCE[0]}, line $LINENO" >&2' ERR
set -o errtrace
export MHA2MLA=$mha2mla OMP_NUM_THREADS=1

# A rank of one thread per node, where the job scripts ask for more than the cluster has.
small=(--nodes=2 --ntasks-per-node=1 --cpus-per-task=1)

# make_project: the job scripts, a model from random weights, shards and a config, in $work.
make_project() {
    cp -r "$root/slurm" .
    make_shard train 1000
    make_shard valid 200
    cat >config.yaml <<END
run: {name: config, dir: runs}
model:
  base: base/model
  convert: {rope: 2-norm, rope_pairs: 2, svd: joint, d_kv: 6, samples: 4}
data:
  seq_len: 32
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], every: 200, sequences: 4}
optim: {lr: 1.0e-3, warmup_steps: 1}
train: {steps: 4, global_batch: 4, micro_batch: 2}
END
    "$mha2mla" train config.yaml --run.name=base --run.dir=. --train.steps=0 \
        --model.base=none --model.convert=none --model.init="{hidden_size: 32,
        intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 4,
        num_key_value_heads: 2, head_dim: 8, vocab_size: 1024, max_position_embeddings: 64,
        tokenizer: $root/configs/demo/model}" >out 2>&1 || die "no base model: $(cat out)"
}

# submit SCRIPT WORDS...: prints the job's id.
submit() {
    sbatch --parsable "${small[@]}" "$@"
}

# job_states JOB: the states of the job, or of its array's tasks, sorted, each once, in one line.
job_states() {
    squeue --noheader --states=all --jobs="$1" --format=%T | sort -u | xargs
}

job_failed() {
    scontrol show job "$1" >&2
    tail -v -n 100 ./*"-$1"*.log >&2 || true
    die "job $1: $2"
}

# submitted_jobs: the ids of the jobs that submit.sh told of in `submitted`.
submitted_jobs() {
    grep -oE '^job [0-9]+' submitted | cut -d' ' -f2 | xargs
}

# wait_for_states JOB REGEX: until the job's states match, at most 600 s; they are in $states then.
wait_for_states() {
    local deadline=$((SECONDS + 600))
    until states=$(job_states "$1") && [[ $states =~ ^($2)$ ]]; do
        [ $SECONDS -lt $deadline ] || job_failed "$1" "still $states after 600 s, expected $2"
        sleep 0.3
    done
}

# expect JOB STATE...: waits until the job, or all tasks of the array, have ended, which must be so.
expect() {
    local job=$1 ended='BOOT_FAIL|CANCELLED|COMPLETED|FAILED|NODE_FAIL|OUT_OF_MEMORY|TIMEOUT'
    shift
    wait_for_states "$job" "($ended)( ($ended))*"
    [ "$states" = "$*" ] || job_failed "$job" "$states, expected $*"
}
