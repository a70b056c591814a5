#!/usr/bin/env bash
# commands.sh: each command of the tool, what it prints and how it ends.
# shellcheck source-path=SCRIPTDIR source=common.bash
. "$(dirname "$0")/common.bash"

# ---- version, help, usage
run "version" 0 version
mentions "version names the tool" "larder 0."
mentions "version names the library" "liblarder 0."
run "--version" 0 --version
run "version as JSON" 0 --json version
says_json "the library's version" library "$(larder version | sed 's/.*liblarder //; s/)//')"
commands="get set rm ls stat top follow publish check readers create version help"
run "help" 0 help
for command in $commands; do
    mentions "help lists $command" "  $command "
done
for command in $commands; do
    run "help $command" 0 help "$command"
    mentions "help $command has its usage" "usage: larder [-d DIR] [-m NAME] [--json] [--hex] $command"
    run "$command --help" 0 "$command" --help
done
run "help of no command" 2 help nonsense
complains "help of no command" 'no command "nonsense"'
run "no command" 2
complains "no command" "usage: larder"
says_nothing "no command prints no result"
run "an unknown command" 2 frobnicate
complains "an unknown command is named" '"frobnicate"'
run "an unknown option" 2 get k --frobnicate
complains "an unknown option is named" '"--frobnicate"'
run "an unknown letter" 2 get k -z
complains "an unknown letter is named" '"-z"'
run "an option of another command" 2 get k --ttl 5s
complains "an option of another command is named" '"--ttl"'
run "an option without its argument" 2 set k v --ttl
complains "an option without its argument is named" '"--ttl" wants an argument'
run "too few arguments" 2 get
complains "too few arguments" "usage: larder get KEY"
run "set without a value" 2 -m nowhere set key
complains "set without a value" "a VALUE is missing"
[ ! -e "$dir/nowhere" ]
report $? "a mistake makes no map"
run "too many arguments" 2 get a b
[ -z "$(ls -A "$dir")" ]
report $? "nothing of that made a map"

# ---- attaching to what is not there
for words in "get k" "rm k" "ls" "stat" "top --once" "follow" "publish n" "check" "readers"; do
    # shellcheck disable=SC2086
    run "$words without a map" 3 $words
    complains "$words without a map names it" 'open map "default"'
done
[ -z "$(ls -A "$dir")" ]
report $? "none of them made it"
run "a wrong map name" 2 -m ../evil get k
run "a wrong map name to create" 2 -m "$(repeat x 64)" create
run "an empty map name" 2 -m "" create

# ---- create
run "create" 0 create --size 32M
says_line "create says so" "map default created: 32.0 MiB"
run "create again" 0 create
says_line "create again leaves it" "map default is there already: 32.0 MiB"
run "create again with its size" 0 create --size 33554432
run "create with another size" 6 create --size 64M
complains "create with another size names the size" "33554432 bytes"
run "create with another largest value" 6 create --max-value 1K
complains "create with another largest value names the map's" "values of 2097152 bytes"
run "create with its largest value" 0 create --max-value 1G
run "create with another hot set" 6 create --hot-size 1M
complains "create with another hot set names the map's" "a hot set of 13418496 bytes"
run "create with its hot set" 0 create --hot-size 13418496
run "create as JSON" 0 --json -m other create --size 16M
says_json "create as JSON" created true
says_json "create as JSON" map_size 16777216
run "a size of none" 2 create --size 0
complains "a size of none is named" '"0"'
run "a size that is too small" 2 -m tiny create --size 1M
complains "a size that is too small: the least is named" "16777216"
run "a wrong size" 2 create --size 12Q
complains "a wrong size is named" '"12Q"'

