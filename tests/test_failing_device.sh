#!/bin/sh
# test_failing_device.sh PROGRAM MAKE_TINY LIBRARY - a device that fails in the middle of a text:
# the text so far stays on standard output, one line on standard error, the documented exit
# status.  LIBRARY: failing_opencl.c.
set -u
program=$1
make_tiny=$2
library=$3
scratch=$(mktemp -d "${TMPDIR:-/tmp}/kvcl-test-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
cd "$scratch" || exit 1
unset KVCL_MEM_LIMIT KVCL_CACHE KVCL_TIER KVCL_TIER_DIR KVCL_CACHE_MEM
export KVCL_CACHE_DIR=off NO_COLOR=1 KVCL_CLBLAST_LIB=off
n_failed=0

fail() {
    n_failed=$((n_failed + 1))
    printf 'FAILED: %s\n' "$1"
    head -c 500 out
    head -c 500 err
}

# generate option...: 60 tokens behind 150
generate() {
    "$program" run -m tiny.gguf -f long.txt -n 60 -s 7 --temp 1 --ignore-eos -q \
        --no-display-prompt "$@" >out 2>err </dev/null
}

# stops WANT AT CODE option...: kernel number AT fails with CODE; exit status WANT.
stops() {
    want=$1
    KVCL_TEST_FAIL_AT=$2
    KVCL_TEST_FAIL_CODE=$3
    export KVCL_TEST_FAIL_AT KVCL_TEST_FAIL_CODE
    shift 3
    KVCL_OPENCL_LIB=$library generate "$@"
    status=$?
    n=$(wc -c <out)
    [ "$status" -eq "$want" ] || fail "$*: exit status $status, not $want"
    [ "$(grep -c '^kvcl: ' err)" -eq 1 ] || fail "$*: not one sentence"
    [ "$(wc -l <err)" -eq 1 ] || fail "$*: not one line"
    [ "$n" -gt 0 ] || fail "$*: no text"
    [ "$n" -lt "$(wc -c <whole)" ] || fail "$*: all of the text"
    head -c "$n" whole | cmp -s - out || fail "$*: the text so far is another one"
}

"$make_tiny" llama F16 tiny.gguf 128 || exit 1
i=0
while [ "$i" -lt 30 ]; do
    printf 'the end of the tent '
    i=$((i + 1))
done >long.txt

gpu=opencl:pocl:0
generate --device cpu || fail "the whole text"
cp out whole
KVCL_OPENCL_LIB=$library generate --device $gpu || fail "nothing fails"
cmp -s out whole || fail "nothing fails, and the text is another one"
stops 5 500 -2 --device $gpu
grep -q 'CL_DEVICE_NOT_AVAILABLE' err || fail "vanished: the cause is not told"
stops 6 500 -4 --device $gpu
grep -q 'CL_MEM_OBJECT_ALLOCATION_FAILURE' err || fail "no memory: the cause is not told"

# the model on the CPU, its old tokens on the device that fails
generate --device cpu --cache smallest || fail "the whole text, tiered"
cp out whole
stops 5 60 -2 --device cpu --tier hot=raw:64 --tier cold=$gpu:quant2
stops 6 60 -4 --device cpu --tier hot=raw:64 --tier cold=$gpu:quant2

echo "$n_failed failed"
[ "$n_failed" -eq 0 ]
