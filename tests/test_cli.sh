#!/bin/sh
# test_cli.sh PROGRAM MAKE_TINY - the program from outside: results on standard output, and for each
# kind of bad input one line on standard error that names cause and remedy, the documented exit
# status, no crash.  KVCL_TEST_RUNNER: words to put before each program (an emulator).
set -u
kvcl_program=$1
make_tiny=$2
source=$(cd "$(dirname "$0")/.." && pwd)

scratch=$(mktemp -d "${TMPDIR:-/tmp}/kvcl-test-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
cd "$scratch" || exit 1

unset KVCL_DEVICE KVCL_MEM_LIMIT KVCL_CPU_CAPS KVCL_THREADS KVCL_BATCH KVCL_COLOR
export KVCL_CACHE_DIR=off KVCL_DEVICE=cpu NO_COLOR=1
export KVCL_MODEL="$source/models/ref/ref-llama-29m-q5_0.gguf"
n_failed=0
n_checked=0

# shellcheck disable=SC2086
kvcl() { ${KVCL_TEST_RUNNER:-} "$kvcl_program" "$@"; }

fail() {
    n_failed=$((n_failed + 1))
    printf 'FAILED: %s\n' "$1"
    head -c 1000 out
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

# patch FILE OFFSET BYTES (in printf's \ooo form)
patch() {
    # shellcheck disable=SC2059
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

same() {
    n_checked=$((n_checked + 1))
    cmp -s "$1" "$2" || fail "$1 and $2 differ"
}

# shellcheck disable=SC2086
tiny() { ${KVCL_TEST_RUNNER:-} "$make_tiny" "$@"; }
tiny llama F16 tiny.gguf && tiny gpt2 Q8_0 tiny2.gguf || exit 1

# ---- good ones ----------------------------------------------------------------------------------

good "version of the program" kvcl --version
good "help" kvcl help
good "help of run" kvcl run --help
good "devices" kvcl devices
grep -q cpu out || fail "devices: no cpu"
good "devices as JSON" kvcl devices --json
grep -q '"schema"' out || fail "devices --json: no schema"

greedy() { kvcl run -m tiny.gguf -p 'the end of the' -n 12 --temp 0 -q "$@"; }
good "greedy" greedy
cp out want
[ "$(head -c 14 want)" = 'the end of the' ] || fail "the prompt comes first"
for way in '--device cpu:scalar' '-t 1' '-t 3' '-b 1' '-b 7'; do
    # shellcheck disable=SC2086
    good "greedy $way" greedy $way
    same out want
done
printf 'the end of the' >prompt.txt
good "prompt from a file" kvcl run -m tiny.gguf -f prompt.txt -n 12 --temp 0 -q
same out want
good "sampled, seed 7" kvcl run -m tiny.gguf -p the -n 20 -s 7 -q
cp out seven
good "sampled, seed 7 again" kvcl run -m tiny.gguf -p the -n 20 -s 7 -t 2 -q
same out seven
good "gpt2" kvcl run -m tiny2.gguf -p the -n 5 --temp 0 -q
good "the shipped model" kvcl run -p 'It is a truth universally acknowledged' -n 4 --temp 0 -q
good "empty prompt" kvcl run -m tiny.gguf -p '' -n 3 --temp 0 -q
good "llama.cpp's flags" kvcl run -m tiny.gguf -p the -n 3 -c 64 -t 1 -s 1 --temp 0.5 --top-k 5 \
    --top-p 0.9 --min-p 0.01 --repeat-penalty 1.1 --device cpu

good "tokenize" kvcl tokenize -m tiny.gguf -p 'the thing'
good "inspect" kvcl inspect tiny.gguf
grep -q 'llama' out || fail "inspect: no architecture"
good "quantize" kvcl quantize tiny.gguf small.gguf Q4_0
good "the quantised model" kvcl run -m small.gguf -p the -n 3 --temp 0 -q
good "logits" kvcl logits -m tiny.gguf -f prompt.txt --last 2 -o l.npy
[ "$(head -c 6 l.npy | tail -c 5)" = NUMPY ] || fail "logits: no NumPy file"
# 128 bytes of header, 2 rows of 288 floats
[ "$(wc -c <l.npy)" -eq $((128 + 2 * 288 * 4)) ] || fail "logits: $(wc -c <l.npy) bytes"
good "compare" kvcl compare -m tiny.gguf -p 'the end of the tent' -n 4 \
    --devices cpu:scalar@2,cpu --batch 1,7 --json
[ "$(grep -c '"n_differing": 0' out)" -ge 4 ] || fail "compare: not all the same"

# ---- bad input ----------------------------------------------------------------------------------

run() { kvcl run -p the -n 2 --temp 0 -q "$@"; }
bad 1 'absent.gguf.*no such file' run -m absent.gguf
bad 1 'regular\|directory' run -m .
for n in 0 3 4 12 24 100 3000 20000; do
    head -c "$n" tiny.gguf >cut.gguf
    bad 3 'cut.gguf' run -m cut.gguf
done
size=$(wc -c <tiny.gguf)
head -c $((size - 1)) tiny.gguf >cut.gguf
bad 3 'truncated\|ends\|beyond' run -m cut.gguf

cp tiny.gguf big.gguf
patch big.gguf 4 '\000\000\000\003'
bad 3 'big-endian' run -m big.gguf
cp tiny.gguf magic.gguf
patch magic.gguf 0 'GGML'
bad 3 'magic.gguf.*GGUF' run -m magic.gguf
cp tiny.gguf old.gguf
patch old.gguf 4 '\001'
bad 3 'version 1' run -m old.gguf
cp tiny.gguf huge.gguf
patch huge.gguf 8 '\377\377\377\377\377\377\377\177'
bad 3 'tensors' run -m huge.gguf
cp tiny.gguf huge.gguf
patch huge.gguf 16 '\377\377\377\377\377\377\377\377'
bad 3 'huge.gguf' run -m huge.gguf
LC_ALL=C sed 's/\(general.architecture............\)llama/\1mamba/' tiny.gguf >arch.gguf
bad 1 "'mamba'" run -m arch.gguf

# The type of token_embd.weight: behind its name, the count of dimensions and two dimensions.
at=$(LC_ALL=C grep -abo 'token_embd.weight' tiny.gguf | head -n 1 | cut -d : -f 1)
cp tiny.gguf type.gguf
patch type.gguf $((at + 17 + 4 + 16)) '\014'
bad 1 'token_embd.weight.*Q4_K' run -m type.gguf
patch type.gguf $((at + 17 + 4 + 16)) '\310'
bad 1 'token_embd.weight.*200' run -m type.gguf

# A flipped bit anywhere in the header: a model or a refusal, never a crash.
at=24
while [ "$at" -lt 3000 ]; do
    cp tiny.gguf flip.gguf
    patch flip.gguf "$at" '\325'
    n_checked=$((n_checked + 1))
    run -m flip.gguf >out 2>err </dev/null
    status=$?
    case $status in
    0 | 1 | 3 | 6) ;;
    *) fail "byte $at changed: exit status $status" ;;
    esac
    at=$((at + ${KVCL_TEST_FLIP_STEP:-37}))
done

bad 2 'context' kvcl run -m tiny.gguf -p 'a b c d e f g h i j k l' -c 5 -n 2
bad 2 'context.*1024' kvcl run -m tiny.gguf -p a -c 100000 -n 2
bad 1 'absent.txt.*no such file' kvcl run -m tiny.gguf -f absent.txt
bad 5 "'nope'" kvcl run -m tiny.gguf -p a --device nope
bad 5 "'99'" kvcl run -m tiny.gguf -p a --device 99
KVCL_MEM_LIMIT=100k bad 6 'KVCL_MEM_LIMIT' run -m tiny.gguf
KVCL_MEM_LIMIT=1m bad 6 'KVCL_MEM_LIMIT' run -m tiny.gguf
KVCL_MEM_LIMIT=lots bad 2 'KVCL_MEM_LIMIT' run -m tiny.gguf
KVCL_CPU_CAPS=sse bad 2 'sse' run -m tiny.gguf
KVCL_OPENCL_LIB=off bad 5 'opencl:pocl:0.*libOpenCL' run -m tiny.gguf --device opencl:pocl:0
KVCL_OPENCL_LIB=$scratch/tiny.gguf bad 5 'no device' run -m tiny.gguf --device opencl:pocl:0
KVCL_OPENCL_LIB=off good "without OpenCL" run -m tiny.gguf
KVCL_OPENCL_LIB=off good "devices without OpenCL" kvcl devices

# Invalid UTF-8 is tokenised byte by byte, with a warning; standard output stays UTF-8.
printf 'a\377\376 b\303' >stray.txt
good "invalid UTF-8" kvcl run -m tiny.gguf -f stray.txt -n 2 --temp 0 --no-perf
grep -q 'UTF-8' err || fail "invalid UTF-8: no warning"
iconv -f UTF-8 -t UTF-8 out >/dev/null 2>&1 || fail "invalid UTF-8: standard output is no UTF-8"
case $(cat out) in
a*b*) ;;
*) fail "invalid UTF-8: the prompt's other bytes are lost" ;;
esac

