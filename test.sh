#!/usr/bin/env bash
# Builds with warnings as errors and runs every test, then runs the unit tests once more under the
# address and undefined-behaviour sanitizers. Installs missing packages first (Debian, Ubuntu).
#
#     ./test.sh
set -euo pipefail
exec </dev/null
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. tests/setup.sh

failed=()
summary=()
started=$SECONDS

# test_preset PRESET: builds it and runs its tests; a failed test is remembered, a failed build ends
# everything.
test_preset() {
    local log=build/$1/tests.log
    setup_build "$1"
    setup_say "Running the tests of the $1 preset"
    ctest --preset "$1" --no-tests=error -j "$(setup_cores)" 2>&1 | tee "$log" || failed+=("$1")
    summary+=("$1: $(grep -E '^[0-9]+% tests passed' "$log" || echo 'ctest did not finish')")
}

setup_packages "${SETUP_TEST_PACKAGES[@]}"
test_preset ci
test_preset asan

setup_say "Summary after $((SECONDS - started)) s"
printf '%s\n' "${summary[@]}"
if [ "${#failed[@]}" -gt 0 ]; then
    setup_fail "tests failed in: ${failed[*]} (build/PRESET/tests.log has their output)"
fi
echo "All tests passed."
