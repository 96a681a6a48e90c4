#!/bin/sh
# test_eval.sh PROGRAM MAKE_TINY - kvcl eval, perplexity and capture from outside, on tiny models:
# reports, a run that is interrupted and resumed, and one-line refusals of bad input.
# KVCL_TEST_RUNNER: words to put before each program (an emulator).  KVCL_TEST_SMALL=1: the same
# checks over fewer positions, for what is slow.
set -u
kvcl_program=$1
make_tiny=$2
# shellcheck source=tests/program.sh
. "$(dirname "$0")/program.sh"
export KVCL_MODEL="$scratch/tiny.gguf"
positions=12
many=40
if [ "${KVCL_TEST_SMALL:-0}" = 1 ]; then
    positions=4
    many=10
fi

tiny llama F16 tiny.gguf 128 && tiny gpt2 F16 tiny2.gguf 128 || exit 1
cp "$source/tests/golden/prompt.txt" text.txt

# ---- eval: texts --------------------------------------------------------------------------------

eval_text() {
    kvcl eval -q --text text.txt -c 300 --places 2 --positions $positions \
        --codecs f16,quant8,quant2,q4_0 "$@"
}
good "eval" eval_text --csv a.csv
cp out a.txt
holds '^| quant2 ' a.txt
holds '^- text.txt from token 0 on' a.txt
[ "$(wc -l <a.csv)" -eq 6 ] || fail "eval: $(wc -l <a.csv) lines of CSV"
# Columns: 6 KL mean, 10 same top, 16 prompts.  A raw tier differs by rounding alone, and fewer bits
# cost more.
awk -F, -v want=$((2 * positions)) 'NR > 1 { kl[$1] = $6; bits[$1] = $4; n[$1] = $3 }
    END { exit !(kl["exact"] == 0 && kl["f16"] < 1e-9 && kl["quant8"] > kl["f16"] &&
                 kl["quant2"] > 10 * kl["quant8"] && kl["q4_0"] > kl["quant8"] &&
                 bits["exact"] == 16 && bits["f16"] == 16 && bits["q4_0"] == 4.5 &&
                 bits["quant2"] < bits["q4_0"] && n["quant2"] == want) }' a.csv ||
    fail "eval: figures in $(cat a.csv)"
# Speed is the only figure that may differ from run to run.
figures() { awk -F, -v OFS=, '{ $16 = ""; print }' "$1"; }
figures a.csv >a
for way in '--device cpu:scalar' '-t 3' '-b 7'; do
    # shellcheck disable=SC2086
    good "eval $way" eval_text --csv b.csv $way
    figures b.csv >b
    same a b
done
# prompts one after the other: tokens behind the first one have met compressed ones
good "eval in steps" eval_text --csv b.csv --prompt-step 100 --resume step.jsonl
figures b.csv >b
awk -F, 'NR > 1 { kl[$1] = $6 } END { exit !(kl["exact"] == 0 && kl["quant2"] > 0) }' b.csv ||
    fail "eval in steps: figures in $(cat b.csv)"
if cmp -s a b; then fail "eval in steps: as without"; fi
good "steps that are prompts" eval_text --csv c.csv --prompt-step 300 --resume step.jsonl
figures c.csv >c
same a c
good "eval as JSON" eval_text --json
holds '"schema": "kvcl.eval/1"' out
holds '"attention_error_of_layers"' out
good "eval of gpt2" kvcl eval -q -m tiny2.gguf --text text.txt -c 200 --places 1 --positions 8 \
    --codecs quant4
good "places of two texts" kvcl eval -q --text text.txt --text text.txt --places 3 -c 200 \
    --positions 4 --cache small --json
[ "$(grep -c '"first_token"' out)" -eq 3 ] || fail "places: not 3"
holds '"name": "small"' out

