#!/usr/bin/env bash
# compare through the program: the report's files, odd runs, wrong input, and two runs bit by bit.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
. "$root/tests/support/written_runs.sh"
export LC_ALL=C.UTF-8

# data FILE: the JSON in a report.
data() {
    grep -o '<script type="application/json" id="data">.*</script>' "$1" |
        sed 's/^<[^>]*>//; s/<.*$//'
}

# has FILE TEXT...: the texts are in the file.
has() {
    local file=$1 text
    shift
    for text in "$@"; do
        grep -qF -- "$text" "$file" || die "$file has no '$text'"
    done
}

write_run base base original 640 60 60 0.6
write_run mla mla mla 80 60 60 0.64
"$mha2mla" compare base mla >table || die "compare failed"
[ "$(wc -l <table)" -eq 4 ] || die "compare printed: $(cat table)"

# ---- equal or not ------------------------------------------------------------------------------

cp -r mla twin
"$mha2mla" compare --assert-equal mla twin >out || die "a copy is not equal"
has out "equal: 61 steps of mla and twin" # 60 of training, and the start
# other_digit LINE NAME: the last digit of this number of twin's is another.
other_digit() {
    sed -i -E "$1s/\"$2\":(0\.[0-9]*)[0-6]\b/\"$2\":\17/; t
        $1s/\"$2\":(0\.[0-9]*)[7-9]\b/\"$2\":\13/" twin/metrics.jsonl
}
other_digit 40 loss
step=$(sed -n '40s/.*"step":\([0-9]*\).*/\1/p' twin/metrics.jsonl)
refuses 1 "step $step: training loss 0." compare --assert-equal mla twin
refuses 1 "in mla, 0." compare --assert-equal mla twin
cp mla/metrics.jsonl twin/metrics.jsonl
other_digit '$' valid_loss
refuses 1 "step 60: validation loss 0." compare --assert-equal mla twin
head -n 50 mla/metrics.jsonl >twin/metrics.jsonl
refuses 1 "has a training loss, twin has none (last step 45)" compare --assert-equal mla twin
refuses 1 "has a training loss, twin has none (last step 45)" compare --assert-equal twin mla
"$mha2mla" compare --assert-equal --common mla twin >out || die "the common steps are not equal"
has out "equal: 46 steps"
: >twin/metrics.jsonl
refuses 1 "mla and twin have no step in common" compare --assert-equal --common mla twin

# ---- the report --------------------------------------------------------------------------------

command -v gnuplot >/dev/null || {
    refuses 1 "gnuplot: not found" compare base mla --out report
    echo "skipped: gnuplot is missing"
    exit 77
}
"$mha2mla" compare base mla --out new/report >table 2>err || die "compare --out: $(cat err)"
has err "report written to new/report/report.html"
[ "$(ls new/report | tr '\n' ' ')" = "curves.csv curves.gp curves.png curves.svg report.html " ] ||
    die "the report has $(ls new/report)"
[ "$(head -c 8 new/report/curves.png | od -An -c | tr -d ' ')" = '211PNG\r\n032\n' ] ||
    die "curves.png is no PNG"
has new/report/curves.svg "</svg>" "mla  12.5 % KV" "Difference to base"
[ "$(wc -l <new/report/curves.csv)" -eq 123 ] || die "curves.csv has not 122 points"
grep -q '^2,60,60000,0.6[0-9]*,0.6[0-9]*,0.04[0-9]*,0.6[0-9]*,0.04[0-9]*,0.001,560,,"mla"$' \
    new/report/curves.csv || die "curves.csv ends with: $(tail -n 1 new/report/curves.csv)"
data new/report/report.html >data.json
has data.json '"baseline":0' '"within_tokens":50000' '"state":"done"' '"color":"#1b1044"'
if grep -oE '(src|href)="[^"]*"' new/report/report.html | grep -v 'href="data:,"'; then
    die "the page asks for another file"
fi

# It is written over, and what was changed by hand in the directory stays.
touch new/report/notes.txt
(cd new/report && gnuplot -e "SVG = 'own.svg'" curves.gp) || die "curves.gp does not run by itself"
"$mha2mla" compare mla --out new/report >/dev/null 2>&1 || die "the second report failed"
[ -e new/report/notes.txt ] || die "a file that is not the report's is gone"
has <(data new/report/report.html) '"baseline":null'
if grep -q Difference new/report/curves.svg; then die "a difference to no baseline"; fi

