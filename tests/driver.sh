#!/usr/bin/env bash
# driver.sh: automake's interface to one test (see "Custom Test Drivers" in its manual). Runs the
# program with a deadline and a scratch directory of its own, and counts the cases that it reports as
# `ok N - ...` and `not ok N - ...` (what check writes with CK_TAP_LOG_FILE_NAME=-); a program that
# reports none is one case, by its exit status: 0 passed, 77 skipped, anything else failed.
set -u

name='' log='' trs='' color=no
while [ $# -gt 0 ]; do
    case $1 in
    --test-name) name=$2 && shift 2 ;;
    --log-file) log=$2 && shift 2 ;;
    --trs-file) trs=$2 && shift 2 ;;
    --color-tests) color=$2 && shift 2 ;;
    --expect-failure | --enable-hard-errors | --collect-skipped-logs) shift 2 ;;
    --) shift && break ;;
    *) break ;;
    esac
done
if [ -z "$name" ] || [ -z "$log" ] || [ -z "$trs" ] || [ $# -eq 0 ]; then
    echo "driver.sh: wants --test-name, --log-file, --trs-file and a command" >&2
    exit 2
fi

parent=/dev/shm
[ -w "$parent" ] || parent=/tmp
scratch=$(mktemp -d "$parent/larder-test.XXXXXX") || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

began=$SECONDS
LARDER_TEST_DIR=$scratch timeout --kill-after=10 "${LARDER_TEST_TIMEOUT:-300}" "$@" \
    >"$log" 2>&1 </dev/null
status=$?
took=$((SECONDS - began))
[ $status -ne 124 ] || echo "driver.sh: stopped after ${LARDER_TEST_TIMEOUT:-300} s" >>"$log"

passed=$(grep -a -c -E '^ok [0-9]+ ' "$log")
failed=$(grep -a -c -E '^not ok [0-9]+ ' "$log")
case $status in
0) result=PASS ;;
77) result=SKIP ;;
*) result=FAIL ;;
esac
[ "$failed" -eq 0 ] || result=FAIL
{
    grep -a -E '^(not )?ok [0-9]+ ' "$log" |
        sed -E 's/^ok [0-9]+ (- )?/:test-result: PASS /; s/^not ok [0-9]+ (- )?/:test-result: FAIL /'
    # Not a word of its own, or an end that its cases do not explain.
    if [ $((passed + failed)) -eq 0 ] || { [ $result = FAIL ] && [ "$failed" -eq 0 ]; }; then
        echo ":test-result: $result exit status $status"
    fi
    echo ":global-test-result: $result"
    if [ $result = FAIL ]; then
        echo ":recheck: yes"
        echo ":copy-in-global-log: yes"
    else
        echo ":recheck: no"
        echo ":copy-in-global-log: no"
    fi
} >"$trs"

paint='' plain=''
if [ "$color" = yes ]; then
    plain=$'\e[m'
    case $result in
    PASS) paint=$'\e[0;32m' ;;
    SKIP) paint=$'\e[1;34m' ;;
    *) paint=$'\e[0;31m' ;;
    esac
fi
cases=''
[ $((passed + failed)) -eq 0 ] || cases=", $passed of $((passed + failed)) cases"
echo "$paint$result$plain: $name ($took s$cases)"
