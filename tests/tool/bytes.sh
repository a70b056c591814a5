#!/usr/bin/env bash
# bytes.sh: keys and values of every byte and every size go in and come out unchanged, as they are,
# as hexadecimal and in JSON; what is too large is refused with the limit, and what is shown cannot
# drive a terminal.
# shellcheck source-path=SCRIPTDIR source=common.bash
. "$(dirname "$0")/common.bash"
larder create --size 32M >/dev/null || exit 1
file=$LARDER_TEST_DIR/value

# ---- values
: >"$file"
run_from "an empty value" 0 "$file" set empty -
run "get it" 0 get empty
says_nothing "it is a hit of 0 bytes"
run "the same from an argument" 0 set empty ""
run "as JSON" 0 --json get empty
says_json "as JSON" value ""
says_json "as JSON" size 0
for byte in $(seq 0 255); do
    printf '%b' "\\x$(printf %02x "$byte")"
done >"$file"
[ "$(wc -c <"$file")" -eq 256 ]
report $? "a file of every byte"
run_from "every byte" 0 "$file" set binary -
run "get every byte" 0 get binary
cmp -s "$file" "$out"
report $? "every byte comes back"
run "every byte as JSON" 0 --json get binary
"$helpers/json_get" value_base64 <"$out" | base64 -d | cmp -s - "$file"
report $? "every byte comes back in base64"
"$helpers/json_get" value <"$out" >"$err" && grep -q $'\xef\xbf\xbd' "$err"
report $? "and as lossy text"
for size in 1 2047 2048 2049 4095 4096 4097 65536 1000000 2097152; do
    head -c "$size" /dev/urandom >"$file"
    run_from "$size bytes" 0 "$file" set sized -
    larder get sized | cmp -s - "$file"
    report $? "$size bytes come back"
done
head -c 2097153 /dev/zero >"$file"
run_from "a byte over a sixteenth of the map" 2 "$file" set sized -
complains "the limit is named" "2097152"
run "the old value is not served" 1 get sized
larder set sized old
head -c 50000000 /dev/zero >"$file"
run_from "far over the limit" 2 "$file" set sized -
run "the old value is not served" 1 get sized
head -c 101 /dev/zero >"$file"
run "a map with small values" 0 -m capped create --size 16M --max-value 100
run_from "a byte over its limit" 2 "$file" -m capped set capped -
complains "its limit is named" "100"
head -c 100 "$file" >"$file.100"
run_from "just its limit" 0 "$file.100" -m capped set capped -
run "a wrong limit" 2 -m uncapped create --max-value x
run_from "standard input is a directory" 6 / set capped -
complains "standard input is a directory" "cannot read standard input"
run "a text of UTF-8" 0 set text "grüße € 🥫"
run "get it" 0 get text
says "it comes back" "grüße € 🥫"
run "as JSON" 0 --json get text
says_json "as JSON" value "grüße € 🥫"
"$helpers/json_get" value_base64 <"$out"
[ $? -eq 1 ]
report $? "text has no base64 beside it"

# ---- keys
run "an empty key" 2 set "" v
complains "an empty key" "key"
run "get an empty key" 2 get ""
run "ls of an empty prefix" 0 ls ""
for size in 1 494 495 509 510 511 512 65535; do
    key=$(repeat k "$size")
    run "set a key of $size bytes" 0 set "$key" "value of $size"
    run "get a key of $size bytes" 0 get "$key"
    says "its value" "value of $size"
    run "ls of it" 0 ls "$key" --limit 1
    says_line "ls of it" "$key"
done
long=$(repeat l 600)
larder set "${long}a" 1 && larder set "${long}b" 2
run "one of two long keys with one prefix" 0 get "${long}b"
says "one of two long keys with one prefix" 2
run "rm the other" 0 rm "${long}a"
run "it is gone" 1 get "${long}a"
run "the one stays" 0 get "${long}b"
key=$(repeat k 65536)
for words in "get" "rm"; do
    run "$words of a key of 65536 bytes" 2 "$words" "$key"
    complains "$words of a key of 65536 bytes names the limit" "65535"
done
run "set of a key of 65536 bytes" 2 set "$key" v
complains "set of a key of 65536 bytes names the limit" "65535"
[ "$(wc -c <"$err")" -lt 1000 ]
report $? "the message does not repeat the key"