# ---- set, get
run "set" 0 set greeting hello
says_nothing "set prints nothing"
is_silent "set complains about nothing"
run "get" 0 get greeting
says "get prints the value and nothing behind it" "hello"
run "get of what is not there" 1 get nobody
says_nothing "a miss prints nothing"
is_silent "a miss is silent in a script"
run "overwrite" 0 set greeting "good morning"
run "get the new value" 0 get greeting
says "the new value" "good morning"
run "a value that looks like an option" 0 set -- number -5
run "a key that looks like an option" 0 set -- --key v
run "get the first" 0 get number
says "the value with a dash" "-5"
run "get the second" 0 get -- --key
says "the key with dashes" v
run "options behind the command" 0 get greeting -m default --json
says_json "its value" value "good morning"
run "another map has other keys" 1 -m other get greeting
LARDER_MAP=other larder set only-in-other 1
run "\$LARDER_MAP names the map" 1 get only-in-other
run "-m other" 0 -m other get only-in-other
run "set makes a missing map" 0 -m third set k v
run "and there it is" 0 -m third get k
run "--meta" 0 get greeting --meta
mentions "--meta: key" "key: greeting"
mentions "--meta: size" "size: 12"
mentions "--meta: expires" "expires: never"
mentions "--meta: version" "version: 0"
[ "$(sed '1,/^$/d' "$out")" = "good morning" ]
report $? "--meta: the value behind an empty line"

# ---- expiry
run "--ttl" 0 set short value --ttl 2h
run "its JSON" 0 --json get short
ttl=$("$helpers/json_get" ttl_ms <"$out")
[ "$ttl" -gt 7100000 ] && [ "$ttl" -le 7200000 ]
report $? "--ttl 2h leaves $ttl ms"
run "--ttl, bare seconds" 0 set short value --ttl 100
run "its JSON" 0 --json get short
ttl=$("$helpers/json_get" ttl_ms <"$out")
[ "$ttl" -gt 10000 ] && [ "$ttl" -le 100000 ]
report $? "--ttl 100 leaves $ttl ms"
run "--ttl 0" 0 set forever value --ttl 0
run "its JSON" 0 --json get forever
says_json "--ttl 0 is never" expires_ms null
run "--ttl 1ms" 0 set gone value --ttl 1ms
gone() { larder get gone >/dev/null; [ $? -eq 1 ]; }
wait_for gone
report $? "--ttl 1ms expires"
run "--at, RFC 3339" 0 set dated value --at 2100-01-01T00:00:00Z
run "its JSON" 0 --json get dated
says_json "--at" expires_ms 4102444800000
run "--at, seconds" 0 set dated value --at 4102444800.5
run "its JSON" 0 --json get dated
says_json "--at with a fraction" expires_ms 4102444800500
run "--at in the past" 0 set dated value --at 2001-01-01T00:00:00Z
complains "--at in the past says so" "past"
run "it is not kept" 1 get dated
run "--every" 0 set marked value --every 5m
run "its JSON" 0 --json get marked
expires=$("$helpers/json_get" expires_ms <"$out")
[ $((expires % 300000)) -eq 0 ] && [ $((expires - $(date +%s%3N))) -le 300000 ]
report $? "--every 5m ends at a mark ($expires)"
run "two expiries" 2 set k v --ttl 5s --at 5
complains "two expiries" "--at: an entry has one expiry, and --ttl was given"
for wrong in 5x -5s 9223372036854775807 9223372036854775808ms 1.5h; do
    run "--ttl $wrong" 2 set k v --ttl="$wrong"
    complains "--ttl $wrong is named" "\"$wrong\""
done
run "--ttl beyond the clock" 2 set k v --ttl 9223372036854775807ms
run "--every of a fraction" 2 set k v --every 250ms
run "--every 0" 2 set k v --every 0
run "--at of nonsense" 2 set k v --at tomorrow
complains "--at of nonsense is named" '"tomorrow"'
run "none of them stored anything" 1 get k

