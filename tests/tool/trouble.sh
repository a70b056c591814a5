#!/usr/bin/env bash
# trouble.sh: damaged, foreign, closed and busy maps, and output that cannot be written: the exit code
# and the words for each.
# shellcheck source-path=SCRIPTDIR source=common.bash
. "$(dirname "$0")/common.bash"

fill() { # MAP: entries small and large
    local i
    larder -m "$1" create --size 16M >/dev/null || exit 1
    head -c 60000 /dev/urandom >"$LARDER_TEST_DIR/large"
    for i in $(seq 20); do
        larder -m "$1" set "small:$i" "value-of-small-$i" || exit 1
    done
    larder -m "$1" set large - <"$LARDER_TEST_DIR/large" || exit 1
}
data_of() { # MAP: its LMDB file
    echo "$dir/$1"/g*/data.mdb
}
flip() { # FILE OFFSET: turn over a bit
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
    printf '%b' "\\x$(printf %02x $((byte ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
place_of() { # FILE TEXT: the offset where TEXT stands last
    grep -a -b -o -F -e "$2" "$1" | tail -n 1 | cut -d : -f 1
}

# ---- damage: a bit in a value, in a chunk
fill value
run "check of a whole map" 0 -m value check
data=$(data_of value)
place=$(place_of "$data" value-of-small-7)
[ -n "$place" ]
report $? "the value is found in the file"
flip "$data" "$((place + 3))"
run "check of a flipped bit in a value" 4 -m value check
complains "the damaged key is named" "small:7"
fill json
flip "$(data_of json)" "$(place_of "$(data_of json)" value-of-small-9)"
run "check as JSON" 4 -m json --json check
says_json "check as JSON" damaged true
"$helpers/json_get" damage <"$out" | grep -q -F "small:9"
report $? "the damage is in the document"
fill chunk
data=$(data_of chunk)
head -c 24 /dev/zero | tr '\0' 'Q' >"$LARDER_TEST_DIR/mark"
{ head -c 30000 /dev/zero; cat "$LARDER_TEST_DIR/mark"; head -c 30000 /dev/zero; } >"$LARDER_TEST_DIR/large"
larder -m chunk set marked - <"$LARDER_TEST_DIR/large"
place=$(place_of "$data" QQQQQQQQQQQQQQQQQQQQQQQQ)
flip "$data" "$place"
run "check of a flipped bit in a chunk" 4 -m chunk check
complains "the key of the chunk is named" "marked"

# ---- damage that keeps the files from being opened: check leaves it as it is, the next to open the
# map for more than reading begins anew, and so does create
for kind in cut pages gone lock; do
    fill "$kind"
    data=$(data_of "$kind")
    case $kind in
    cut) truncate -s 100000 "$data" ;;
    pages) head -c 8192 /dev/urandom | dd of="$data" conv=notrunc status=none ;;
    gone) rm "$data" ;;
    lock) rm "$(dirname "$data")/lock.mdb" ;;
    esac
    for round in first second; do
        run "$round check of a map with $kind damaged" 4 -m "$kind" check
        complains "$round check of a map with $kind damaged says why" "open map \"$kind\": "
    done
    for command in readers stat ls "get small:1"; do
        # shellcheck disable=SC2086
        run "$command with $kind damaged" 4 -m "$kind" $command
    done
    [ "$(data_of "$kind")" = "$data" ] || [ "$kind" = gone ]
    report $? "the generation is still there"
    run "rm with $kind damaged begins a generation" 1 -m "$kind" rm small:1
    run "set after $kind was damaged" 0 -m "$kind" set fresh value
    run "get after $kind was damaged" 0 -m "$kind" get fresh
    run "check after $kind was damaged" 0 -m "$kind" check
    run "stat after $kind was damaged" 0 -m "$kind" --json stat
    says_json "a new generation" space.generation 2
done