# Logarithmic axes, another baseline, another threshold, another mean.
"$mha2mla" compare base mla --out other --log xy --baseline mla --within 0.5 --smooth 9 >/dev/null \
    2>&1 || die "compare with options failed"
data other/report.html >data.json
has data.json '"baseline":1' '"within":0.5' '"window":9' '"log_x":true' '"log_y":true'
has other/curves.gp "set logscale x" "LOG_Y = 1"

# ---- odd runs ----------------------------------------------------------------------------------

# report RUN...: in the directory odd; gnuplot has something to draw, or an empty frame.
report() {
    rm -rf odd
    "$mha2mla" compare "$@" --out odd >table 2>err || die "compare $*: $(cat err)"
    [ "$(wc -l <err)" -eq 1 ] || die "compare $*: $(cat err)"
    [ -s odd/curves.svg ] && [ -s odd/curves.png ] || die "compare $* drew nothing"
    data odd/report.html >data.json
}

: >twin/metrics.jsonl
report twin
report twin --log xy
report base twin
write_run start start mla 80 60 0 0.6 # only the first validation
report start --log xy
report base start
sed -i '/valid_loss/d' start/metrics.jsonl
write_run plain plain mla 80 60 30 0.7
sed -i '/valid_loss/d' plain/metrics.jsonl
report base plain
has data.json '"is_validation":false' '"is_gap_of_validation":false' '"state":"stopped"' \
    '"state_text":"stopped at step 30 of 60"' '"gap_tokens":30000'

# Still going: the lock is held, and its last line has no end yet.
write_run going going mla 80 60 33 0.7
printf '{"step":34,"tokens":34000,"lo' >>going/metrics.jsonl
exec 9>going/lock
flock 9
report base going
has data.json '"state":"running"' '"state_text":"running at step 33 of 60"' '"last_step":33'
exec 9>&-
report base going
has data.json '"state":"stopped"'

# Resumed, as run.json says it or as metrics.jsonl shows it; time adds up over the processes.
write_run resumed resumed mla 80 60 60 0.7 '"resumed_steps": [20, 40],'
report base resumed
has data.json '"resumed":[20,40]' '"state_text":"resumed at 20, 40"'
write_run resumed resumed mla 80 60 40 0.7
sed -n '/"step":3[1-9]/p' resumed/metrics.jsonl | sed 's/"elapsed_s":6/"elapsed_s":/' >again
cat again >>resumed/metrics.jsonl
report base resumed
has data.json '"resumed":[30]' '"last_step":39' '"wall_s":158.0' # 80 s, then 78
sed -i 's/"step":1[78],/&"skipped":true,/' resumed/metrics.jsonl
report base resumed
has data.json '"state_text":"stopped at step 39 of 60, resumed at 30, 2 steps skipped"'

# Settings that were changed, settings that differ, and validation on other text.
config='"config": {"optim.lr": "0.001", "data.seq_len": "64", "log.every": "10"}, "config_changes": []'
write_run same same original 640 60 60 0.6 "$config,"
changed='"config": {"optim.lr": "0.002", "data.seq_len": "32", "log.every": "5", "optim.clip": "2",
  "model.convert.d_kv": "8", "train.steps": "60"}, "resumed_steps": [20, 40], "config_changes": [
  {"step": 20, "key": "optim.lr", "old": "0.001", "new": "0.002"},
  {"step": 20, "key": "log.every", "old": "10", "new": "5"},
  {"step": 20, "key": "optim.clip", "old": null, "new": "2"},
  {"step": 40, "key": "train.micro_batch", "old": "1", "new": "2"},
  {"step": 40, "key": "train.steps", "old": "50", "new": "60"}],
  "original_valid_loss": 0.5, "original_validation_set": "aa",'
write_run changed changed mla 80 60 60 0.7 "$changed"
sed -i -E 's/("step":[012]0,.*"valid_loss":[^}]*)/\1,"validation_set":"aa"/
    s/("step":[3-6]0,.*"valid_loss":[^}]*)/\1,"validation_set":"bb"/' changed/metrics.jsonl
sed -i '/"step":20,.*valid_loss/{p;s/"aa"/"bb"/;s/"valid_loss":[0-9.]*/"valid_loss":1.875/}' \
    changed/metrics.jsonl # measured on both where the set changed