# ---- keys in hexadecimal
run "a binary key" 0 set --hex 00ff0A1b v1
run "get it" 0 get --hex 00FF0a1B
says "its value" v1
run "an odd number of digits" 2 ls --hex 00f
complains "an odd number of digits" "--hex: byte 3"
run "not a digit" 2 get --hex 0x12
complains "not a digit" "--hex: byte 2"
run "ls --hex" 0 ls --hex 00ff
says_line "ls --hex" 00ff0a1b
run "ls without --hex" 0 ls -n 1
says_line "ls without --hex is escaped" '\x00\xff\n\x1b'
run "ls as JSON" 0 --json ls -n 1
says_json "the key, lossy" entries.0.key_base64 "AP8KGw=="
"$helpers/json_get" entries.0.key <"$out" | od -An -tx1 | tr -d ' \n' | grep -q '^00efbfbd0a1b$'
report $? "the key, as text"
"$helpers/json_get" entries.0.key_hex <"$out"
[ $? -eq 1 ]
report $? "no key_hex without --hex"
run "ls as JSON with --hex" 0 --json --hex ls 00 -n 1
says_json "the key in hexadecimal" entries.0.key_hex 00ff0a1b
run "rm --hex" 0 rm --hex 00ff0a1b
run "it is gone" 1 get --hex 00ff0a1b
key=$(repeat ff 65535)
run "a hexadecimal key of 65535 bytes" 0 set --hex "$key" v
run "get it" 0 get --hex "$key"

# ---- what is shown cannot drive a terminal
larder set $'evil:\e]0;title\a\e[2J\x9b31m' x
larder set $'evil:a\nfake line\r\tb' x
larder set $'evil:\\n' x
larder set $'evil:\u202eabc\u009b' x
run "ls of keys with sequences" 0 ls evil:
grep -q -P '[\x00-\x09\x0b-\x1f\x7f]' "$out"
[ $? -eq 1 ]
report $? "no control character in the list"
mentions "the escape is visible" 'evil:\x1b]0;title\x07\x1b[2J\x9b31m'
mentions "line feeds are escaped" 'evil:a\nfake line\r\tb'
mentions "a backslash is not a line feed" 'evil:\\n'
mentions "overrides and C1 controls are escaped" 'evil:\xe2\x80\xaeabc\xc2\x9b'
[ "$(wc -l <"$out")" -eq 4 ]
report $? "a line a key"
run "the same as JSON" 0 --json ls evil:
says_json "the same as JSON" count 4
grep -q -P '[^\x20-\x7e\n]' "$out"
[ $? -eq 1 ]
report $? "JSON is printable ASCII"
run "an error about such a key" 2 set $'\e[31mred' v --sliding 0
grep -q -P '[\x00-\x09\x0b-\x1f\x7f]' "$err"
[ $? -eq 1 ]
report $? "no control character in the message"
complains "the key is visible in the message" '\x1b[31mred'
run "an unknown option with a sequence" 2 get $'--\e[31m'
complains "an unknown option with a sequence" '\x1b[31m'
run "--meta of such a key" 0 get $'evil:a\nfake line\r\tb' --meta
mentions "--meta of such a key" 'key: evil:a\nfake line\r\tb'

# ---- values on a terminal are escaped, in a file they are not
larder set shown $'\e[31mred\nline\t\\' || exit 1
run "into a file" 0 get shown
says "into a file" $'\e[31mred\nline\t\\'
if command -v script >/dev/null; then
    on_terminal() {
        script -qec "$(printf '%q ' timeout 60 "$LARDER" -d "$dir" "$@")" /dev/null \
            </dev/null 2>"$err" | tr -d '\r' >"$out"
    }
    on_terminal get shown
    says_line "on a terminal" $'\\x1b[31mred\nline\t\\\\'
    on_terminal --json get shown
    says_json "JSON on a terminal" value $'\e[31mred\nline\t\\'
    on_terminal get nobody
    says_line "a miss on a terminal" "larder: get nobody: not found"
    larder set latin $'\u06db' # DB 9B: a control sequence in ISO 8859-1
    LC_ALL=C on_terminal get latin
    says_line "a terminal without UTF-8" '\xdb\x9b'
    on_terminal get latin
    says_line "a terminal with UTF-8" $'\u06db'
fi
finish
