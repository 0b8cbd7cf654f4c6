#!/usr/bin/env bash
# A sweep over cache sizes and other keys: its configs, runs under one mpirun, the comparison; what is
# done is not done again; a run that fails or is stopped ends it; the same as jobs of Slurm.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
export OMPI_MCA_ess_singleton_isolated=1

make_shard train 200
make_shard valid 60
cat >tiny.yaml <<EOC
run: {name: tiny-dkv8}
model:
  init: {hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2, num_attention_heads: 2,
         num_key_value_heads: 1, head_dim: 8, vocab_size: 1024, max_position_embeddings: 64}
  convert: {rope_pairs: 1, d_kv: 8, samples: 4}
data:
  seq_len: 16
  sources: [{name: stories, shards: [train.h5]}]
  validation: {shards: [valid.h5], sequences: 4}
train: {steps: 2, global_batch: 4, micro_batch: 2}
EOC

# A mistake in any of the runs is reported before the first one starts.
refuses 2 "d_kv is 99, allowed are 1 to" sweep tiny.yaml --d-kv 4,99
refuses 2 "--d-kv is '4,,2'; give whole numbers" sweep tiny.yaml --d-kv 4,,2
refuses 2 "--d-kv is '4,'; give whole numbers" sweep tiny.yaml --d-kv 4,
refuses 2 "--d-kv is '4x'; give whole numbers" sweep tiny.yaml --d-kv 4x
refuses 2 "--d-kv is '0'; give whole numbers" sweep tiny.yaml --d-kv 0
refuses 2 "--d-kv has 4 twice" sweep tiny.yaml --d-kv 4,2,4
refuses 2 "nothing is varied; give --d-kv 16,8,4, or --vary" sweep tiny.yaml
refuses 2 "sweep needs one CONFIG, got 0" sweep --d-kv 4
refuses 2 "rope_pairs is missing" sweep tiny.yaml --d-kv 4 --model.convert=none
refuses 2 "has no model.convert, so --baseline would" sweep tiny.yaml --vary optim.lr=1 --baseline \
    --model.convert=none
refuses 2 "unknown key optim.lrs; did you mean optim.lr?" sweep tiny.yaml --vary optim.lrs=1,2
refuses 2 "model.convert.rope is 'wide', allowed are" sweep tiny.yaml --vary \
    model.convert.rope=high,wide
refuses 2 "--vary optim.lr has 1e-3 twice" sweep tiny.yaml --vary optim.lr=1e-3,2e-3,1e-3
refuses 2 "model.convert.d_kv is varied twice" sweep tiny.yaml --d-kv 4 --vary model.convert.d_kv=2
refuses 2 "runs tiny-dkv8-lr-1e-3 and tiny-dkv8-lr-0.001 have the same settings" sweep tiny.yaml \
    --vary optim.lr=1e-3,2e-3,0.001
refuses 2 "more than 255 combinations" sweep tiny.yaml --vary run.seed="$(seq -s, 20)" \
    --vary train.steps="$(seq -s, 20)"
refuses 2 "the sweep itself names the runs" sweep tiny.yaml --vary run.name=a,b
refuses 2 "--task is 3, allowed are 1 to 2" sweep tiny.yaml --d-kv 4,2 --task 3
refuses 2 "--task is 0, allowed are 1 to 2; 0 needs --baseline" sweep tiny.yaml --d-kv 4,2 --task 0
refuses 2 "only one of --list, --slurm and --task" sweep tiny.yaml --d-kv 4 --task 1 --list
refuses 2 "--submit needs --slurm" sweep tiny.yaml --d-kv 4 --submit
refuses 2 "unknown key train.stepz" sweep tiny.yaml --d-kv 4 --train.stepz=1
[ -z "$(ls runs/*/metrics.jsonl 2>/dev/null)" ] || die "a sweep that was refused has begun"

# Runs named after the base, in the order given, and a table of them.
ranks 2 sweep tiny.yaml --d-kv 6,2 --baseline
for run in baseline dkv6 dkv2; do
    [ -e runs/tiny-$run/model/config.json ] || die "no model of tiny-$run: $(cat out)"
    cmp runs/sweep-tiny/tiny-$run.yaml runs/tiny-$run/config.yaml
done
grep '^ *d_kv:' runs/sweep-tiny/tiny-dkv6.yaml | grep -q 6 || die "$(cat runs/sweep-tiny/*.yaml)"
! grep -q '^ *d_kv:' runs/sweep-tiny/tiny-baseline.yaml || die "the baseline is converted"
grep -qF 'runs/sweep-tiny/report.html' out || die "no report: $(cat out)"
for run in baseline dkv6 dkv2; do
    awk -v run="tiny-$run" '$1 == run { n++ } END { exit n != 1 }' out || die "table: $(cat out)"
done

# Given again, the command runs only what is new.
cp runs/tiny-dkv6/metrics.jsonl before
ranks 2 sweep tiny.yaml --d-kv 6,4 --out other
cmp before runs/tiny-dkv6/metrics.jsonl || die "a finished run has been run again"
[ -e runs/tiny-dkv4/model/config.json ] && [ -e other/tiny-dkv4.yaml ] && [ -e other/report.html ] ||
    die "$(cat out)"