# A state file: all rows are taken, none is computed; half of them; those of other runs; a last line
# that was cut off.
good "a state" eval_text --csv b.csv --resume s.jsonl
figures b.csv >b
same a b
[ "$(wc -l <s.jsonl)" -eq 10 ] || fail "state: $(wc -l <s.jsonl) rows"
good "a finished state" eval_text --csv c.csv --resume s.jsonl
same b.csv c.csv
[ "$(wc -l <s.jsonl)" -eq 10 ] || fail "finished state: $(wc -l <s.jsonl) rows"
head -n 3 s.jsonl >half.jsonl
sed -n 4p s.jsonl | head -c 50 >>half.jsonl
good "half a state" eval_text --csv c.csv --resume half.jsonl
figures c.csv >c
same a c
fewer=$((positions - 1))
good "the state of another run" eval_text --csv c.csv --positions $fewer --resume s.jsonl
[ "$(wc -l <s.jsonl)" -eq 20 ] || fail "another run: $(wc -l <s.jsonl) rows"

# Interrupted: status 130, finished rows are kept, and the run goes on with them.
n_checked=$((n_checked + 1))
eval_text --positions $many --places 4 --resume i.jsonl >out 2>err </dev/null &
pid=$!
waited=0
while [ "$(wc -l 2>/dev/null <i.jsonl || echo 0)" -lt 3 ] && [ "$waited" -lt 600 ]; do
    sleep 0.1
    waited=$((waited + 1))
done
# the shell's child may be a subshell or an emulator: the signal goes to the program
child=$(ps -o pid= --ppid "$pid" 2>/dev/null | head -n 1)
kill -INT "${child:-$pid}" 2>/dev/null
wait "$pid"
status=$?
case $status in
130) ;;
0) echo "interrupt: the run had ended before" ;;
*) fail "interrupt: exit status $status" ;;
esac
cp i.jsonl kept.jsonl
good "resumed" eval_text --positions $many --places 4 --csv r.csv --resume i.jsonl
head -n "$(wc -l <kept.jsonl)" i.jsonl >first.jsonl
same kept.jsonl first.jsonl
good "in one run" eval_text --positions $many --places 4 --csv o.csv
figures r.csv >r
figures o.csv >o
same r o

# ---- eval: configurations -----------------------------------------------------------------------

cat >grid.txt <<'END'
# name and words
mine    --tier cold=quant4 --hot 128 --sinks 0   # the rest is a comment

mixed   --tier=warm=quant8:64 --tier cold=quant2
small   --cache small
auto    --cache auto
END
good "a grid" kvcl eval -q --text text.txt -c 400 --places 1 --positions 8 --grid grid.txt
holds '^| mine .*hot=f16:128 cold=quant4 sinks=0' out
holds '^| mixed .*warm=quant8:64 cold=quant2 sinks=8' out
holds '^| small ' out
holds '^| auto ' out
one() { kvcl eval -q --text text.txt -c 300 --places 1 --positions 4 "$@"; }
bad 2 "no codec is called 'quant5'" one --codecs quant4,quant5
bad 2 'one comma' one --codecs quant4,,quant2
bad 2 'there twice' one --codecs quant4,quant4
bad 1 'absent.txt' one --grid absent.txt
line() {
    printf 'fine --cache small\n%s\n' "$1" >bad.txt
    bad 2 "bad.txt, line 2.*$2" one --grid bad.txt
}
line 'x --tier' 'a line is a name'
line '--tier cold=quant4' 'a line is a name'
line 'x --tier cold=quant9' 'quant9'
line 'x --tier icy=quant4' 'icy'
line 'x --speed 3' "'--speed'"
line 'x --cache huge' "'huge'"
line 'x --hot many' "'many'"
line 'x --sinks 33' "'33'"
printf '# nothing\n' >bad.txt
bad 2 'no configuration' one --grid bad.txt
printf 'exact --cache small\n' >bad.txt
bad 2 'names the reference' one --grid bad.txt

# ---- eval: bad input ----------------------------------------------------------------------------

