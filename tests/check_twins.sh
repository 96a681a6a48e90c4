#!/bin/sh
# check_twins.sh - every row of engine/ops.def has an argument struct, a kernel, a scalar twin and
# test cases, and kernels and twins stand in the order of the list.  Run by ./dev lint.
#
# A kernel may have variants: kvcl_<name> or kvcl_<name>_<variant>.  Every kernel belongs to an op.
set -eu
cd "$(dirname "$0")/.."

bad=0
say() {
    echo "check_twins: $*"
    bad=$((bad + 1))
}

rows=$(sed -n 's/^KVCL_OP(\(.*\)).*/\1/p' engine/ops.def | tr -d ' ' | tr ',' ' ')

# Text of a C file without comments, one line: enough to find a definition whatever its layout.
flat() {
    tr '\n' ' ' <"$1" | sed 's|/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/| |g'
}

# Names of the kernels in a .cl file, in order.
kernels() {
    flat "$1" | grep -oE 'kernel [^;{}]*void +kvcl_[a-z0-9_]+ *\(' |
        sed 's/ *($//; s/.* //; s/^kvcl_//'
}

# Names of the twins kvcl_cpu_<name>(args, part) defined in a file, in order.
twins() {
    flat "$1" | grep -oE 'void +kvcl_cpu_[a-z0-9_]+ *\(const void \*args[^;{}()]*\) *\{' |
        sed 's/ *(.*//; s/.* kvcl_cpu_//'
}

# Of the names on standard input, the ops among $1 that they belong to, each once, in order.
to_ops() {
    while IFS= read -r name; do
        best=
        for op in $1; do
            case $name in
            "$op" | "$op"_*) [ ${#op} -le ${#best} ] || best=$op ;;
            esac
        done
        echo "${best:-?$name}"
    done | awk '!seen[$0]++'
}

for stem in $(printf '%s\n' "$rows" | awk '!seen[$3]++ { print $3 }'); do
    ops=$(printf '%s\n' "$rows" | awk -v s="$stem" '$3 == s { print $1 }')
    for f in cl/$stem.cl cpu/$stem.c tests/case_$stem.c; do
        [ -f "$f" ] || say "$f is missing: ops.def has the stem '$stem'"
    done
    for pair in "cl/$stem.cl kernels" "cpu/$stem.c twins"; do
        f=${pair% *}
        [ -f "$f" ] || continue
        have=$("${pair#* }" "$f" | to_ops "$ops")
        for op in $ops; do
            printf '%s\n' "$have" | grep -qx "$op" || say "$f: nothing for op '$op'"
        done
        for extra in $(printf '%s\n' "$have" | grep '^?' || true); do
            say "$f: '${extra#\?}' belongs to no op of the stem '$stem'"
        done
        want=$(for op in $ops; do printf '%s\n' "$have" | grep -x "$op" || true; done)
        if [ "$(printf '%s\n' "$have" | grep -v '^?' || true)" != "$want" ]; then
            say "$f: not in the order of ops.def: $(printf '%s' "$want" | tr '\n' ' ')"
        fi
    done
    for op in $ops; do
        [ ! -f "tests/case_$stem.c" ] || grep -q "kvcl_op_$op\b" "tests/case_$stem.c" ||
            say "tests/case_$stem.c: no case for op '$op'"
    done
done

printf '%s\n' "$rows" | while read -r op group stem; do
    grep -q "^} kvcl_${op}_args;" "engine/ops_$group.h" ||
        echo "engine/ops_$group.h: no struct kvcl_${op}_args ($stem)"
    grep -q "kvcl_op_$op(" "engine/ops_$group.c" 2>/dev/null ||
        echo "engine/ops_$group.c: no kvcl_op_$op()"
done >"${TMPDIR:-/tmp}/kvcl-twins.$$"
while IFS= read -r line; do say "$line"; done <"${TMPDIR:-/tmp}/kvcl-twins.$$"
rm -f "${TMPDIR:-/tmp}/kvcl-twins.$$"

for f in cl/*.cl; do # a kernel file <stem>.cl or <stem>_<variant>.cl of no stem
    [ -f "$f" ] || continue
    stem=$(basename "$f" .cl)
    case $stem in prelude | pages | ints | mma | defer*) continue ;; esac
    printf '%s\n' "$rows" | grep -qE " ($stem|${stem%%_*})\$" ||
        say "$f: no op of ops.def has the stem '$stem'"
done

if [ "$bad" -ne 0 ]; then
    echo "check_twins: $bad findings"
    exit 1
fi
echo "check_twins: $(printf '%s\n' "$rows" | wc -l) ops with kernel, twin, arguments and cases"
