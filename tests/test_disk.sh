#!/bin/sh
# test_disk.sh PROGRAM MAKE_TINY - tiers on disk from outside: the text of memory, files that leave
# nothing behind however the program ends, full disks, and damage while a text is written.
# KVCL_TEST_RUNNER: words to put before each program (an emulator).
set -u
kvcl_program=$1
make_tiny=$2
# shellcheck source=tests/program.sh
. "$(dirname "$0")/program.sh"
mkdir tiers
# programs that start themselves anew (OMP_WAIT_POLICY) would have another process number
export KVCL_TIER_DIR="$scratch/tiers" OMP_WAIT_POLICY=passive
shipped="$source/models/ref/ref-llama-29m-q5_0.gguf"

# ends STATUS PATTERN command...: that exit status; a failure with one line that has the pattern.
ends() {
    want=$1
    pattern=$2
    shift 2
    "$@" >out 2>err </dev/null
    status=$?
    if [ "$status" -ne "$want" ]; then
        fail "$*: exit status $status, not $want"
    elif [ "$want" -ne 0 ] && { [ "$(wc -l <err)" -ne 1 ] || ! grep -q -e "$pattern" err; }; then
        fail "$*: standard error does not speak of '$pattern'"
    fi
    [ -z "$(ls tiers)" ] || fail "$*: left $(ls tiers)"
}

tiny llama F16 wide.gguf 128 || exit 1
for _ in 1 2 3 4 5 6 7 8; do echo 'the thing at the end of the tent and then some.'; done >text

# ---- the same text and numbers ------------------------------------------------------------------

tiered() { kvcl run -m wide.gguf -f text --no-display-prompt -n 90 --temp 0 -q "$@"; }
for codec in quant2 raw rest1.5; do
    ends 0 '' tiered --tier "hot=raw:64,cold=$codec"
    cp out want
    ends 0 '' tiered --tier "hot=raw:64,cold=disk:$codec"
    cmp -s want out || fail "cold=disk:$codec: another text"
done
ends 0 '' kvcl compare -m wide.gguf -f text --limit-tokens 200 -n 4 --batch 7,64 --devices cpu \
    --tier hot=raw:64,warm=disk:quant8:64,cold=disk:quant4 --json
grep -q '"n_differing": 0' out || fail "compare: no figures"
if grep -q '"n_differing": [1-9]' out; then fail "compare: not the same"; fi

# more pages than come from the file at once; memory and disk from one prompt
if [ -z "${KVCL_TEST_RUNNER:-}" ]; then
    for _ in 1 2 3 4 5; do cat "$source/tests/golden/prompt.txt"; done >long
    printf 'memory --tier cold=quant4\ndisk --tier cold=disk:quant4\n' >grid
    ends 0 '' kvcl eval -m "$shipped" --text long --places 1 \
        -c 2300 --positions 24 --hot 64 --grid grid --csv e.csv -q
    # column 13: bytes of memory; 14: of disk
    awk -F, '$1 == "memory" { memory = $13; $1 = $2 = $13 = $14 = $16 = ""; want = $0; n++ }
        $1 == "disk" { held = $13; disk = $14; $1 = $2 = $13 = $14 = $16 = ""; got = $0; n++ }
        END { exit !(n == 2 && want == got && disk > 0 && held + disk == memory) }' e.csv ||
        fail "eval: memory and disk differ: $(cat e.csv)"
fi

# ---- figures ------------------------------------------------------------------------------------

budget='-m wide.gguf -c 1024 --cache small --cache-mem'
# shellcheck disable=SC2086
ends 6 'raise --cache-mem' kvcl plan $budget 250k --json
# shellcheck disable=SC2086
ends 0 '' kvcl plan $budget 250k --tier cold=disk:auto --json
grep -q '"device": "disk"' out || fail "plan: no disk"
disk=$(sed -n 's/.*"disk_bytes": \([0-9]*\).*/\1/p' out)
ends 0 '' kvcl bench -m wide.gguf -p 0 -n 4 -d 1019 -r 1 --cache small --tier cold=disk:auto \
    --no-bandwidth --json
grep -q "\"cache_disk_bytes\": ${disk:-none}," out || fail "bench: other bytes than plan's $disk"

# ---- what cannot be -----------------------------------------------------------------------------

cold='hot=raw:64,cold=disk:quant4'
ends 1 'nowhere: the cold tier cannot have a file there.*--tier-dir' tiered --tier $cold \
    --tier-dir nowhere
ends 1 'wide.gguf: the cold tier cannot' tiered --tier $cold --tier-dir wide.gguf
ends 2 "'0' is no number of tokens" tiered --tier cold=disk:quant4:0
ends 2 'hot tier is in the memory' tiered --tier hot=disk:raw:64,cold=quant4
ends 2 "'disk' is no codec" tiered --tier cold=disk
if [ "$(id -u)" -ne 0 ]; then
    mkdir -m 0500 closed
    ends 1 'Permission denied' tiered --tier $cold --tier-dir closed
fi
limited() { (
    ulimit -f 8 && tiered "$@"
); }
ends 1 'cannot be reserved.*(ulimit -f)' limited --tier $cold
mkdir small
# shellcheck disable=SC2016
full='mount -t tmpfs -o size=64k none small && shift && exec "$@"'
if [ -z "${KVCL_TEST_RUNNER:-}" ] && unshare -rm sh -c "$full" sh 1 true 2>/dev/null; then
    ends 1 'bytes of the cold tier cannot be reserved there: No space left' \
        unshare -rm sh -c "$full" sh 1 "$kvcl_program" run -m wide.gguf -f text -n 4 -q \
        --tier $cold --tier-dir small
else
    echo "no tmpfs of 64 KiB may be mounted here: a full disk was not tried"
fi

# ---- a file behind our back ---------------------------------------------------------------------

# start: a program that would write for half a minute, its first words in `out`, stopped: $pid; its
# file: $file.
start() {
    : >out
    "$kvcl_program" run -m "$shipped" -f text -n -1 --ignore-eos --temp 0 --tier "$cold" -q \
        >out 2>err </dev/null &
    pid=$!
    n=0
    while [ "$(wc -c <out)" -le "$(($(wc -c <text) + 8))" ] && [ $((n += 1)) -lt 600 ]; do
        sleep 0.02
    done
    kill -STOP "$pid"
    file=
    for link in /proc/"$pid"/fd/*; do
        case $(readlink "$link") in */tiers/*.tier*) file=$link ;; esac
    done
    if [ -z "$file" ]; then fail "no file of process $pid"; fi
    [ -z "$(ls tiers)" ] || fail "the file has a name: $(ls tiers)"
}

if [ -d /proc/self/fd ] && [ -z "${KVCL_TEST_RUNNER:-}" ]; then
    start
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null
    [ -z "$(ls tiers)" ] || fail "killed: left $(ls tiers)"
    start
    if [ -n "$file" ]; then : >"$file"; fi
    kill -CONT "$pid"
    wait "$pid"
    status=$?
    [ "$status" -eq 3 ] || fail "a file cut short: exit status $status"
    grep -q '^kvcl: layer [0-9]*, page 0 .*cold tier.*cut its file short' err ||
        fail "a file cut short: not named"
    [ "$(head -c 40 out)" = "$(head -c 40 text)" ] || fail "a file cut short: the text is lost"
fi

[ "$n_failed" -eq 0 ] || exit 1
echo "all well"