bad 2 'no input' kvcl eval -q
bad 1 'absent.txt' kvcl eval -q --text absent.txt
printf 'short' >short.txt
bad 2 'short.txt has .* tokens' kvcl eval -q --text short.txt -c 300
bad 2 'context of 1024' kvcl eval -q --text text.txt -c 2000
bad 2 '\-\-positions' kvcl eval -q --text text.txt -c 100 --positions 100
bad 2 'fewer --places' kvcl eval -q --text text.txt -c 300 --places 300
bad 2 '\-\-places 1' kvcl eval -q --text text.txt --text text.txt --places 1 -c 200
bad 3 'holds no rows' one --resume text.txt
bad 1 'absent/x' one --resume absent/x
bad 1 'absent/x' one --csv absent/x
KVCL_MEM_LIMIT=2m bad 6 'KVCL_MEM_LIMIT' kvcl eval -q --text text.txt -c 300

# ---- eval: retrieval ----------------------------------------------------------------------------

words='the end of the tent and the end of the other thing that he had then'
{
    printf '{"prompt": "%s %s %s\\nA = qwerty-1\\n%s %s %s\\n' "$words" "$words" "$words" \
        "$words" "$words" "$words"
    printf 'What is A? A is", "answer": "qwerty-1"}\n\n'
    printf '{"prompt": "%s\\nthe end", "answer": " of"}\n' "$words"
} >ask.jsonl
ask() { kvcl eval -q --retrieval "$@"; }
good "retrieval" ask ask.jsonl --codecs f16,quant2 --json --resume ask.state
holds '"n_prompts": 2' out
cp out first.json
[ "$(wc -l <ask.state)" -eq 6 ] || fail "retrieval: $(wc -l <ask.state) rows"
good "retrieval again" ask ask.jsonl --codecs f16,quant2 --json --resume ask.state
same out first.json
# 192 tokens: behind the last one a page is on its way to its tier when the sessions are freed
good "texts and retrieval" kvcl eval -q --text text.txt -c 192 --places 1 --positions 4 \
    --retrieval ask.jsonl --codecs quant4
holds '^| quant4 .* of 2 ' out
printf '{"prompt": "a\\nb", "answer": "c"}\n{"prompt": "a\\nb"\n' >bad.jsonl
bad 3 'bad.jsonl, line 2: no JSON' ask bad.jsonl
printf '{"prompt": "a\\nb"}\n' >bad.jsonl
bad 3 "bad.jsonl, line 1: no text 'answer'" ask bad.jsonl
printf '\n{"prompt": 3, "answer": "c"}\n' >bad.jsonl
bad 3 "bad.jsonl, line 2: no text 'prompt'" ask bad.jsonl
printf '{"prompt": "one line", "answer": "c"}\n' >bad.jsonl
bad 3 'line 1: the prompt has no line before' ask bad.jsonl
printf '{"prompt": "a\\nb", "answer": ""}\n' >bad.jsonl
bad 3 'line 1: the answer is empty' ask bad.jsonl
printf '[1, 2]\n' >bad.jsonl
bad 3 "line 1: no text" ask bad.jsonl
: >bad.jsonl
bad 3 'holds no prompts' ask bad.jsonl
{
    printf '{"prompt": "'
    awk 'BEGIN { for (i = 0; i < 1200; i++) printf "zq" }'
    printf '\\nb", "answer": "c"}\n'
} >bad.jsonl
bad 2 'line 1: .* do not fit into this model' ask bad.jsonl

# ---- plots --------------------------------------------------------------------------------------

good "plots" one --codecs quant4,quant2 --plots pictures
holds "^plot .quality" pictures/eval.gp
if command -v gnuplot >/dev/null; then
    for f in quality speed; do
        n_checked=$((n_checked + 1))
        [ "$(head -c 4 pictures/$f.png | tail -c 3)" = PNG ] || fail "plots: no $f.png"
        grep -q '</svg>' pictures/$f.svg || fail "plots: no $f.svg"
    done
