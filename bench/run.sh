#!/bin/sh
# run.sh - measures this machine: kvcl beside its peers on every model named, interleaved.
#
#   ./dev bench [peers.py options] [MODEL.gguf ...]
#
# Without models it takes the shipped one and what lies in KVCL_BENCH_MODELS (a folder of .gguf
# files).  Peers are taken from KVCL_PEER_LLAMA and KVCL_PEER_IK, paths of llama-bench programs of
# llama.cpp and ik_llama.cpp; without them kvcl is measured alone.  The table goes to stdout and, as
# CSV, to bench/results/<processor>.csv.
set -eu
cd "$(dirname "$0")/.."

name=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1 |
    tr -cs 'A-Za-z0-9' '-' | sed 's/-$//' | tr '[:upper:]' '[:lower:]')
out=bench/results/${name:-machine}.csv
mkdir -p bench/results

has_models=false
for arg in "$@"; do
    case $arg in *.gguf) has_models=true ;; esac
done
if [ "$has_models" = false ]; then
    set -- "$@" models/ref/ref-llama-29m-q5_0.gguf
    if [ -n "${KVCL_BENCH_MODELS:-}" ]; then
        set -- "$@" "$KVCL_BENCH_MODELS"/*.gguf
    fi
fi
[ -z "${KVCL_PEER_LLAMA:-}" ] || set -- --peer "llama.cpp=$KVCL_PEER_LLAMA" "$@"
[ -z "${KVCL_PEER_IK:-}" ] || set -- --peer "ik_llama.cpp=$KVCL_PEER_IK" "$@"
exec python3 bench/peers.py --csv "$out" "$@"