sed -i -E 's/("valid_loss":[^}]*)/\1,"validation_set":"aa"/' same/metrics.jsonl
expected='changed: settings changed after step 20: optim.lr 0.001 -> 0.002, optim.clip none -> 2; settings changed after step 40: train.micro_batch 1 -> 2; validated on other text until step 20; differs from same in optim.lr 0.002 (there 0.001), data.seq_len 32 (there 64), optim.clip 2 (there none); validated on other text than same'
"$mha2mla" compare same changed >table
[ "$(tail -n +5 table)" = "$expected" ] || die "compare: $(cat table)"
sed -n 4p table | grep -qE ' +- +- +0\.70[0-9]* ' || die "losses of two sets in one row: $(cat table)"
report same changed
has data.json "\"settings\":\"${expected#*: }\"" '"settings":""' '"original_loss":null' \
    '"is_gap_of_validation":false' '"state_text":"settings changed at 20, 40, resumed at 20, 40"'
grep -q '^2,20,20000,.*,0.346[0-9]*,0.001,520,aa,"changed"$' odd/curves.csv || die "no loss on aa: $(grep ^2,20, odd/curves.csv)"
grep -q '^2,20,20000,,,,1.875,,,,bb,"changed"$' odd/curves.csv || die "no loss on bb: $(grep ^2,20, odd/curves.csv)"
has odd/curves.gp "newest[1] = 'aa'" "newest[2] = 'bb'" 'pt mark[i]-1'
report base mla
! grep -q 'mark\[i\]-1' odd/curves.gp || die 'marks of an earlier set where there is none'

# What runs vary has columns, in the legend its values, and colours or dashes.
# varied DIR ROPE LR: a converted run with this strategy and learning rate.
varied() {
    write_run "$1" "$1" mla 80 60 60 0.7 "\"config\": {\"optim.lr\": \"$3\", \"data.seq_len\": \"32\"},
        \"config_changes\": [],"
    sed -i "s/\"rope\": \"2-norm\"/\"rope\": \"$2\"/" "$1/run.json"
}
varied high-1 high 1.0e-3
varied low-1 low 1.0e-3
varied high-2 high 2.0e-3
"$mha2mla" compare same high-1 low-1 high-2 >table
sed 's/  */ /g; 2!d' table | grep -qF 'run d_kv pr RoPE SVD lr /token' || die "heads: $(cat table)"
sed 's/  */ /g' table | grep -qF 'high-2 8 2 high joint 2.0e-3 160' || die "values: $(cat table)"
sed 's/  */ /g' table | grep -qF 'same - all - - 0.001 1280' || die "values: $(cat table)"
sed 's/  */ /g' table | grep -qxF 'low-1: differs from same in data.seq_len 32 (there 64)' ||
    die "settings: $(cat table)"
report same high-1 low-1 high-2
has data.json '"varied":[{"key":"optim.lr","head":"lr"}]' '"varied":{"optim.lr":"2.0e-3"}' \
    '"varied_text":"rope high, lr 2.0e-3"' '"look":"Colours stand for rope, dashes for lr."'
has odd/curves.gp '# The runs. Colours stand for rope, dashes for lr.' '"rope low, lr 1.0e-3"' \
    'color[1] = 0x1b1044; dash[1] = 1' 'color[2] = 0x2b6ab0; dash[2] = 1' \
    'color[3] = 0xc4561f; dash[3] = 1' 'color[4] = 0x2b6ab0; dash[4] = 2'
has odd/curves.svg 'rope low, lr 1.0e-3'

# Another length than the baseline's; longer than it.
write_run long long mla 80 120 120 0.61
report base long
has data.json '"state_text":"120 steps where the baseline has 60"' '"gap_tokens":60000'

# Names that could mean something to JSON, HTML, CSV, gnuplot or the shell; two of one name.
write_run odd1 "<\/script><b>&\\\" '' 'x \`touch made\` @a {b} \$(touch made) %s, \\\\n 模型" \
    mla 80 60 60 0.7
report base odd1
has data.json '\u003c/script>'
has odd/curves.csv "\"</script><b>&\"\" '' 'x \`touch made\` @a {b} \$(touch made) %s, \\n 模型\""
has odd/curves.svg '&lt;/script'
[ ! -e odd/made ] && [ ! -e made ] || die "a run's name was run"
write_run formula '=HYPERLINK(1)' mla 80 60 60 0.7 # a spreadsheet would compute it
report base formula
has odd/curves.csv ",\"'=HYPERLINK(1)\""
! grep -q ',"=' odd/curves.csv || die "a formula in curves.csv: $(grep ',"=' odd/curves.csv)"
cp -r mla "$(printf 'm\xff [*]')"
report mla "$(printf 'm\xff [*]')" mla mla
has data.json '"label":"mla (mla)"' '"label":"mla (m? [*])"' '"label":"mla (mla) #2"' \
    '"label":"mla (mla) #3"'

