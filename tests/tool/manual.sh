#!/usr/bin/env bash
# manual.sh: the manual page and the tool's help name the same commands and options.
# shellcheck source-path=SCRIPTDIR source=common.bash
. "$(dirname "$0")/common.bash"
manual=$(dirname "$0")/../../doc/larder.1
text=$LARDER_TEST_DIR/manual
sed 's/\\-/-/g; s/\\f[BIR]//g' "$manual" >"$text" || exit 1

commands=$(larder help | sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p')
[ "$(wc -w <<<"$commands")" -ge 10 ]
report $? "help lists its commands"
for command in $commands; do
    grep -q -E "^(\.B )?$command( |\$)" "$text"
    report $? "the manual has $command"
    options=$(larder help "$command" | grep -o -E -e '--[a-z-]+' | sort -u)
    for option in $options; do
        grep -q -F -e "$option" "$text"
        report $? "the manual has $option of $command"
    done
done
help=$(for command in $commands; do larder help "$command"; done; larder help)
while read -r option; do
    grep -q -F -e "$option" <<<"$help"
    report $? "the tool has $option"
done < <(grep -o -E -e '--[a-z][a-z-]+' "$text" | sort -u)
larder create --size 16M >/dev/null
figures=$(larder --json stat | grep -o '"[a-z_]*": [0-9ntf]' | sed 's/": .//; s/"//')
[ "$(wc -w <<<"$figures")" -ge 40 ]
report $? "stat has its figures"
for figure in $figures; do
    grep -q -x -e "\.B $figure" "$text"
    report $? "the manual describes the figure $figure"
done
for code in 0 1 2 3 4 5 6; do
    grep -q -x -e "\.B $code" "$text"
    report $? "the manual has exit status $code"
done
if command -v man >/dev/null; then
    man --warnings -l "$manual" 2>"$err" >/dev/null </dev/null && [ ! -s "$err" ]
    report $? "the manual page is well-formed"
fi
finish
