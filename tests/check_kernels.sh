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
    attn | attn_vec) echo 0 1 2 3 ;; # f16 K, f16 V
    attn_warp) echo 515 1024 257 ;; # and the head dimension
    rope) echo 0 1 2 3 4 7 12 15 ;; # and keys before rotation, in f32 and f16
    fwht) echo 12 13 ;;        # log2 of the tile
    # bits of K and V, form; head dimension, rows, rotation
    attn_quant | attn_quant_vec) echo 136 68 35 50 17 392 324 291 306 273 648 580 547 562 529 ;;
    attn_quant_mma)
        echo 20872 20804 20771 20786 20753 21128 21060 21027 21042 21009 \
            37188 35379 24866 18568 86084 149539 20530 83985
        ;;
    spectral | spectral_vec | attn_spectral | attn_spectral_vec) echo 1 2 4 8 ;; # tokens of a slot
    attn_spectral_mma) echo 97 98 100 104 33 18 20 88 ;; # head dimension, rotation
    holo) echo 2 4 8 18 20 24 34 36 40 50 52 56 ;; # tokens of a slot and form
    # types of weights; bulk prefetch; f16 K and V
    defer) echo 65539 65795 73219 67587 67075 66051 256 2049 ;;
    *) echo 0 ;;
    esac
}

# What comes before a stem's own file, as in cl/cl_program.c.
before() {
    case $1 in
    attn_quant) echo cl/attn_rows.cl ;;
    attn_warp) echo cl/attn.cl ;;
    block | block_vec) echo cl/block_pages.cl ;;
    quant_vec) echo cl/quant_pages.cl ;;
    spectral) echo cl/spectral_pages.cl ;;
    spectral_vec) echo cl/ints.cl cl/quant_pages.cl cl/spectral_pages.cl \
        cl/spectral_vec_pages.cl ;;
    attn_spectral) echo cl/attn_rows.cl cl/spectral_pages.cl cl/attn_spectral_rows.cl ;;
    attn_spectral_vec) echo cl/ints.cl cl/attn_rows_vec.cl cl/spectral_pages.cl \
        cl/spectral_vec_pages.cl ;;
    attn_spectral_mma) echo cl/attn_rows.cl cl/spectral_pages.cl \
        cl/attn_spectral_rows.cl cl/mma.cl ;;
    holo) echo cl/attn_rows.cl cl/block_pages.cl cl/holo_pages.cl ;;
    attn_quant_mma) echo cl/mma.cl ;;
    attn_quant_vec) echo cl/ints.cl cl/attn_rows_vec.cl ;;
    matvec) echo cl/ints.cl ;;
    defer) echo cl/defer.h cl/rope.cl cl/attn.cl cl/defer_base.cl cl/defer_attn.cl \
        cl/defer_matvec.cl ;;
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
        echo "#define KVCL_X86 0"
        echo '#line 1 "cl/shared.h"'
        cat cl/shared.h
        echo '#line 1 "cl/prelude.cl"'
        cat cl/prelude.cl
        echo '#line 1 "cl/pages.cl"'
        cat cl/pages.cl
        for part in $(before "$(basename "$1" .cl)"); do
            echo "#line 1 \"$part\""
            cat "$part"
        done
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
    case $f in
    cl/prelude.cl | cl/pages.cl | cl/ints.cl | cl/mma.cl | cl/attn*_rows*.cl) continue ;;
    cl/*_pages.cl | cl/defer_*.cl) continue ;;
    esac
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
