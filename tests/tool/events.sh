#!/usr/bin/env bash
# events.sh: follow, publish and top: what they print and how they end.
# shellcheck source-path=SCRIPTDIR source=common.bash
. "$(dirname "$0")/common.bash"

run "create" 0 create --size 16M
seen=$LARDER_TEST_DIR/seen

# follow WORD...: start following in the background; returns when it is at work.
follow() {
    : >"$seen"
    larder "$@" >"$seen" 2>"$err" </dev/null &
    follower=$!
    wait_for told
    report $? "it follows"
}
told() { larder publish warm-up; sleep 0.05; [ -s "$seen" ]; }
# ends DESCRIPTION EXIT: it has ended by itself; what it said, the first events left out, is in $out.
ends() {
    wait "$follower"
    status=$?
    grep -v warm-up "$seen" >"$out"
    [ $status -eq "$2" ]
    report $? "$1: exit $2"
}
count=0
set_until_enough() { count=$((count + 1)); larder set "user:$count" x; ! kill -0 "$follower" 2>/dev/null; }

follow follow --kind set --kind delete --kind event --limit 40
run "set" 0 set "a b" 1
run "rm" 0 rm "a b"
run "rm of what is not there" 1 rm nobody
run "publish" 0 publish order:paid $'x\t\e[31m'
run "publish without data" 0 publish order:none
is_silent "publish prints nothing"
run "publish as JSON" 0 --json publish unheard
says_json "publish as JSON" outcome published
wait_for set_until_enough
ends "follow ends at its limit" 0
mentions "the set" $'set\ta b'
mentions "the delete" $'delete\ta b'
mentions "the delete of nothing" $'delete\tnobody'
mentions "the named event, escaped" $'event\torder:paid\tx\\t\\x1b[31m'
mentions "one without data" $'event\torder:none\t'
if grep -q $'\e' "$out"; then false; else true; fi
report $? "no control character comes through"

follow --json follow --name order:paid --name warm-up --wait 3s
run "publish" 0 publish order:lost 1
run "publish" 0 publish order:paid 17
run "set" 0 set k v
ends "follow ends after its wait" 0
says_json "the name" name order:paid
says_json "the data" data 17
says_json "the kind" kind event
[ "$(wc -l <"$out")" -eq 1 ]
report $? "nothing else"

run "follow, nothing comes" 0 follow --wait 10ms
says_nothing "nothing came"
run "a wrong kind" 2 follow --kind nonsense
complains "a wrong kind is named" '"nonsense"'
run "two prefixes" 2 follow --prefix a --prefix b
run "a name that is too long" 2 publish "$(repeat x 256)" data
complains "a name that is too long: the limit" "255"
run "an empty name" 2 publish "" data
run "data that is too long" 2 publish n "$(repeat x 4097)"
complains "data that is too long: the limit" "4096"
run "follow without a map" 3 -m nowhere follow
run "publish without a map" 3 -m nowhere publish n

# ---- top
run "top" 0 top --once
mentions "top names the map" "map default: "
mentions "top has rates" "a second: lookups -"
run "top with an interval" 0 top --once --interval 100ms
mentions "top has lookups a second" "a second: lookups 0"
run "top as JSON" 0 --json top --once --limit 3
says_json "the map" map default
says_json "without an interval there is no rate" lookups_per_s null
run "a wrong interval" 2 top --once --interval 1ms
complains "a wrong interval is named" "1ms"
finish
