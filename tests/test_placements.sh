#!/bin/sh
# test_placements.sh PROGRAM MAKE_TINY DEVICE - three tiers in every placement over the CPU and a
# second device, prompts in steps of 1, 7, 64 and 512 tokens: 0 bits differ from the scalar twins.
set -u
program=$1
make_tiny=$2
device=$3
source=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/kvcl-test-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
unset KVCL_MEM_LIMIT KVCL_CACHE KVCL_TIER KVCL_TIER_DIR KVCL_CACHE_MEM
export KVCL_CACHE_DIR=off NO_COLOR=1
n_failed=0

"$make_tiny" llama F16 "$scratch/tiny.gguf" 128 || exit 1

# compare DEVICES BATCHES TIER TIER: hot raw, two tiers below
compare() {
    "$program" compare -q -m "$scratch/tiny.gguf" -f "$source/tests/golden/prompt.txt" \
        --limit-tokens 300 -n 40 --devices "$1" --batch "$2" --tier hot=raw:64 --tier "warm=$3" \
        --tier "cold=$4" >"$scratch/out" 2>&1
    status=$?
    if [ "$status" -ne 0 ]; then
        n_failed=$((n_failed + 1))
        printf 'FAILED (%s): hot on %s, warm %s, cold %s\n' "$status" "$1" "$3" "$4"
        head -c 3000 "$scratch/out"
    fi
}

for warm in cpu "$device"; do
    for cold in cpu "$device"; do
        # the hot tier is on the device that is compared
        compare "cpu,$device" 64 "$warm:quant8:128" "$cold:quant-k3v2"
    done
done
compare "cpu,$device" 1,7,64,512 "cpu:quant4/post:64" "$device:quant2"
compare "cpu,$device" 7,512 "$device:quant4/channel:64" "cpu:q4_0"
compare "$device" 64 "cpu:raw:64" "$device:q8_0"
compare "cpu,$device" 7,512 "cpu:holo4-mmse:128" "$device:factor-k8v16" # bases from the prompt
compare "cpu,$device" 64 "$device:holo4-chip:128" "cpu:holo2"
compare "$device" 7,512 "disk:quant8:64" "disk:superpose4-2" # in memory for the twins

echo "$n_failed failed"
[ "$n_failed" -eq 0 ]
