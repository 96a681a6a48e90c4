#!/bin/sh
# test_cli.sh PROGRAM MAKE_TINY - the program from outside: results on standard output, and for each
# kind of bad input one line on standard error that names cause and remedy, the documented exit
# status, no crash.  KVCL_TEST_RUNNER: words to put before each program (an emulator).
set -u
kvcl_program=$1
make_tiny=$2
# shellcheck source=tests/program.sh
. "$(dirname "$0")/program.sh"
export KVCL_MODEL="$source/models/ref/ref-llama-29m-q5_0.gguf"

# patch FILE OFFSET BYTES (in printf's \ooo form)
patch() {
    # shellcheck disable=SC2059
    printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

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
good "a control token in the text" kvcl tokenize -m tiny.gguf -p '</s>' --special --count
[ "$(cat out)" = 1 ] || fail "tokenize: --special is not heeded"
good "the same as text" kvcl tokenize -m tiny.gguf -p '</s>' --count
[ "$(cat out)" = 4 ] || fail "tokenize: a control token came out of text"
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

# ---- tiers of the cache -------------------------------------------------------------------------

tiny llama F16 wide.gguf 128 || exit 1 # heads of 32, which every codec takes
# 40 times four tokens or more: beyond a hot tier of 64
i=0
while [ "$i" -lt 40 ]; do
    printf 'the end of the tent '
    i=$((i + 1))
done >long.txt
tiered() { kvcl run -m wide.gguf -f long.txt --no-display-prompt -n 12 --temp 0 -q "$@"; }
good "exact cache" tiered
cp out exact
good "--cache exact" tiered --cache exact
same out exact
good "--cache-mem that holds all" tiered --cache-mem 64M
same out exact
good "--cache smallest" tiered --cache smallest
cp out smallest
for way in '--tier hot=raw:64 --tier cold=quant2' '--tier hot=raw:64,cold=quant2' \
    '--cache smallest --tier cold=cpu:auto' '--cache smallest --tier cold=cpu:scalar:auto' \
    '--tier hot=cpu:raw:64 --tier cold=cpu:scalar:quant2' '--cache smallest -b 7' \
    '--cache smallest -t 1'; do
    # shellcheck disable=SC2086
    good "$way" tiered $way
    same out smallest
done
good "--drop-oldest" kvcl run -m wide.gguf -f long.txt -n 12 --temp 0 --no-timings \
    --tier hot=raw:64 --tier cold=quant4:64 --drop-oldest
grep -q "tokens were dropped" err || fail "--drop-oldest says nothing"
good "--cache-mem with --drop-oldest" kvcl plan -m wide.gguf -c 1024 --cache-mem 190k --drop-oldest
grep -Eq 'cold=[a-z0-9.-]+:[0-9]+$' out || fail "--cache-mem with --drop-oldest: no tokens"
KVCL_CACHE=smallest good "KVCL_CACHE" tiered
same out smallest
KVCL_TIER='hot=raw:64,cold=quant2' good "KVCL_TIER" tiered
same out smallest
good "three tiers" tiered --tier hot=raw:64 --tier warm=quant8:64 --tier cold=q4_0
for word in balanced small auto; do
    good "--cache $word" tiered --cache $word
done
kvcl run -m wide.gguf -f long.txt -n 4 --temp 0 --cache smallest -v >out 2>err </dev/null
n_checked=$((n_checked + 1))
grep -q 'cold tier .* quant2 on cpu' err || fail "run -v: no figures of the cold tier"
good "compare with tiers" kvcl compare -m wide.gguf -f long.txt --limit-tokens 150 -n 4 \
    --tier hot=raw:64 --tier warm=cpu:scalar:quant8:64 --tier cold=quant2 --devices cpu --json
grep -q '"n_differing": 0' out || fail "compare with tiers: not the same"
good "logits with tiers" kvcl logits -m wide.gguf -f long.txt --cache smallest --last 2 -o l3.npy
good "bench with tiers" kvcl bench -m wide.gguf -p 8 -n 8 -d 150 -r 2 --cache smallest \
    --no-bandwidth --json
grep -q '"cache": "hot=f16:64 cold=quant2"' out || fail "bench: no cache"
allocated=$(grep '"cache_bytes"' out)

good "plan" kvcl plan -m wide.gguf -c 1024 --cache small --prompt-tokens 1023
grep -q 'cold tier, quant-k3v2' out || fail "plan: no cold tier"
good "plan of a longer prompt" kvcl plan -m wide.gguf -c 1024 --cache small
grep -q 'cold tier, superpose8-2.25' out || fail "plan: nothing learned"
good "plan as JSON" kvcl plan -m wide.gguf -c 1024 --tier hot=raw:64,warm=quant8:64,cold=q4_0 --json
grep -q '"schema": "kvcl.plan/1"' out || fail "plan --json: no schema"
# 150 + 8 + 1 tokens, as bench had: what is planned is what is allocated
good "plan of bench's cache" kvcl plan -m wide.gguf -c 159 --cache smallest --json
grep -qF "$allocated" out || fail "plan: other than '$allocated'"
grep -q 'quant2, not superpose8-1.75, which has to learn' out || fail "plan: no reason"

# ---- rates that follow from an error ------------------------------------------------------------

head -c 300 long.txt >short.txt
chosen() { sed -n 's/.*--kv-error [^:]*: cold=\([^,]*\),.*/\1/p' err; }
errs() { kvcl run -m wide.gguf --no-display-prompt -n 4 --temp 0 "$@"; }
good "--kv-error" errs -f long.txt --kv-error .2 -v
cp out wanted
codec=$(chosen)
case $codec in superpose4-*) ;; *) fail "--kv-error .2 chose '$codec'" ;; esac
good "--kv-error on another path" errs -f long.txt --kv-error .2 --device cpu:scalar -b 64
same out wanted
[ "$(chosen)" = "$codec" ] || fail "--kv-error: $(chosen) there, $codec here"
good "what it chose" errs -f long.txt --tier cold="$codec"
same out wanted
good "up to a codec" errs -f long.txt --kv-error .0001 --tier hot=raw:64,cold=rest1.5
grep -q 'warning: no rate .* meets' err || fail "--kv-error .0001: no warning"
case $(chosen) in # a text of one sentence: more bits are not always better
rest0.75 | rest1 | rest1.25 | rest1.5) ;;
*) fail "--kv-error .0001: $(chosen) of rest up to 1.5" ;;
esac
good "a short prompt" errs -f short.txt --kv-error .05 --cache small
[ "$(chosen)" = quant4 ] || fail "--kv-error .05: $(chosen) for a short prompt"
bad 2 'chooses among' errs -f long.txt --kv-error .1 --tier cold=q4_0 -q
bad 2 'kv-error takes a number' errs -p a --kv-error 2
bad 2 'exact keeps every token raw' errs -f long.txt --kv-error .1 --cache exact

