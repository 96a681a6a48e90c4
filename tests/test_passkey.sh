#!/bin/sh
# test_passkey.sh PROGRAM - the shipped model finds a number told some 3,900 tokens before: prefill
# over many pages, attention over all of them.  Needs the folder of reference data (KVCL_SHARED, or
# ../shared beside the sources); 77 without it.
set -eu
source=$(cd "$(dirname "$0")/.." && pwd)
text=${KVCL_SHARED:-$source/../shared}/data/passkey-4k.txt
if [ ! -r "$text" ]; then
    echo "$text is not here"
    exit 77
fi
answer=$("$1" run -m "$source/models/ref/ref-llama-29m-q5_0.gguf" -f "$text" -n 8 --temp 0 -q \
    --no-display-prompt --device cpu)
printf 'answer:%s\n' "$answer"
case $answer in
' ALPHA-77'*) ;;
*) exit 1 ;;
esac