bad 2 'nosuch' kvcl nosuch
bad 2 '\-\-nosuch' kvcl run --nosuch
bad 2 '\-n' kvcl run -m tiny.gguf -p a -n many
bad 2 'usage' kvcl quantize tiny.gguf
bad 2 'Q3_X' kvcl quantize tiny.gguf x.gguf Q3_X
bad 1 'quantised already' kvcl quantize small.gguf x.gguf Q8_0
bad 1 'absent' kvcl quantize tiny.gguf absent/x.gguf Q8_0
[ ! -e x.gguf ] || fail "a refused quantize left a file"
bad 3 'cut.gguf' kvcl inspect cut.gguf
bad 1 'absent' kvcl logits -m tiny.gguf -f prompt.txt -o absent/l.npy
bad 5 "nope" kvcl compare -m tiny.gguf -p a -n 1 --devices nope
printf 'abcde' >odd.i32
bad 3 'odd.i32' kvcl logits -m tiny.gguf --tokens odd.i32 -o l2.npy
printf '\377\377\0\0' >far.i32
bad 3 '65535' kvcl logits -m tiny.gguf --tokens far.i32 -o l2.npy
[ ! -e l2.npy ] || fail "refused logits left a file"

echo "$n_checked checks, $n_failed failed"
[ "$n_failed" -eq 0 ]