# ---- groups, tags, patterns, the kinds of expiry
run "--group and --tag" 0 set g1 v --group g --tag t --tag u
run "another" 0 set g2 v --group gg --tag t
run "a group's name is no pattern" 0 invalidate --group 'g*' --count
says_line "a group's name is no pattern" 0
run "invalidate --group" 0 invalidate --group g --count
says_line "one entry had it" 1
run "it is dead" 1 get g1
run "the group with the longer name lives" 0 get g2
run "evict is another name" 0 evict --tag t
run "its tag killed it" 1 get g2
run "--group ''" 2 set g3 v --group ''
complains "--group '' is named" "a group of 0 bytes"
run "--tag ''" 2 set g3 v --tag ''
complains "--tag '' is named" "a tag of 0 bytes"
run "neither stored anything" 1 get g3
run "nor does it invalidate" 2 invalidate --group ''
complains "invalidate --group '' is named" "a group of 0 bytes"
larder set p:1 v && larder set p:2 v && larder set q:1 v
run "ls --match" 0 ls --match 'p:[12]'
[ "$(wc -l <"$out")" -eq 2 ]
report $? "ls --match lists two"
run "ls with both" 2 ls p --match p
run "invalidate --match" 0 --json invalidate --match 'p:*' --count
says_json "two of them" count 2
run "invalidate --prefix" 0 invalidate --prefix q:
run "all are gone" 1 get q:1
run "invalidate of nothing" 2 invalidate
complains "invalidate of nothing" "--group, --tag, --prefix or --match"
run "no pattern" 2 invalidate --match '[p'
run "no prefix" 2 invalidate --prefix ''
larder set kept v --tag kept && larder set long:1 v
for wrong in "--prefix=" "--match=[p" "--match=*$(repeat x 1000)"; do
    run "a tag, and ${wrong:0:12}" 2 invalidate --tag kept --prefix long: "$wrong"
    run "where one is wrong, none is carried out" 0 get kept
done
run "of no kind" 0 get long:1
run "an entry to clear" 0 -m cleared set p:1 v
run "clear" 0 -m cleared clear
run "clear kills" 1 -m cleared get p:1
run "--sliding, --stale, --jitter, --max-lifetime" 0 set s v --sliding 1h --stale 5m --jitter 1m --max-lifetime 2h
run "they are kept" 0 --json get s
run "--sliding 0" 2 set s v --sliding 0
run "--sliding with --ttl" 2 set s v --sliding 5s --ttl 5s
run "--negative" 0 set n --negative --ttl 5m
run "known to be absent" 1 get n
run "--negative with a value" 2 set n v --negative
run "set without a value" 2 set n
larder rm s n >/dev/null

# ---- rm
larder set a 1 && larder set b 2 && larder set c 3
run "rm" 0 rm a
run "it is gone" 1 get a
run "rm again" 1 rm a
run "rm of several" 0 rm b c
run "they are gone" 1 get c
larder set a 1
run "rm of some that are there" 1 --json rm a b
says_json "rm as JSON" deleted 1
says_json "rm as JSON" missing 1
says_json "rm as JSON" keys.0.outcome deleted
says_json "rm as JSON" keys.1.outcome miss
run "it is gone too" 1 get a
larder set first 1 && larder set last 2
# shellcheck disable=SC2046
run "rm of more than one commit takes" 1 --json rm first $(seq -f 'nobody:%g' 9000) last
says_json "rm of more than one commit takes" deleted 2
says_json "rm of more than one commit takes" missing 9000
says_json "rm of more than one commit takes" keys.9001.outcome deleted
run "the last one is gone" 1 get last

# ---- ls
for i in 1 2 3; do
    larder set "user:$i" "$(repeat x $((i * 10)))" --ttl 1h
done
larder set user 0 && larder set usex 0
run "ls with a prefix" 0 ls user:
says_line "ls with a prefix" $'user:1\nuser:2\nuser:3'
run "ls with a longer prefix" 0 ls user:2
says_line "ls with a longer prefix" user:2
run "ls of nothing" 0 ls nothing:
says_nothing "ls of nothing"
run "ls of all" 0 ls
[ "$(cat "$out")" = "$(LC_ALL=C sort "$out")" ] && [ "$(wc -l <"$out")" -ge 8 ]
report $? "ls of all is in byte order"
run "ls --limit" 0 ls user: --limit 2
says_line "ls --limit" $'user:1\nuser:2'
run "ls --limit 0" 2 ls --limit 0
run "ls --limit x" 2 ls --limit x
complains "ls --limit x is named" '"x"'
run "ls --long" 0 ls -l user:2
[[ $(cat "$out") =~ ^\ *20\ +59m[0-9]{2}s\ +[0-9T:.-]+Z\ +user:2$ ]] ||
    [[ $(cat "$out") =~ ^\ *20\ +1h00m\ +[0-9T:.-]+Z\ +user:2$ ]]