# ---- foreign and broken control files
for kind in foreign empty short; do
    fill "$kind"
    case $kind in
    foreign) head -c "$(stat -c %s "$dir/$kind/control")" /dev/urandom >"$LARDER_TEST_DIR/control" ;;
    empty) : >"$LARDER_TEST_DIR/control" ;;
    short) head -c 100 "$dir/$kind/control" >"$LARDER_TEST_DIR/control" ;;
    esac
    cat "$LARDER_TEST_DIR/control" >"$dir/$kind/control"
    for command in "get small:1" stat check; do
        # shellcheck disable=SC2086
        run "$command with a $kind control file" 3 -m "$kind" $command
        complains "$command with a $kind control file says why" "open map \"$kind\": "
    done
done

# ---- places that cannot be opened
run "a directory that is not there" 3 -d "$dir/nowhere" get k
echo text >"$dir/plain"
run "a file in place of a map" 3 -m plain get k
run "a file in place of a map, to be created" 3 -m plain create
[ "$(cat "$dir/plain")" = text ]
report $? "the file is as it was"
mkdir "$LARDER_TEST_DIR/open" && chmod 777 "$LARDER_TEST_DIR/open"
run "a directory that everybody may write to" 3 -d "$LARDER_TEST_DIR/open" create
complains "it says so" "writable by everybody"
ln -s /tmp "$dir/link"
run "a symlink in place of a map" 3 -m link get k
run "more than the file system has" 3 -m huge create --size 32T
[ ! -e "$dir/huge/control" ] || ! larder -m huge stat >/dev/null 2>&1
report $? "it is not there after that"

# ---- output that cannot be written
fill output
larder -m output get large >/dev/full 2>"$err"
status=$?
[ $status -eq 6 ]
report $? "a full disk: exit 6"
complains "a full disk is named" "cannot write to standard output: No space left"
larder -m output --json ls >/dev/full 2>"$err"
[ $? -eq 6 ]
report $? "a full disk, JSON: exit 6"
larder -m output get large >&- 2>"$err"
[ $? -eq 6 ]
report $? "a closed output: exit 6"
larder -m output set quiet v >&- 2>"$err"
status=$?
[ $status -eq 0 ]
report $? "a closed output that nothing is written to: exit 0"
run "the map is whole after that" 0 -m output check
mkfifo "$LARDER_TEST_DIR/pipe"
# An end to write to, and no reader.
# shellcheck disable=SC2094
exec 8<>"$LARDER_TEST_DIR/pipe" 7>"$LARDER_TEST_DIR/pipe" 8<&-
larder -m output ls >&7 2>"$err"
status=$?
exec 7>&-
[ "$status" -eq 6 ]
report $? "a reader that left: exit 6"
complains "a reader that left is named" "Broken pipe"

# ---- busy: a writer that was stopped inside the gate
fill busy
larder -m busy set kept old
mkfifo "$LARDER_TEST_DIR/release"
"$helpers/hold_gate" "$dir" busy <"$LARDER_TEST_DIR/release" >"$LARDER_TEST_DIR/held" 2>"$err" &
holder=$!
exec 9>"$LARDER_TEST_DIR/release"
held() { grep -q held "$LARDER_TEST_DIR/held"; }
wait_for held
report $? "the gate is held"
run "set with the gate held" 5 -m busy set kept new
complains "set with the gate held says so" "larder: set kept: "
run "neither value is served" 1 -m busy get kept
run "get of another key" 0 -m busy get small:3
says "get of another key" value-of-small-3
run "rm is never refused" 0 -m busy rm small:4
run "and seen at once" 1 -m busy get small:4
run "rm of several" 0 -m busy rm small:5 small:6
run "and seen at once" 1 -m busy get small:5
run "ls" 0 -m busy ls small:1
run "stat" 0 -m busy --json stat
refused=$("$helpers/json_get" writes.refused_busy <"$out")
[ "$refused" -ge 1 ]
report $? "refused_busy is $refused"
run "readers" 0 -m busy --json readers
grep -q -F "\"pid\": $holder, " "$out"
report $? "the holder is among the readers"
run "check with the gate held" 0 -m busy check
exec 9>&-
wait $holder
report $? "the holder ended"
run "set when the gate is free" 0 -m busy set kept new
run "the new value" 0 -m busy get kept
says "the new value" new
run "the deleted stays deleted" 1 -m busy get small:4
run "check after all that" 0 -m busy check
finish