# Evaluations, and the share of pretraining where it is known.
write_run known known mla 80 60 60 0.7 '"pretraining_tokens": 6000000,'
echo '{"tasks": {"hellaswag": 0.41, "arc": {"score": 0.3, "n": 5}}}' >known/eval.json
echo '{"tasks": {"piqa": 0.7}}' >known/eval-more.json
report base known
has data.json '"tasks":["piqa","hellaswag","arc"]' '"arc":0.3' '"pretraining_tokens":6000000'

# Result files of `eval --out`: tables of the terminal, tasks.csv; files of other programs are left
# out, and without scores there is no tasks.csv, nor that of an earlier report.
cp -r base base2
cp -r mla mla2
write_eval base2/eval.json tasks reference plain 16 1280 'piqa 0.7 0.03 200,arc_easy 0.5 0.03 200'
write_eval mla2/eval.json tasks reference plain 16 160 'piqa 0.6 0.03 200,arc_easy 0.3 0.03 200'
write_eval mla2/eval-int4.json tasks reference channel 4 45 'piqa 0.52 0.03 200,arc_easy 0.3 0.03 200'
write_eval mla2/eval-lm.json tasks lm-eval plain 16 160 'piqa 0.61 0.03 200,arc_easy 0.31 0.03 200'
write_eval mla2/eval-long.json longbench reference hqq 2 25 'narrativeqa 0.05 0.01 12' ', "n_cut": 3'
echo '{"results": {"piqa": {"acc,none": 0.5}}}' >mla2/evaluated-by-another.json
"$mha2mla" compare base2 mla2 >table 2>err || die "compare: $(cat err)"
[ "$(cat err)" = "mha2mla: warning: mla2/evaluated-by-another.json: no result of mha2mla eval, \
'mha2mla' is missing; left out" ] || die "compare: $(cat err)"
tr -s ' ' <table >rows # one blank between two columns
has rows 'base bfloat16 1280 +0.00 60.00 2.12 baseline 200 reference 0 yes 70.00 50.00' \
    'mla bfloat16 160 -87.50 45.00 2.12 -15.00 200 reference 0 yes 60.00 30.00~' \
    'mla channel 4 bits 45 -96.48 41.00~ 2.12 -19.00 200 reference 0 yes 52.00~ 30.00~' \
    'mla bfloat16 160 -87.50 46.00 2.12 - 200 lm-eval 0 yes 61.00 31.00~' \
    'mla, eval-lm.json: not comparable: rules lm-eval, there reference' \
    '~ within two standard errors of guessing' \
    'mla hqq 2 bits 25 -98.05 5.00 1.00 - 12 reference 0 yes 3 5.00'
"$mha2mla" compare base2 mla2 --out odd >table 2>/dev/null || die 'compare --out with results failed'
[ "$(wc -l <odd/tasks.csv)" -eq 15 ] || die "tasks.csv: $(cat odd/tasks.csv)"
[ "$(ls odd | tr '\n' ' ')" = "curves.csv curves.gp curves.png curves.svg report.html scores.gp \
scores.png scores.svg tasks.csv " ] || die "the report has $(ls odd)"
has odd/scores.svg '</svg>' 'not quantized' 'per channel' 'HQQ' 'LongBench: rules reference, 0 shots'
if grep -q Quanto odd/scores.svg; then die 'a scheme that no run has'; fi
"$mha2mla" compare base mla --out odd >table 2>/dev/null || die 'compare --out failed'
[ -z "$(ls odd | grep -E 'tasks|scores')" ] || die "of an earlier report: $(ls odd)"
odd="a, 'b' \`touch made\` @c {d} %s" # one evaluation of a scheme that is not known
write_eval mla2/eval.json tasks "$odd" "$odd" 4 45 'piqa 0.6 null 200'
rm mla2/eval-*.json mla2/evaluated*
report mla2
has odd/scores.svg "a, 'b' \`touch made" && [ ! -e odd/made ] || die 'a text was run'

# Many steps: thinned, the largest and the smallest loss kept, the page small.
write_run many many mla 80 100000 20000 0.7
sed -i '7777s/"loss":[0-9.]*/"loss":55.5/; 9999s/"loss":[0-9.]*/"loss":0.125/' many/metrics.jsonl
report base many
grep -c '^2,' odd/curves.csv >n
[ "$(cat n)" -le 3002 ] || die "$(cat n) points are drawn" # seen 2796
grep -q '^2,[0-9]*,[0-9]*,55.5,' odd/curves.csv || die "the largest loss is gone"
grep -q '^2,[0-9]*,[0-9]*,0.125,' odd/curves.csv || die "the smallest loss is gone"
[ "$(stat -c %s odd/report.html)" -lt 600000 ] || die "the page has $(stat -c %s odd/report.html)"

