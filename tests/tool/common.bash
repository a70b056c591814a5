# common.bash: what the tests of the tool share: a map directory of their own, running the tool and
# looking at what it said. Sourced; prints one "ok N - ..." or "not ok N - ..." a check, which the
# driver counts. Every test ends with `finish`.
# shellcheck shell=bash disable=SC2034

set -u
LC_ALL=C.UTF-8
export LC_ALL
: "${LARDER:?names the tool that is tested}"
helpers=$(dirname "$LARDER")/tests/tool
unset LARDER_DIR LARDER_MAP

if [ -z "${LARDER_TEST_DIR:-}" ]; then
    LARDER_TEST_DIR=$(mktemp -d /dev/shm/larder-test.XXXXXX) || exit 1
    trap 'rm -rf "$LARDER_TEST_DIR"' EXIT
fi
dir=$LARDER_TEST_DIR/maps
mkdir -m 700 "$dir" || exit 1
out=$LARDER_TEST_DIR/out
err=$LARDER_TEST_DIR/err
checks=0
failures=0

larder() {
    timeout 60 "$LARDER" -d "$dir" "$@"
}

# report STATUS DESCRIPTION: a check that passed (0) or did not; what was said last goes to the log.
report() {
    checks=$((checks + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $checks - $2"
    else
        failures=$((failures + 1))
        echo "not ok $checks - $2"
        echo "# exit ${status:-none}"
        [ ! -s "$out" ] || head -c 600 "$out" | cat -v | sed 's/^/# out: /'
        [ ! -s "$err" ] || head -c 600 "$err" | cat -v | sed 's/^/# err: /'
    fi
}

# run DESCRIPTION EXIT WORD...: run the tool with WORDs; its exit code must be EXIT.
run() {
    local description=$1 expected=$2
    shift 2
    larder "$@" >"$out" 2>"$err" </dev/null
    status=$?
    [ $status -eq "$expected" ]
    report $? "$description: exit $expected"
}

# The same with a file as standard input.
run_from() {
    local description=$1 expected=$2 input=$3
    shift 3
    larder "$@" >"$out" 2>"$err" <"$input"
    status=$?
    [ $status -eq "$expected" ]
    report $? "$description: exit $expected"
}

# What the last run said, byte for byte / in part / not at all.
says() {
    printf '%s' "$2" | cmp -s - "$out"
    report $? "$1"
}
says_line() {
    printf '%s\n' "$2" | cmp -s - "$out"
    report $? "$1"
}
mentions() {
    grep -q -F -e "$2" "$out"
    report $? "$1"
}
says_nothing() {
    [ ! -s "$out" ]
    report $? "$1"
}
complains() {
    grep -q -F -e "$2" "$err" && grep -q '^larder: ' "$err"
    report $? "$1"
}
is_silent() {
    [ ! -s "$err" ]
    report $? "$1"
}

# says_json DESCRIPTION PATH TEXT: the last run said one JSON document, and TEXT stands at PATH.
says_json() {
    local got
    got=$("$helpers/json_get" "$2" <"$out" 2>>"$err"; echo "/$?")
    [ "$got" = "$3/0" ]
    report $? "$1 ($2)"
}

# Wait at most 60 s until the command succeeds.
wait_for() {
    local until=$((SECONDS + 60))
    until "$@"; do
        [ $SECONDS -lt $until ] || return 1
        sleep 0.02
    done
}

# repeat TEXT COUNT: TEXT so many times.
repeat() {
    local i
    for ((i = 0; i < $2; i++)); do
        printf '%s' "$1"
    done
}

finish() {
    if [ $checks -eq 0 ]; then
        echo "not ok 1 - nothing was checked"
        exit 1
    fi
    echo "1..$checks"
    [ $failures -eq 0 ] || exit 1
    exit 0
}
