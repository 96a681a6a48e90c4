#!/bin/sh
# test_frontier.sh PROGRAM MAKE_TINY MODEL - kvcl frontier from outside, on the shipped model and a
# short text: figures that must lie in order, reports, refusals of bad input.
set -u
kvcl_program=$1
make_tiny=$2
model=$3
# shellcheck source=tests/program.sh
. "$(dirname "$0")/program.sh"
export KVCL_MODEL="$model"

cp "$source/tests/golden/prompt.txt" text.txt
tiny llama F16 tiny.gguf 128 && tiny gpt2 F16 tiny2.gguf 128 || exit 1

# ---- figures ------------------------------------------------------------------------------------

short() {
    kvcl frontier -q --text text.txt -c 480 --positions 4 --layers 1,5 \
        --sketch oracle,rp16,kmeans16,pca16,pca32,balanced32/int4,lm2,lm3,lm2/post,box8 \
        --rule topk8,topk32,mass0.01,z3,theta0.5 "$@"
}
good "frontier" short --csv a.csv
cp out a.txt
holds '^0 of [0-9.e+]* bounds violated (8 sketches that prove' a.txt
holds '^rp16: [0-9.]* % of the scores lie outside' a.txt
holds '^topk32 by lm3, scan: unread by head' a.txt
# 2 layers of 4 heads; 8 sketches of 4 rules in 2 ways, and two of one
[ "$(wc -l <a.csv)" -eq $((1 + 8 * (8 * 4 * 2 + 2))) ] || fail "$(wc -l <a.csv) lines of CSV"
# What the rules promise, and an order that follows from the bounds: more bits, more unread; scans
# above one-shots; the oracle above all; nothing proved loses more than it may.
awk -F, 'NR > 1 {
        key = $1 " " $3 " " $4
        unread[key] += $8 / 8
        if ($1 !~ /^(rp|km)/ && $16 + $17 > 0) bad = "a violation: " $0
        if ($5 && $3 == "topk8" && $9 > 0) bad = "one of 8: " $0
        if ($5 && $3 == "topk32" && $9 + $10 > 0) bad = "one of 32: " $0
        if ($5 && $3 == "mass0.01" && ($13 > $14 || $14 > 0.0100001)) bad = "mass: " $0
        if ($15 < 1 - $8 - 1e-6) bad = "a group reads less than a head: " $0
        if ($5 != ($1 !~ /^(rp|km)/ && $3 != "z3")) bad = "proof: " $0
    }
    function under(a, b) { if (unread[a] > unread[b] + 1e-9) bad = a " above " b }
    END {
        for (k in unread) {
            split(k, w, " ")
            if (w[1] ~ /^(rp|km)/) continue
            under(k, "oracle " w[2] " " w[3])
            if (w[3] == "one-shot") under(k, w[1] " " w[2] " scan")
        }
        under("pca16 topk32 scan", "pca32 topk32 scan")
        under("lm2/post topk32 scan", "lm2 topk32 scan")
        under("lm2 topk32 scan", "lm3 topk32 scan")
        under("lm3 topk32 scan", "lm3 topk8 scan")
        under("lm2 mass0.01 scan", "lm2 z3 scan")
        if (unread["lm3 topk32 scan"] < 0.2) bad = "lm3 leaves nothing unread"
        if (bad) print bad
        exit bad != ""
    }' a.csv >err || fail "figures: $(cat err)"
for way in '-t 1' '-t 3' '-b 7'; do
    # shellcheck disable=SC2086
    good "frontier $way" short --csv b.csv $way
    same a.csv b.csv
done
good "frontier of heads" short --csv b.csv --heads 0-1,3
[ "$(wc -l <b.csv)" -eq $((1 + 6 * (8 * 4 * 2 + 2))) ] || fail "$(wc -l <b.csv) lines of CSV"

# ---- reports ------------------------------------------------------------------------------------

few() { kvcl frontier -q -m tiny.gguf --text text.txt -c 300 --positions 2 "$@"; }
good "frontier as JSON" few --sketch lm2,pca8 --rule topk8 --json
holds '"schema": "kvcl.frontier/1"' out
tr -d ' \n' <out >flat
holds '"violated_bounds":{"lm2":0,"pca8":0}' flat
holds '"unread_by_layer_and_head":\[\[0.[0-9]*,0.[0-9]*,0.[0-9]*,0.[0-9]*\],\[' flat
good "plots" few --sketch lm1,lm2,pca8 --rule topk8,mass0.01/z2 --plots pictures
holds '^plot .h0' pictures/frontier.gp
if command -v gnuplot >/dev/null; then
    for f in bytes-topk8 bytes-mass0.01-z2 heads-topk8; do
        n_checked=$((n_checked + 1))
        [ "$(head -c 4 pictures/$f.png | tail -c 3)" = PNG ] || fail "plots: no $f.png"
        grep -q '</svg>' pictures/$f.svg || fail "plots: no $f.svg"
    done
fi
good "a model without rotation" few -m tiny2.gguf -c 250 --csv c.csv --sketch lm2/pre,lm2/post \
    --rule topk8
n_checked=$((n_checked + 1))
grep '^lm2/pre' c.csv | cut -d, -f3- >a
grep '^lm2/post' c.csv | cut -d, -f3- >b
same a b
good "help" kvcl frontier --help
holds 'Cauchy-Schwarz' out

# ---- refusals -----------------------------------------------------------------------------------

bad 2 'no input' kvcl frontier
bad 2 "'lm5' is no sketch" few --sketch lm5
bad 2 'take fewer coordinates' few --sketch pca33
bad 2 "'topk0' is no rule" few --rule topk0
bad 2 'no layer 9' few --layers 9
bad 2 'no head 4' few --heads 4
bad 2 'holds [0-9]* tokens' few -c 100000
bad 2 'lower --positions' few --hot 299
bad 2 'wants more' kvcl frontier -q --text text.txt -c 8000
bad 1 'absent' kvcl frontier -q --text absent.txt
bad 1 'absent/a.csv' few --csv absent/a.csv
bad 1 'not a folder' few --plots text.txt
tiny llama F16 tiny3.gguf
bad 2 'multiple of 32' few -m tiny3.gguf --sketch lm2
good "what suits the model" few -m tiny3.gguf --rule topk8
holds '^| box16' out
grep -q '^| lm' out && fail "levels of heads of another size"

finish