report $? "ls --long has size, time left, time of writing and key"
run "ls as JSON" 0 --json ls user: --limit 2
says_json "ls as JSON" count 2
says_json "ls as JSON" more true
says_json "ls as JSON" entries.# 2
says_json "ls as JSON" entries.1.key user:2
run "ls as JSON, all" 0 --json ls user: --limit 3 --long
says_json "ls as JSON, all" more false
says_json "ls as JSON, all" entries.2.size 30
run "ls as JSON of nothing" 0 --json ls nothing:
says_json "ls as JSON of nothing" entries.# 0

for i in $(seq -w 300); do
    larder -m many set "many:$i" "" || break
done
run "ls of more than one batch" 0 -m many ls
says_line "ls of more than one batch" "$(seq -f 'many:%03g' 300)"
for limit in 255 256 257 299 300 301; do
    run "ls --limit $limit" 0 -m many --json ls --limit $limit
    says_json "ls --limit $limit" count $((limit < 300 ? limit : 300))
    says_json "ls --limit $limit" more "$([ $limit -lt 300 ] && echo true || echo false)"
done

# ---- a negative entry
"$helpers/set_negative" "$dir" default nothing-there
report $? "a negative entry"
run "get of it" 1 get nothing-there
says_nothing "it has no value"
run "its JSON" 1 --json get nothing-there
says_json "it is known to be absent" outcome absent
run "its metadata" 1 get nothing-there --meta
mentions "its metadata" "negative: yes"
run "ls of it" 0 ls -l nothing-there
mentions "ls of it" "(negative)"
run "ls of it as JSON" 0 --json ls -l nothing-there
says_json "ls of it as JSON" entries.0.negative true

# ---- the directory from the environment
LARDER_DIR=$dir "$LARDER" -m third get k >"$out" 2>"$err"
status=$?
says "\$LARDER_DIR" v
mkdir -m 700 "$LARDER_TEST_DIR/elsewhere"
LARDER_DIR=$LARDER_TEST_DIR/elsewhere larder -m third get k >"$out" 2>"$err"
status=$?
says "-d is stronger than \$LARDER_DIR" v
(cd "$dir" && "$LARDER" -d . -m third get k) >"$out" 2>"$err"
status=$?
says "a directory from here" v

# ---- stat, check, readers
run "stat" 0 -m third stat
mentions "stat names the map" "map third"
for group in lookups writes invalidations removals leases events upkeep contents space replication; do
    grep -q "^$group\$" "$out"
    report $? "stat has $group"
done
larder -m counted set k v
for key in k k k nobody; do
    larder -m counted get $key >/dev/null
done
run "stat as JSON" 0 -m counted --json stat
says_json "hits" lookups.hits 3
says_json "misses" lookups.misses 1
says_json "their ratio" lookups.hit_ratio 0.75
says_json "sets" writes.sets 1
says_json "entries" contents.entries 1
says_json "no daemon" replication.daemon_heartbeat_ms null
run "the ratio as text" 0 -m counted stat
grep -q -E '^  hit ratio +75.00 %$' "$out"
report $? "the ratio as text"
run "check" 0 check
mentions "check says ok" "ok: "
run "check as JSON" 0 -m third --json check
says_json "check as JSON" damaged false
says_json "check as JSON" entries 1
run "readers" 0 readers
mentions "readers has a header" "PID"
run "readers as JSON" 0 --json readers
says_json "readers as JSON" map default
finish
