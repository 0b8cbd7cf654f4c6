#!/usr/bin/env bash
# The completion script in a bash of its own: commands, options, config keys, choices and files, and
# once as a user has it, with a Tab in an interactive shell.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"

"$mha2mla" completion bash >completion
refuses 2 "completion needs one SHELL, got 0" completion
refuses 2 "completion: SHELL is 'zsh', allowed are bash" completion zsh
mkdir models runs files # out and err of the tests are not offered
touch a.h5 b.yaml files/c.txt files/d.gz

# completes WORDS...: what bash offers for the last of these words after mha2mla, sorted, on a line.
completes() {
    bash --norc -c '
        source ./completion
        function=$(complete -p mha2mla | sed "s/.*-F \([^ ]*\) .*/\1/")
        COMP_WORDS=(mha2mla "$@") COMP_CWORD=$#
        "$function" mha2mla "${@: -1}" ""
        printf "%s\n" "${COMPREPLY[@]}"' - "$@" 2>err | LC_ALL=C sort -u | paste -sd' '
    [ ! -s err ] || die "completing '$*' says: $(cat err)"
}

# expect LIST WORDS...: the offers are this list.
expect() {
    local expected=$1 got
    shift
    got=$(completes "$@")
    [ "$got" = "$expected" ] || die "mha2mla $* <Tab> offers '$got', expected '$expected'"
}

# has WORD WORDS...: the word is among the offers.
has() {
    local word=$1 got
    shift
    got=" $(completes "$@") "
    [[ $got == *" $word "* ]] || die "mha2mla $* <Tab> offers '$got', not $word"
}

expect "tokenize train" t
has "--version" --
expect "train" help tr
expect "bash" completion ""
expect "--assert-equal" compare --as
expect "--d-kv --data --dtype" convert --d
expect "--resume" train --res
has "--optim." train --
has "--help" train --
expect "--optim.lr=" train --optim.l
has "--checkpoint.every=" sweep --checkpoint.
expect "" tokenize --optim.
expect "auto never require" train --resume ""
expect "require" train --resume = r
expect "high" convert x --rope h
expect "attention layer none" train --train.recompute = ""
expect "attention layer none" train --train.recompute =
expect "bfloat16 float32" train --train.compute = ""
expect "bfloat16 float32" eval x --compute ""
expect "false true" train --log.tensorboard = ""
expect "none" train --model.convert = ""
expect "" train --optim.lr = ""
expect "b.yaml files models runs" train ""
expect "files models runs" eval ""
expect "a.h5 files models runs" eval models --perplexity ""
expect "files/c.txt files/d.gz" tokenize files/
expect "" tokenize --eos ""
expect "files/c.txt files/d.gz" inspect --verify files/ # a flag has no value
expect "" nonsense ""

# In an interactive bash, which needs a terminal: every Tab completes a word of the line.
if command -v script >/dev/null; then
    cat >rc <<'END'
source ./completion
mha2mla() { printf '%s\n' "$*" >>line; }
PS1='$ '
END
    printf 'mha2mla tr\tb.\t--resume=req\t--optim.l\t1\nexit\n' |
        script -qec 'bash --noprofile --rcfile rc -i' /dev/null >screen 2>&1 || die "$(cat screen)"
    [ "$(cat line)" = "train b.yaml --resume=require --optim.lr=1" ] || die "$(cat screen)"
fi