# A grid of two keys, of which one task alone, then all: only what is new runs.
"$mha2mla" sweep tiny.yaml --d-kv 4,2 --vary model.convert.rope=high,2-norm --baseline --list >out
diff - out <<'EOC' || die "another grid"
runs/tiny-baseline
runs/tiny-dkv4-rope-high
runs/tiny-dkv4-rope-2-norm
runs/tiny-dkv2-rope-high
runs/tiny-dkv2-rope-2-norm
EOC
grid="sweep tiny.yaml --vary model.convert.rope=high,low --vary model.convert.svd=joint,split"
ranks 1 $grid --task 3
grep -qF 'sweep: task 3 of 1 to 4, run tiny-dkv8-rope-low-svd-joint' out || die "$(cat out)"
[ "$(ls -d runs/tiny-dkv8*)" = runs/tiny-dkv8-rope-low-svd-joint ] || die "$(ls runs)"
grep -q '^ *rope: low$' runs/tiny-dkv8-rope-low-svd-joint/config.yaml &&
    grep -q '^ *svd: joint$' runs/tiny-dkv8-rope-low-svd-joint/config.yaml ||
    die "$(cat runs/tiny-dkv8-rope-low-svd-joint/config.yaml)"
cp runs/tiny-dkv8-rope-low-svd-joint/metrics.jsonl before
ranks 2 $grid
cmp before runs/tiny-dkv8-rope-low-svd-joint/metrics.jsonl || die "a task's run has been run again"
[ "$(grep -c '^tiny-dkv8-rope-' out)" -eq 4 ] || die "no table of four: $(cat out)"
[ -e runs/sweep-tiny-dkv8-rope-svd/report.html ] || die "no report: $(ls runs)"

# A failed run ends the sweep, which names it, with its exit status.
rm -rf runs
mkdir -p runs/tiny-dkv4
: >runs/tiny-dkv4/checkpoints
ranks_refuse 2 2 "sweep: run tiny-dkv4: " sweep tiny.yaml --d-kv 6,4,2
[ -e runs/tiny-dkv6/model/config.json ] && [ ! -e runs/tiny-dkv2 ] || die "went on: $(ls runs)"

# A stopped run ends the sweep too; the same command resumes it.
rm -rf runs
status=0
mpirun -n 2 --oversubscribe --bind-to none "$mha2mla" sweep tiny.yaml --d-kv 6,4 \
    --train.steps=100000 --run.max_minutes=0.02 >out 2>&1 || status=$?
[ "$status" -eq 75 ] || die "stopped: status $status: $(cat out)"
grep -qF 'the sweep stops in run tiny-dkv6; the same command resumes it' out || die "$(cat out)"
[ ! -e runs/tiny-dkv4 ] || die "went on after a stop"

# As jobs: the printed commands are those that --submit runs.
mkdir -p bin "a dir"
cp tiny.yaml "a dir/it's.yaml"
cat >bin/sbatch <<'EOC'
#!/usr/bin/env bash
printf '%s\n' "$@" >>"$CALLS"
[[ " $* " != *" --parsable "* ]] || echo '17;cluster'
EOC
chmod +x bin/sbatch
cp -r "$root/slurm" .
unset MHA2MLA
export CALLS=$work/calls
PATH=$work/bin:$PATH "$mha2mla" sweep "a dir/it's.yaml" --d-kv 6,4 --slurm --submit \
    --data.sources='[{name: s, shards: ["t*.h5"]}]' --out 'the report' >printed
printf '%s\n' --parsable --array=1-2 slurm/sweep.sbatch "a dir/it's.yaml" 6 4 \
    '--data.sources=[{name: s, shards: ["t*.h5"]}]' --dependency=afterok:17 \
    --kill-on-invalid-dep=yes slurm/compare.sbatch runs/tiny-dkv6 runs/tiny-dkv4 --out \
    'the report' | diff - calls || die "other jobs"
cp calls first
: >calls
PATH=$work/bin:$PATH sh -eu printed
diff first calls || die "what is printed does something else"
grep -qxF "export MHA2MLA=$mha2mla" printed || die "the jobs start another program"
# The scripts of an installation, from a folder that has none.
mkdir -p prefix/bin prefix/share/mha2mla elsewhere
mv slurm prefix/share/mha2mla/
cp "$mha2mla" prefix/bin/
(cd elsewhere && ../prefix/bin/mha2mla sweep ../tiny.yaml --d-kv 6 --slurm >../printed \
    --data.sources='[{name: s, shards: ["../t*.h5"]}]' --data.validation=none)
grep -qF "$work/prefix/share/mha2mla/slurm/sweep.sbatch ../tiny.yaml 6" printed &&
    grep -qxF "export MHA2MLA=$work/prefix/bin/mha2mla" printed || die "installed: $(cat printed)"
"$mha2mla" sweep tiny.yaml --d-kv 6 --baseline --slurm --run.name=own --emulate >printed
grep -qF -- '--array=0-1 ' printed && grep -qF -- ' --run.name=own --emulate)' printed && grep -qF ' runs/own-baseline runs/own-dkv6 ' printed ||
    die "with a baseline: $(cat printed)"
"$mha2mla" sweep tiny.yaml --d-kv 6,4 --vary model.convert.svd=joint,split --slurm \
    --vary "data.validation.shards=[valid.h5, 'train.h5']" >printed
grep -qF -- '--array=1-4 ' printed && grep -qF -- " tiny.yaml 6 4 --vary=model.convert.svd=joint,split \
--vary='data.validation.shards=[valid.h5, '\''train.h5'\'']')" printed ||
    die "a grid: $(cat printed)"
