#!/usr/bin/env bash
# features.sh: every test that doc/features.md names is there and is run, so that no promise stands on a
# test that was renamed, or never written.
#
# The second column of a row is REFERENCE[: CASE, CASE ...]; and so on, parted by ";". A reference is
# FOLDER/NAME of tests/, or a path that begins with tests/. A case of a C program is one that is added to
# its suite, one of a Python file a function of it; in a table of cases or a script (or what lies beside a
# script under its name) its words stand there. Quotes are around a case that has commas.
set -eu
cd "${srcdir:-$(dirname "$0")/..}"
failed=0 references=0 cases=0

wrong() {
    echo "doc/features.md: $*"
    failed=1
}

trim() {
    local text=$1
    text=${text#"${text%%[![:space:]]*}"}
    printf '%s' "${text%"${text##*[![:space:]]}"}"
}

file_of() { # REFERENCE: the file, or nothing
    local file candidates=("$1")
    case $1 in
    tests/*) ;;
    *) candidates=("tests/$1.txt" "tests/$1.py" "tests/${1%/*}/test_${1##*/}.c" "tests/$1.c") ;;
    esac
    for file in "${candidates[@]}"; do
        if [ -f "$file" ]; then
            printf '%s' "$file"
            return
        fi
    done
}

has_case() { # FILE CASE
    case $1 in
    *.c) grep -qF "START_TEST($2)" "$1" && grep -qE "tcase_add(_loop)?_test\(\w+, $2[,)]" "$1" ;;
    *.py) grep -qE "^(async )?def $2\(" "$1" ;;
    *) cat "${1%.*}"* | grep -qF -- "$2" ;;
    esac
}

is_run() { # FILE: a Makefile.inc names it, or the program that reads it
    local name=${1%.c}
    [ "$name" != tests/http/cases.txt ] || name=tests/http/test_http_cases
    grep -qE "(^|[[:space:]])$name([[:space:]]|\$)" tests/Makefile.inc "$(dirname "$1")/Makefile.inc" 2>/dev/null
}

split_at_commas() { # but not inside quotes
    awk '{
        quoted = 0
        for (i = 1; i <= length($0); i++) {
            c = substr($0, i, 1)
            if (c == "\"") quoted = !quoted
            else printf "%s", (c == "," && !quoted ? "\n" : c)
        }
        print ""
    }' <<<"$1"
}

check_item() { # PROMISE ITEM
    local reference file case
    reference=$(trim "${2%%:*}")
    references=$((references + 1))
    file=$(file_of "$reference")
    if [ -z "$file" ]; then
        wrong "\"$1\" names $reference, which is no test"
        return
    fi
    is_run "$file" || wrong "$file is in no list of tests"
    [[ $2 == *:* ]] || return 0
    while read -r case; do
        case=$(trim "$case")
        cases=$((cases + 1))
        has_case "$file" "$case" || wrong "$file has no test \"$case\""
    done < <(split_at_commas "${2#*:}")
}

while IFS='|' read -r _ promise tests; do
    promise=$(trim "$promise") tests=$(trim "${tests%|*}")
    [ -n "$tests" ] || wrong "\"$promise\" has no test"
    while read -r item; do
        [ -z "$item" ] || check_item "$promise" "$item"
    done < <(tr ';' '\n' <<<"$tests")
done < <(grep '^| ' doc/features.md | grep -v '^| promise ')

if [ $references -lt 50 ] || [ $cases -lt 100 ]; then
    wrong "only $references references with $cases cases could be read"
fi
[ $failed -eq 0 ] && echo "features: ok, $references references, $cases cases"
exit $failed