good "devices with a probe" kvcl devices --probe --json
grep -q '"copy_bytes_per_s"' out || fail "devices --probe: no bandwidth"

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

tier() { tiered --tier "$@"; }
bad 2 "'quant4'.*NAME=" tier quant4
bad 2 "'lukewarm'.*hot, warm and cold" tier lukewarm=quant4
bad 2 "'quant5' is no codec" tier cold=quant5
bad 2 "'pocl' is no codec" tier cold=opencl:pocl:0
bad 2 "'many' is no number" tier cold=quant4:many
bad 2 "the hot tier is raw" tier hot=quant8:64
bad 2 "give each tier once" tier cold=quant4 --tier cold=quant2
bad 2 "empty" tier cold=:quant4
bad 2 "the tiers hold" tier hot=raw:64,cold=quant4:64
bad 2 "cold=f32.*-ctk and -ctv" tier cold=f32
bad 2 "hot tier is on the model's device" tier hot=cpu:scalar:raw:64,cold=quant4 --device cpu
bad 2 "\-\-cache exact" tiered --cache exact --tier cold=quant4
bad 2 "exact|balanced" tiered --cache tiny
bad 2 "nothing says when" tiered --drop-oldest
bad 1 "again.*leave out one" tier hot=raw:64,cold=spectral3/again2:64 --drop-oldest
bad 2 "needs some bytes" tiered --cache-mem 0 --drop-oldest
bad 2 "'lots' is not a size" tiered --cache-mem lots
bad 2 "needs some bytes" tiered --cache-mem 0
bad 6 "10.0 MiB\|\-\-cache-mem is 0.0 MiB.*raise" tiered --cache-mem 10k
bad 6 "balanced.*\-\-cache-mem is 0.1 MiB.*smaller" tiered --cache balanced --cache-mem 100k
bad 5 "'nope'" tier cold=nope:quant4
KVCL_OPENCL_LIB=off bad 5 "'gpu'" tier cold=gpu:quant4
bad 1 "multiple of 32" kvcl run -m tiny.gguf -p a --cache small
KVCL_MEM_LIMIT=48m bad 6 "64.0 MiB.*KVCL_MEM_LIMIT.*-c [0-9]* or less.*smaller" kvcl plan -t 1
bad 2 'context' kvcl plan -m tiny.gguf -c 100000
bad 2 "auto" kvcl compare -m tiny.gguf -p a --cache auto
bad 2 "hot=cpu" kvcl compare -m tiny.gguf -p a --tier hot=cpu:raw:64
KVCL_TIER=cold bad 2 "'cold'" tiered

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

