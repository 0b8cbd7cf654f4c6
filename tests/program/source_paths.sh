#!/usr/bin/env bash
# The binary does not tell where it was built: a broken invariant names its file from the root of the
# source tree on, in every build.
set -euo pipefail
# shellcheck source=tests/support/checks.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../support/checks.sh" "$1"

grep -aoE '[ -~]*/(base|model|train)/[a-z/_]*\.c' "$mha2mla" >paths || true
if grep -F "$root/" paths; then die "paths of the source tree are in the binary"; fi
grep -aqE 'base/arena\.c' "$mha2mla" || die "the binary names no source file at all"
