#!/bin/sh
# test_memory.sh PROGRAM - what `kvcl plan` tells is what `kvcl run` holds: every row to the byte,
# by the devices' live counters, and with a full context the resident memory of the whole process
# within 5 %.  KVCL_TEST_RUNNER: words to put before the program (an emulator); KVCL_TEST_RESIDENT=0
# leaves the resident memory out (an emulator's and a sanitizer's are not ours).
set -u
kvcl_program=$1
source=$(cd "$(dirname "$0")/.." && pwd)

scratch=$(mktemp -d "${TMPDIR:-/tmp}/kvcl-test-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
cd "$scratch" || exit 1

unset KVCL_MEM_LIMIT KVCL_CPU_CAPS KVCL_THREADS KVCL_BATCH KVCL_COLOR KVCL_CACHE KVCL_TIER \
    KVCL_TIER_DIR KVCL_CACHE_MEM KVCL_CTX_SIZE
export KVCL_CACHE_DIR=off KVCL_DEVICE=cpu NO_COLOR=1
export KVCL_MODEL="$source/models/ref/ref-llama-29m-q5_0.gguf"
n_failed=0

# shellcheck disable=SC2086
kvcl() { ${KVCL_TEST_RUNNER:-} "$kvcl_program" "$@"; }

fail() {
    n_failed=$((n_failed + 1))
    printf 'FAILED: %s\n' "$1"
}

# number NAME FILE: of a JSON report.
number() { awk -F'[:,]' -v name="\"$1\"" '$1 ~ name { print $2 + 0; exit }' "$2"; }

# compare OPTION...: plan and run with these options; leaves `plan.json` and `run.err`.
# prompt_tokens: what plan is told of the prompt.
compare() {
    kvcl plan "$@" --prompt-tokens "$prompt_tokens" --json >plan.json 2>plan.err </dev/null ||
        fail "plan $*: $(tail -n 1 plan.err)"
    kvcl run "$@" -f prompt.txt -n 1 --temp 0 --no-display-prompt -v >out 2>run.err </dev/null ||
        fail "run $*: $(tail -n 1 run.err)"
    # "cpu: cold tier" and its bytes; a plan's names have codecs behind a comma
    awk -F'"' '/"device":/ { device = $4 } /"what":/ { sub(/,.*/, "", $4); what = $4 }
        /"bytes":/ && what != "" {
            sub(/.*: /, "", $3); print $3 + 0, device ": " what; what = "" }' plan.json |
        sort >planned
    sed -n 's/^kvcl: memory *\([0-9]*\) bytes   \(.*: .*\)$/\1 \2/p' run.err | sort >held
    n=$(wc -l <planned)
    if [ "$n" -lt 4 ] || ! cmp -s planned held; then
        fail "run $*: other memory than planned"
        diff planned held
    fi
    total=$(number total_bytes plan.json)
    grep -q "^kvcl: memory *$total bytes   in all$" run.err || fail "run $*: other sum than $total"
    echo "$*: $n rows, $total bytes"
}

echo 'It is a truth universally acknowledged' >prompt.txt
prompt_tokens=8
compare -c 8192 --cache small
grep -q '"codec": "quant-k3v2"' plan.json || fail "small: other than quant-k3v2 for a short prompt"
compare -c 8192
compare -c 2048 --tier hot=raw:128,warm=quant8:256,cold=q4_0
compare -c 2048 --tier hot=raw:64,warm=disk:quant8:256,cold=disk:q4_0
compare -c 2048 -ctk f32 -ctv f32 --tier hot=raw:64 --tier cold=quant1/post

if [ "${KVCL_TEST_RESIDENT:-1}" = 1 ] && [ -r /proc/self/status ]; then
    # as many bytes as fill 99 % of the context
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do cat "$source/tests/golden/prompt.txt"; done >long.txt
    bytes=$(wc -c <long.txt)
    tokens=$(kvcl tokenize -f long.txt --count)
    head -c "$((bytes * 8110 / tokens))" long.txt >prompt.txt
    tokens=$(kvcl tokenize -f prompt.txt --count)
    if [ "$tokens" -lt 8000 ] || [ "$tokens" -ge 8192 ]; then
        fail "a prompt of $tokens tokens"
    fi
    prompt_tokens=$tokens
    compare -c 8192 --cache small
    grep -q '"codec": "superpose8-2.25"' plan.json || fail "small: nothing learned from the prompt"
    planned=$(($(number total_bytes plan.json) + $(number program_bytes plan.json)))
    peak=$(sed -n 's/^kvcl: memory *\([0-9]*\) bytes   resident at most.*/\1/p' run.err)
    echo "a prompt of $tokens tokens: $planned bytes planned with the program, ${peak:=0} resident"
    apart=$((peak > planned ? peak - planned : planned - peak))
    [ "$((apart * 20))" -le "$planned" ] || fail "resident and planned are $apart bytes apart"
fi

[ "$n_failed" -eq 0 ] || exit 1