# ---- wrong input -------------------------------------------------------------------------------

refuses 2 "compare --assert-equal needs two RUN directories, got 1" compare --assert-equal mla
refuses 2 "--assert-equal and --out are both given" compare --assert-equal mla base --out x
refuses 2 "--common needs --assert-equal" compare --common mla base
refuses 2 "--within, --baseline, --smooth and --log need --out" compare mla --within 1
refuses 2 "--within is 'much', which is not a number" compare mla --out x --within much
refuses 2 "--within is -1, allowed are 0 to 100" compare mla --out x --within -1
refuses 2 "--within is 'nan', which is not a number" compare mla --out x --within nan
refuses 2 "--log is 'z', allowed are x, y, xy" compare mla --out x --log z
refuses 2 "--smooth is 0, allowed are 1 to 1000000" compare mla --out x --smooth 0
refuses 2 "--baseline is 'nobody', which is no name or directory of the runs" \
    compare mla --out x --baseline nobody
[ ! -e x ] || die "a refused compare made its directory"
echo >file
refuses 1 "file: directory cannot be made: a file has this name" compare mla --out file
mkdir -p taken/report.html
refuses 2 "taken/report.html: is a directory; name another with --out" compare mla --out taken
(
    mkdir -p few
    for tool in timeout cat grep find wc; do ln -sf "$(command -v $tool)" few/$tool; done
    PATH=$work/few
    refuses 1 "gnuplot: not found, so bare has no curves.svg" compare mla --out bare
    printf '#!/bin/sh\necho it broke >&2\nexit 3\n' >few/gnuplot
    chmod +x few/gnuplot 2>/dev/null || /bin/chmod +x few/gnuplot
    refuses 1 "bare/curves.gp: gnuplot failed: it broke" compare mla --out bare
)
[ -e bare/report.html ] || die "without gnuplot there is no page"

# damage TEXT FILE SED: a damaged run is refused by one line and no report is begun.
damage() {
    rm -rf bad
    cp -r mla bad
    sed -i "$3" "bad/$2"
    ! cmp -s "mla/$2" "bad/$2" || die "'$3' changes nothing"
    refuses 2 "bad/$2$1" compare base bad --out x
    [ ! -e x ] || die "a damaged run left a report"
}
damage ": 'resumed_steps' is not a list of steps" run.json \
    's/"format"/"resumed_steps": [1, "x"], "format"/'
damage ": 'config' or 'config_changes' is damaged" run.json 's/"format"/"config": {"a": 1}, "format"/'
damage ":7: 'validation_set' is no name of one" metrics.jsonl '7s/"loss":/"validation_set":"x","valid_loss":/'
damage ": 'pretraining_tokens' is 0, allowed are 1 to" run.json \
    's/"format"/"pretraining_tokens": 0, "format"/'
damage ":7: 'tokens' is 2, before it was" metrics.jsonl '7s/"tokens":[0-9]*/"tokens":2/'
damage ":7: 'loss' is not a number" metrics.jsonl '7s/"loss":[0-9.]*/"loss":"x"/'
damage ":7:" metrics.jsonl '7s/"loss":[0-9.]*/"loss":NaN/'
damage ":9: 'step' is not a whole number" metrics.jsonl '9s/"step":[0-9]*/&.5/'
echo '{"tasks": {"arc": "good"}}' >known/eval.json
refuses 2 "known/eval.json: the result of task 'arc' is no number" compare known
write_eval known/eval.json tasks reference plain 16 1280 'piqa 1.7 0.03 200'
refuses 2 "known/eval.json: mha2mla: scores: piqa: 'score' is 1.7, allowed are 0 to 1" compare known
sed -i 's/"version": 1/"version": 2/' known/eval.json
refuses 2 "known/eval.json: mha2mla: 'version' is 2, this program reads 1" compare known
damage ":8: 'tasks': the score of 'piqa' is no number from 0 to 1" metrics.jsonl '8s/"loss":[0-9.]*/"tasks":{"piqa":"x"}/'
echo '{"tasks": ' >known/eval.json
refuses 2 "known/eval.json:2:0: not valid JSON" compare known