# ---- svd ----------------------------------------------------------------------------------------

# npy DESCR ORDER SHAPE BYTES: an array whose bytes are all '?' (f4: 0.747)
npy() {
    printf '\223NUMPY\001\000\166\000'
    printf '%-117s\n' "{'descr': '$1', 'fortran_order': $2, 'shape': ($3), }"
    head -c "$4" /dev/zero | tr '\0' '?'
}
npy '<f4' False '40, 20' 3200 >flat.npy
npy '<f4' False '3, 40, 20' 9600 >batch.npy
npy '<f2' False '20, 300' 12000 >wide.npy
npy '<f4' False '300, 280' 336000 >large.npy
for name in flat batch wide large; do
    good "svd of $name" kvcl svd "$name.npy" -k 3 -o "$name" --json
    grep -q '"relative_error": [0-9.]*e-[6-9]' out || fail "svd of $name, of rank 1: error"
    good "svd of $name" kvcl svd "$name.npy" -k 3 -o again -t 3
    for factor in U S V; do
        cmp -s "$name.$factor.npy" "again.$factor.npy" || fail "svd of $name: other bits of $factor"
    done
done
[ "$(wc -c <batch.V.npy)" -eq $((128 + 3 * 20 * 3 * 4)) ] || fail "svd of a batch: size of V"
bad 2 'say it with -k' kvcl svd flat.npy
bad 2 'has 20' kvcl svd flat.npy -k 21
bad 1 'together' kvcl svd flat.npy -k 19 --oversample 2
bad 1 'absent' kvcl svd absent.npy -k 2
bad 1 'absent' kvcl svd flat.npy -k 2 -o absent/x
bad 3 'no array' kvcl svd tiny.gguf -k 2
npy '<f4' False '40, 20' 3199 >bad.npy
bad 3 '3199 bytes' kvcl svd bad.npy -k 2
npy '<f4' False '99999999999, 99999999999' 3200 >bad.npy
bad 3 'another number' kvcl svd bad.npy -k 2
npy '<f4' False '99999999999999999999' 3200 >bad.npy
bad 3 'damaged' kvcl svd bad.npy -k 2
npy '<i4' False '40, 20' 3200 >bad.npy
bad 1 '<i4' kvcl svd bad.npy -k 2
npy '<f4' True '40, 20' 3200 >bad.npy
bad 1 'column-major' kvcl svd bad.npy -k 2
npy '<f4' False '800,' 3200 >bad.npy
bad 1 'dimensions' kvcl svd bad.npy -k 2
npy '<f4' False '0, 20' 0 >bad.npy
bad 2 'empty' kvcl svd bad.npy -k 2
head -c 100 flat.npy >bad.npy
bad 3 'header' kvcl svd bad.npy -k 2
{ npy '<f4' False '40, 20' 3196 && printf '\0\0\300\177'; } >bad.npy
bad 1 'not finite' kvcl svd bad.npy -k 2

finish
