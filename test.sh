#!/usr/bin/env bash
# Builds with warnings as errors and runs every test; then, under the address and undefined-behaviour
# sanitizers, those of units and ranks and the fast ones of the program; then, under the thread
# sanitizer, those of what has threads. Installs missing packages first (Debian, Ubuntu).
#
#     ./test.sh
set -euo pipefail
exec </dev/null
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. tests/setup.sh

failed=()
table=("$(printf '%-6s %9s %9s %8s %8s %8s' part 'build, s' 'tests, s' passed failed skipped)")
started=$SECONDS
n_passed=0 n_failed=0 n_skipped=0

# count PATTERN LOG: how many tests ended so.
count() {
    grep -cE "^ *[0-9]+/[0-9]+ Test +#.*$1" "$2" || true
}

# test_preset PRESET: builds it and runs its tests; a failed test is remembered, a failed build ends
# everything.
test_preset() {
    local log=build/$1/tests.log status=0 build_started=$SECONDS tests_started n passed skipped
    setup_build "$1"
    setup_say "Running the tests of the $1 preset"
    tests_started=$SECONDS
    # More tests than cores: many wait, see tests/CMakeLists.txt.
    ctest --preset "$1" --no-tests=error -j "$((2 * $(setup_cores)))" 2>&1 | tee "$log" || status=$?
    n=$(count '' "$log") passed=$(count ' Passed ' "$log") skipped=$(count '\*\*\*Skipped' "$log")
    local not_passed=$((n - passed - skipped))
    if [ "$status" -ne 0 ]; then
        failed+=("$1")
        [ "$not_passed" -gt 0 ] || not_passed=1 # ctest itself
    fi
    table+=("$(printf '%-6s %9d %9d %8d %8d %8d' "$1" $((tests_started - build_started)) \
        $((SECONDS - tests_started)) "$passed" "$not_passed" "$skipped")")
    n_passed=$((n_passed + passed)) n_failed=$((n_failed + not_passed))
    n_skipped=$((n_skipped + skipped))
}

setup_packages "${SETUP_TEST_PACKAGES[@]}"
test_preset ci
test_preset asan
test_preset tsan

setup_say "Summary after $((SECONDS - started)) s"
printf '%s\n' "${table[@]}"
status=0
if [ "${#failed[@]}" -gt 0 ]; then
    echo "${0##*/}: tests failed in: ${failed[*]} (build/PRESET/tests.log has their output)" >&2
    status=1
fi
echo "$n_passed passed, $n_failed failed, $n_skipped skipped"
exit "$status"
