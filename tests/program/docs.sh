#!/usr/bin/env bash
# README.md and docs/: their links lead somewhere, the files, commands and config keys that they
# name exist, and their configs are valid.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
pages=("$root/README.md" "$root"/docs/*.md)

test_links_lead_somewhere() {
    local page link n_links=0
    for page in "${pages[@]}"; do
        while read -r link; do
            n_links=$((n_links + 1))
            [ -e "$(dirname -- "$page")/$link" ] || die "${page#"$root"/}: no file $link"
        done < <(grep -oE '\]\([^)#:]+[)#]' "$page" | tr -d ')(#]')
    done
    [ "$n_links" -ge 20 ] || die "only $n_links links are found"
}

test_files_exist() {
    local file
    for file in $(grep -ohE '`[a-z_/]+(\.[a-z]+|/)`' "${pages[@]}" | tr -d '`' |
        grep -E '^(base|data|model|optim|eval|train|configs|slurm|tests|bench|docs|packaging)/' |
        sort -u); do
        [ -e "$root/$file" ] || die "there is no $file"
    done
}

test_commands_exist() {
    local command
    "$mha2mla" --help >help
    for command in $(grep -ohE '(^|[ `/(])mha2mla [a-z]+' "${pages[@]}" | awk '{ print $NF }' |
        sort -u); do
        case $command in is | program | for) continue ;; esac # in a sentence
        grep -qE "^ +$command " help || die "there is no command $command"
    done
}

test_config_keys_exist() {
    local key
    for key in $(grep -ohE '`(--)?(run|model|data|optim|train|checkpoint|log)\.[a-z_.]+' \
        "${pages[@]}" | tr -d '`-' | sort -u); do
        case $key in *.json | *.jsonl | *.safetensors | *.sbatch) continue ;; esac # a file
        grep -qE "^[ #-]*${key##*.}:" "$root/configs/reference.yaml" || die "there is no key $key"
    done
}

# The indented lines of a page from the one that begins with a pattern, up to the next other line.
block() {
    awk -v start="^    $2" '$0 ~ start { on = 1 } on && !/^    / { exit } on' "$root/$1"
}

# valid_config PAGE PATTERN: the page's config passes, with the demo's model and data.
valid_config() {
    block "$1" "$2" >config.yaml
    "$mha2mla" train config.yaml --dry-run --model.base="$root/configs/demo/model" \
        --data.seq_len=256 >out 2>&1 || die "$1: its config is refused: $(cat out)"
}

test_links_lead_somewhere
test_files_exist
test_commands_exist
test_config_keys_exist
valid_config README.md '# smollm-135m.yaml'
valid_config docs/own-model.md 'run:'
valid_config docs/data.md 'run:'