fi
if [ -z "${KVCL_TEST_RUNNER:-}" ]; then
    good "plots without gnuplot" env PATH= "$kvcl_program" eval --text text.txt -c 300 --places 1 \
        --positions 4 --codecs quant4 --plots without
    holds 'gnuplot is not installed' err
fi
bad 1 'not a folder' one --codecs quant4 --plots text.txt

# ---- perplexity ---------------------------------------------------------------------------------

ppl() { kvcl perplexity -q -f text.txt -c 200 --json "$@"; }
value() { sed -n 's/.*"perplexity": \([0-9.e+]*\).*/\1/p' out; }
good "perplexity" ppl
exact=$(value)
good "perplexity of a raw tier" ppl --tier hot=raw:64 --tier cold=f16
raw=$(value)
good "perplexity of quant8" ppl --tier hot=raw:64 --tier cold=quant8
q8=$(value)
good "perplexity of quant1" ppl --tier hot=raw:64 --tier cold=quant1
q1=$(value)
n_checked=$((n_checked + 1))
awk -v e="$exact" -v r="$raw" -v a="$q8" -v b="$q1" '
    function d(x) { x = x / e - 1; return x < 0 ? -x : x }
    BEGIN { exit !(e > 1 && d(r) < 1e-6 && d(a) < 0.01 && d(b) > d(a)) }' ||
    fail "perplexity: exact $exact, f16 $raw, quant8 $q8, quant1 $q1"
good "perplexity in words" kvcl perplexity -q -f text.txt -c 200 --chunks 2
holds 'over 2 chunks of 200 tokens (198 scored)' out
bad 2 'fewer than one chunk' kvcl perplexity -q -p short -c 200
bad 2 'no input' kvcl perplexity -q

# ---- capture ------------------------------------------------------------------------------------

good "capture" kvcl capture -q -f text.txt --limit-tokens 70 --layers 1 -o rows
# 128 bytes of header; 4 query heads, 2 of keys and values, 70 tokens, 32 values each
for part in q:4 k_pre:2 k:2 v:2; do
    n_checked=$((n_checked + 1))
    file=rows/layer01-${part%:*}.npy
    want=$((128 + ${part#*:} * 70 * 32 * 4))
    [ "$(wc -c <"$file")" -eq "$want" ] || fail "$file: $(wc -c <"$file") bytes, not $want"
    grep -qa "'shape': (${part#*:}, 70, 32)" "$file" || fail "$file: its shape"
done
[ "$(find rows -type f | wc -l)" -eq 4 ] || fail "capture: $(ls rows)"
cmp -s rows/layer01-k.npy rows/layer01-k_pre.npy && fail "capture: k is not rotated"
# position 0 is not turned: the first token's keys are the same
cut() { tail -c +129 "$1" | head -c 128; }
cut rows/layer01-k.npy >k0
cut rows/layer01-k_pre.npy >k1
same k0 k1
good "capture in other batches" kvcl capture -q -f text.txt --limit-tokens 70 -b 7 -o rows2
same rows/layer01-q.npy rows2/layer01-q.npy
same rows/layer01-k.npy rows2/layer01-k.npy
same rows/layer01-v.npy rows2/layer01-v.npy
[ "$(find rows2 -type f | wc -l)" -eq 8 ] || fail "capture of all: $(ls rows2)"
good "capture of gpt2" kvcl capture -q -m tiny2.gguf -p 'the end' --layers 0 -o rows3
same rows3/layer00-k.npy rows3/layer00-k_pre.npy
bad 2 'no layer 2' kvcl capture -q -p a --layers 0-2 -o rows
bad 2 'numbers and ranges' kvcl capture -q -p a --layers 1-0 -o rows
bad 2 'numbers and ranges' kvcl capture -q -p a --layers 0, -o rows
bad 2 'no folder' kvcl capture -q -p a
bad 1 'absent/rows' kvcl capture -q -p a -o absent/rows
bad 1 'not a folder' kvcl capture -q -p a -o text.txt

finish
