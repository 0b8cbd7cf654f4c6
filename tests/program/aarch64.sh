#!/usr/bin/env bash
# Every source of the program compiles for aarch64 without a warning: what is for x86-64 alone is
# guarded. Nothing is linked or run. The libraries' headers are this machine's, behind the cross
# compiler's own: both systems have types of the same sizes. Skipped without the cross compiler
# (Debian: gcc-aarch64-linux-gnu).
set -euo pipefail
# shellcheck source=tests/support/checks.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../support/checks.sh" "$1"
compiler=aarch64-linux-gnu-gcc
command -v "$compiler" >/dev/null || exit 77
commands=$(dirname -- "$mha2mla")/compile_commands.json
[ -f "$commands" ] || exit 77 # not configured by a preset

mapfile -t libraries < <(grep -o -- '-isystem [^ "]*' "$commands" | cut -d' ' -f2 | sort -u)
[ "${#libraries[@]}" -ge 3 ] || die "$commands names ${#libraries[@]} folders of libraries' headers"
flags=(-std=gnu11 -fopenmp -Wall -Wextra -Wno-missing-field-initializers -Werror -I"$root" '-DMHA2MLA_VERSION="0"')
for folder in "${libraries[@]}" /usr/include "/usr/include/$(gcc -print-multiarch)"; do
    flags+=(-idirafter "$folder")
done

mapfile -t sources < <(find "$root"/{base,data,eval,infer,model,optim,train} -name '*.c' | sort)
[ "${#sources[@]}" -ge 100 ] || die "only ${#sources[@]} sources are found"
printf '%s\0' "${sources[@]}" |
    xargs -0 -n 8 -P 2 "$compiler" -O1 "${flags[@]}" -c || die "not every source compiles for aarch64"
[ "$(find . -name '*.o' | wc -l)" -eq "${#sources[@]}" ] || die "objects are missing"
"${compiler%gcc}objdump" -f ./*.o | grep 'file format' >formats
[ "$(sed 's/.*format //' formats | sort -u)" = elf64-littleaarch64 ] || die "other objects: $(cat formats)"
# The products are vector instructions there too, of four floats.
"$compiler" -O2 "${flags[@]}" -c "$root/model/kernels/tile.c" || die "tile.c does not compile with -O2"
"${compiler%gcc}objdump" -d tile.o >tile.s
grep -q 'fmla.*v[0-9]*\.4s' tile.s || die "tile.c has no vector product"
