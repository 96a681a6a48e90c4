# program.sh - what tests of the program from outside share; they read it with '.' once they have
# set kvcl_program and make_tiny.  Goes to a folder of its own, removed at the end; `source` is the
# checkout.  KVCL_TEST_RUNNER: words to put before each program (an emulator).
# shellcheck shell=sh
# shellcheck disable=SC2034,SC2154  # source and the programs are the scripts'
source=$(cd "$(dirname "$0")/.." && pwd)

scratch=$(mktemp -d "${TMPDIR:-/tmp}/kvcl-test-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
cd "$scratch" || exit 1

unset KVCL_DEVICE KVCL_MEM_LIMIT KVCL_CPU_CAPS KVCL_THREADS KVCL_BATCH KVCL_COLOR KVCL_CACHE \
    KVCL_TIER KVCL_TIER_DIR KVCL_CACHE_MEM KVCL_CTX_SIZE OMP_WAIT_POLICY
export KVCL_CACHE_DIR=off KVCL_DEVICE=cpu NO_COLOR=1
n_failed=0
n_checked=0

# shellcheck disable=SC2086
kvcl() { ${KVCL_TEST_RUNNER:-} "$kvcl_program" "$@"; }

# shellcheck disable=SC2086
tiny() { ${KVCL_TEST_RUNNER:-} "$make_tiny" "$@"; }

fail() {
    n_failed=$((n_failed + 1))
    printf 'FAILED: %s\n' "$1"
    head -c 1500 out
    head -c 1000 err
}

# good TEXT command...: exit status 0.
good() {
    what=$1
    shift
    n_checked=$((n_checked + 1))
    "$@" >out 2>err </dev/null
    status=$?
    [ "$status" -eq 0 ] || fail "$what: exit status $status"
}

# bad STATUS PATTERN command...: that exit status, nothing on standard output, one line on standard
# error which begins with "kvcl:" and matches the pattern.
bad() {
    want=$1
    pattern=$2
    shift 2
    n_checked=$((n_checked + 1))
    "$@" >out 2>err </dev/null
    status=$?
    if [ "$status" -ne "$want" ]; then
        fail "$*: exit status $status, not $want"
    elif [ -s out ]; then
        fail "$*: something on standard output"
    elif [ "$(wc -l <err)" -ne 1 ]; then
        fail "$*: not one line on standard error"
    elif ! grep -q '^kvcl: ' err || ! grep -qi -e "$pattern" err; then
        fail "$*: standard error does not speak of '$pattern'"
    fi
}

# holds PATTERN FILE
holds() {
    n_checked=$((n_checked + 1))
    grep -q -e "$1" "$2" || fail "$2 does not hold '$1'"
}

same() {
    n_checked=$((n_checked + 1))
    cmp -s "$1" "$2" || fail "$1 and $2 differ"
}

finish() {
    echo "$n_checked checks, $n_failed failed"
    [ "$n_failed" -eq 0 ]
}
