#!/usr/bin/env bash
# The Spack recipe, as far as it can be checked without Spack: it is valid Python, defines the class
# that Spack looks for, and depends on every library that CMakeLists.txt asks for.
set -euo pipefail
. "$(dirname -- "$0")/../support/checks.sh" "$1"
recipe=$root/packaging/spack/spack_repo/mha2mla/packages/mha2mla/package.py

python3 -c pass 2>/dev/null || {
    echo "skipped: python3 is missing"
    exit 77
}

# Prints the class's name, its bases and the packages it depends on, a line each.
python3 - "$recipe" >recipe <<'END_OF_PYTHON' || die "$recipe is not valid Python"
import ast
import sys

tree = ast.parse(open(sys.argv[1]).read(), sys.argv[1])
for recipe in (node for node in tree.body if isinstance(node, ast.ClassDef)):
    print("class", recipe.name, *(base.id for base in recipe.bases))
    for node in ast.walk(recipe):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "depends_on":
            print("needs", node.args[0].value.split("@")[0].split()[0])
END_OF_PYTHON
grep -qx 'class Mha2mla CMakePackage' recipe || die "another class: $(cat recipe)"
grep -qx '  namespace: mha2mla' "${recipe%/packages/*}/repo.yaml" || die "another namespace"

# package_of LIBRARY: what Spack calls the library that CMakeLists.txt finds by this name.
package_of() {
    case $1 in
    MPI) echo mpi ;;
    HDF5) echo hdf5 ;;
    ZLIB) echo zlib-api ;;
    lapacke) echo openblas ;; # built with it
    libpcre2-8) echo pcre2 ;;
    libcrypto) echo openssl ;;
    yaml-0.1) echo libyaml ;;
    libutf8proc) echo utf8proc ;;
    libzstd) echo zstd ;;
    PkgConfig) echo pkgconfig ;;
    OpenMP | Threads) ;; # the compiler's
    *) echo "$1" ;;
    esac
}
n_packages=0
while read -r library; do
    package=$(package_of "$library")
    [ -n "$package" ] || continue
    grep -qx "needs $package" recipe || die "no depends_on(\"$package\") for $library"
    n_packages=$((n_packages + 1))
done < <(sed -n -e 's/^find_package(\([A-Za-z0-9]*\) .*/\1/p' \
    -e 's/^pkg_check_modules(.* \([^ ]*\))$/\1/p' "$root/CMakeLists.txt" \
    "$root/tests/CMakeLists.txt")
[ "$n_packages" -ge 12 ] || die "only $n_packages libraries are found in CMakeLists.txt"
