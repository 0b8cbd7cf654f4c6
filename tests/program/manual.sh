#!/usr/bin/env bash
# The manual page: it has every command with all options, every config key, and its roff gives no
# warnings; --help and help say the same.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"

"$mha2mla" manual >mha2mla.1
[ "$(head -c 11 mha2mla.1)" = ".TH MHA2MLA" ] || die "no manual page: $(head -n 1 mha2mla.1)"
for section in NAME SYNOPSIS DESCRIPTION COMMANDS CONFIG 'EXIT STATUS' FILES SIGNALS ENVIRONMENT \
    EXAMPLES; do
    grep -qx ".SH $section" mha2mla.1 || die "there is no section $section"
done

commands=$("$mha2mla" help | awk '/^  [a-z]/ { print $1 }')
[ "$(wc -w <<<"$commands")" -ge 13 ] || die "help lists only: $commands"
for command in $commands; do
    grep -qx ".SS $command" mha2mla.1 || die "there is no command $command"
    "$mha2mla" "$command" --help >help
    "$mha2mla" help "$command" | cmp - help
    # The options of this command, up to the next one, without the roff.
    sed -n "/^\.SS $command$/,/^\.S[SH] /p" mha2mla.1 | sed 's/\\-/-/g; s/\\f.//g' >page
    for option in $(sed 's/^  -[a-z], /  /' help | awk '$1 ~ /^--[a-z-]+$/ { print $1 }' |
        grep -vx -- --help); do
        grep -qE -- "^(-[a-z], )?$option( |$)" page || die "$command: there is no option $option"
    done
done

sed 's/\\-/-/g; s/\\f.//g' mha2mla.1 >plain
n_keys=0
for key in $("$mha2mla" completion bash | sed -n "s/^_mha2mla_keys='\(.*\)'/\1/p"); do
    key=${key#--}
    grep -qx -- "${key%=}" plain || die "there is no config key $key"
    n_keys=$((n_keys + 1))
done
[ "$n_keys" -ge 50 ] || die "only $n_keys config keys are known"

if command -v groff >/dev/null; then
    groff -man -Tutf8 -ww mha2mla.1 >shown 2>warnings || die "groff: $(cat warnings)"
    [ ! -s warnings ] || die "groff warns: $(cat warnings)"
    [ "$(wc -l <shown)" -ge 400 ] || die "groff shows only $(wc -l <shown) lines"
fi
