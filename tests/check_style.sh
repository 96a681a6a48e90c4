#!/bin/sh
# check_style.sh - the rules of CONTRIBUTING.md that a script can see.  Run by ./dev lint.
set -eu
cd "$(dirname "$0")/.."

list() { # tracked and new files, without what git ignores
    git ls-files -co --exclude-standard -- "$@" | while IFS= read -r f; do
        [ ! -f "$f" ] || printf '%s\n' "$f"
    done
}

code=$(list '*.c' '*.h' '*.cl' '*.def')
# models/ref/trainer holds the scripts that made the shipped models, kept as they were used
scripts=$(list '*.sh' '*.py' '*.cmake' 'CMakeLists.txt' '*/CMakeLists.txt' dev .ci/run \
    ':!models/ref/trainer')
text=$(list '*.md' .clang-tidy .clang-format .gitignore LICENSE)
[ -n "$code" ] || {
    echo "check_style: git lists no files here"
    exit 1
}
report=$(mktemp)
trap 'rm -f "$report"' EXIT

# File and function length, columns (counted in characters: UTF-8 continuation bytes are dropped),
# blanks, forbidden words.  A function's body is what stands between a { and a } of column 0.
# shellcheck disable=SC2086
LC_ALL=C awk '
    function say(what) { printf "%s:%d: %s\n", FILENAME, FNR, what }
    FNR == 1 { if (last && lines >= 500) printf "%s: %d lines; split it below 500\n", last, lines
               last = FILENAME; start = 0 }
    { lines = FNR; wide = $0; gsub(/[\200-\277]/, "", wide) }
    length(wide) > 100 { say("more than 100 columns") }
    /\t/ { say("tab") }
    /[ \r]$/ { say("blank at the end of the line") }
    /^\{$/ { start = FNR }
    /^\}/ && start { if (FNR - start + 1 >= 60)
                         say("function of " FNR - start + 1 " lines; split it below 60")
                     start = 0 }
    /^[ ]*#[ ]*if 0/ { say("#if 0: delete the code") }
    /^ *\/\/ *[a-zA-Z_][a-zA-Z0-9_.>\[\]-]* *(=|\(|[-+*]=).*; *$/ { say("commented-out code") }
    /(TO)DO|(FIX)ME/ { say("unfinished: do it or write an issue") }
    /[^a-z_]alloca *\(/ { say("alloca") }
    END { if (last && lines >= 500) printf "%s: %d lines; split it below 500\n", last, lines }
' $code $scripts >"$report"

# Markdown may hold long lines (tables) and tabs in no case.
# shellcheck disable=SC2086
LC_ALL=C awk '
    /\t/ { printf "%s:%d: tab\n", FILENAME, FNR }
    /[ \r]$/ { printf "%s:%d: blank at the end of the line\n", FILENAME, FNR }
' $text >>"$report"

# Paths of one machine.  The bracket keeps this line from finding itself.
# shellcheck disable=SC2086
grep -nE '(^|[^a-zA-Z0-9_.])/(wor[k]|hom[e]|roo[t]|User[s])/' $code $scripts $text /dev/null |
    sed 's/$/   <- a path of one machine/' >>"$report" || true

# One stem, one meaning: no two .c and no two .h files share a name.
printf '%s\n' "$code" | grep -E '\.[ch]$' | sed 's|.*/||' | sort | uniq -d |
    sed 's/$/: two files have this name/' >>"$report"

if [ -s "$report" ]; then
    cat "$report"
    echo "check_style: $(wc -l <"$report") findings"
    exit 1
fi
echo "check_style: $(printf '%s\n' "$code" "$scripts" "$text" | wc -l) files, no findings"
