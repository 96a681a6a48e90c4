#!/bin/sh
# on_device.sh KIND command... - runs a test with one OpenCL implementation visible, and no other.
#
#   pocl      PoCL on the processor; KVCL_TEST_POCL_THREADS bounds its threads
#   rusticl   Mesa's rusticl on llvmpipe
#   oclgrind  Oclgrind with its checks for data races, uninitialised reads and API misuse; what it
#             reports does not reach the exit status of the command, so its log must stay empty
#   none      no OpenCL library at all
#
# Exit status: the command's; 77 when the implementation is not installed; 70 when Oclgrind
# complained.
set -eu

kind=${1:?"usage: on_device.sh pocl|rusticl|oclgrind|none command..."}
shift
scratch=$(mktemp -d "${TMPDIR:-/tmp}/kvcl-device-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

# The first of the vendor files in the usual places whose text matches $1 becomes the only one.
only_vendor() {
    for icd in /etc/OpenCL/vendors/*.icd /usr/share/OpenCL/vendors/*.icd \
        /opt/homebrew/etc/OpenCL/vendors/*.icd /usr/local/etc/OpenCL/vendors/*.icd; do
        if [ -f "$icd" ] && grep -qi "$1" "$icd"; then
            cp "$icd" "$scratch/only.icd"
            return 0
        fi
    done
    echo "on_device.sh: no OpenCL vendor file for $1; ./dev setup test installs it" >&2
    exit 77
}

only_oclgrind() {
    for lib in /usr/lib/oclgrind /usr/lib /usr/lib64 /usr/lib64/oclgrind /usr/local/lib \
        /opt/homebrew/lib; do
        for so in "$lib"/liboclgrind-rt-icd.*; do
            if [ -f "$so" ]; then
                echo "$so" >"$scratch/only.icd"
                return 0
            fi
        done
    done
    echo "on_device.sh: no liboclgrind-rt-icd; ./dev setup test installs it" >&2
    exit 77
}

case $kind in
pocl)
    only_vendor pocl
    if [ -n "${KVCL_TEST_POCL_THREADS:-}" ]; then
        export POCL_MAX_PTHREAD_COUNT="$KVCL_TEST_POCL_THREADS"
        export POCL_CPU_MAX_CU_COUNT="$KVCL_TEST_POCL_THREADS"
    fi
    ;;
rusticl)
    only_vendor rusticl
    export RUSTICL_ENABLE=llvmpipe
    ;;
oclgrind)
    only_oclgrind
    # KVCL_TEST_UNINITIALIZED=0: Oclgrind 21.10 takes what the host writes at an offset of a buffer,
    # as it does with a model's norms, for uninitialised
    export OCLGRIND_LOG="$scratch/log" OCLGRIND_CHECK_API=1 OCLGRIND_DATA_RACES=1
    export OCLGRIND_UNINITIALIZED="${KVCL_TEST_UNINITIALIZED:-1}" OCLGRIND_MAX_ERRORS=20
    export OCLGRIND_GLOBAL_MEM_SIZE=1073741824
    ;;
none)
    export KVCL_OPENCL_LIB=off KVCL_CLBLAST_LIB=off
    ;;
*)
    echo "on_device.sh: unknown kind '$kind'" >&2
    exit 2
    ;;
esac
if [ "$kind" != none ]; then
    export OCL_ICD_VENDORS="$scratch"
fi

status=0
"$@" || status=$?
if [ -s "$scratch/log" ]; then
    echo "on_device.sh: Oclgrind reports:" >&2
    head -c 20000 "$scratch/log" >&2
    [ "$status" -ne 0 ] || status=70
fi
exit "$status"
