#!/bin/sh
# check_kernels.sh - every kernel file, as cl/cl_program.c gives it to a driver, is OpenCL C 1.2:
# for each KVCL_SPEC it is built with, in both shapes, in the base variant and in NVIDIA's.  Run by
# ./dev lint; needs clang.
set -eu
cd "$(dirname "$0")/.."

scratch=$(mktemp -d "${TMPDIR:-/tmp}/kvcl-kernels-XXXXXX")
trap 'rm -rf "$scratch"' EXIT

# The values of KVCL_SPEC that the host half of a stem asks for.
specs() {
    case $1 in
    embed | matmul) echo 0 1 2 6 8 30 ;; # element types
    matvec) echo 0 1 2 6 8 30 256 257 258 262 264 286 ;; # and pairs of them
    # float types; a pair; norms with 1 to 3 matrices; bias, GELU, residual; teams of 32
    matvec_wide) echo 16384 16385 33537 49665 16414 23553 24577 49695 82945 ;;
    attn | rope) echo 0 1 2 3 ;; # f16 K, f16 V
    *) echo 0 ;;
    esac
}

# check FILE SPEC VECTOR_SHAPE NVIDIA
check() {
    {
        echo "#define KVCL_SPEC $2"
        echo "#define KVCL_VECTOR_SHAPE $3"
        echo "#define KVCL_PTX $4"
        echo "#define KVCL_SUBGROUPS 0"
        echo "#define KVCL_NVIDIA $4"
        echo '#line 1 "cl/shared.h"'
        cat cl/shared.h
        echo '#line 1 "cl/prelude.cl"'
        cat cl/prelude.cl
        echo "#line 1 \"$1\""
        cat "$1"
    } >"$scratch/all.cl"
    if [ "$4" = 1 ]; then
        target=nvptx64 # understands the inline assembly
    else
        target=spir64
    fi
    clang -x cl -cl-std=CL1.2 -D__OPENCL_VERSION__=120 -target "$target" -Xclang -cl-ext=+all \
        -fsyntax-only -Wall -Wextra -Werror -Wno-unused-function -Wno-unused-parameter \
        -Wno-unused-variable -Wno-sign-compare -Xclang -finclude-default-header \
        "$scratch/all.cl" || {
        echo "check_kernels: $1 with KVCL_SPEC=$2 KVCL_VECTOR_SHAPE=$3 KVCL_NVIDIA=$4"
        exit 1
    }
}

n=0
for f in cl/*.cl; do
    [ "$f" != cl/prelude.cl ] || continue
    for spec in $(specs "$(basename "$f" .cl)"); do
        check "$f" "$spec" 0 0
        check "$f" "$spec" 1 0
        check "$f" "$spec" 0 1
        n=$((n + 3))
    done
done
[ "$n" -gt 0 ] || {
    echo "check_kernels: no kernel files found"
    exit 1
}
echo "check_kernels: $n programs are OpenCL C 1.2"
