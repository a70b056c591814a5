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

lists=" $(cat tests/Makefile.inc tests/*/Makefile.inc | tr -s '[:space:]' ' ') "
is_run() { # FILE: a Makefile.inc names it, or the program that reads it
    local name=${1%.c}
    [ "$name" != tests/http/cases.txt ] || name=tests/http/test_http_cases
    [[ $lists == *" $name "* ]]
}

# Rows as records, so that nothing is started for each word: P promise, R reference, C case.
records() {
    awk -F'|' '
        function trimmed(text) { gsub(/^[ \t]+|[ \t]+$/, "", text); return text }
        function cases(text,    i, c, quoted, one) { # commas inside quotes part nothing
            for (i = 1; i <= length(text) + 1; i++) {
                c = substr(text, i, 1)
                if (c == "\"") quoted = !quoted
                else if (c == "" || (c == "," && !quoted)) { print "C\t" trimmed(one); one = "" }
                else one = one c
            }
        }
        /^\| / && !/^\| promise / {
            print "P\t" trimmed($2)
            count = split($3, items, ";")
            for (n = 1; n <= count; n++) {
                if (trimmed(items[n]) == "") continue
                colon = index(items[n], ":")
                print "R\t" trimmed(colon ? substr(items[n], 1, colon - 1) : items[n])
                if (colon) cases(substr(items[n], colon + 1))
            }
        }' doc/features.md
}

declare -A files=()
promise='' file='' tested=yes
while IFS=$'\t' read -r kind text; do
    case $kind in
    P)
        [ $tested = yes ] || wrong "\"$promise\" has no test"
        promise=$text tested=no
        ;;
    R)
        references=$((references + 1)) tested=yes
        if [ -z "${files[$text]+known}" ]; then
            files[$text]=$(file_of "$text")
            [ -z "${files[$text]}" ] || is_run "${files[$text]}" || wrong "${files[$text]} is in no list of tests"
        fi
        file=${files[$text]}
        [ -n "$file" ] || wrong "\"$promise\" names $text, which is no test"
        ;;
    C)
        cases=$((cases + 1))
        [ -z "$file" ] || has_case "$file" "$text" || wrong "$file has no test \"$text\""
        ;;
    esac
done < <(records)
[ $tested = yes ] || wrong "\"$promise\" has no test"

if [ $references -lt 50 ] || [ $cases -lt 100 ]; then
    wrong "only $references references with $cases cases could be read"
fi
[ $failed -eq 0 ] && echo "features: ok, $references references, $cases cases"
exit $failed
