#!/usr/bin/env bash
# unscripted.sh: the tests of replication once more, against servers that refuse scripts: by a right
# (EVALSHA is no command), or all of them (SCRIPT is none).
set -u
cd "${BUILDDIR:-.}" || exit 1
failed=0
for command in EVALSHA SCRIPT; do
    for program in test_converge test_trouble; do
        [ "$command$program" != SCRIPTtest_trouble ] || continue # flushes scripts
        if ! LARDER_TEST_REFUSE=$command "tests/redis/$program" >"tests/redis/unscripted-$command.out" 2>&1; then
            echo "without $command: $program failed:"
            cat "tests/redis/unscripted-$command.out"
            failed=1
        fi
    done
done
[ $failed -eq 0 ] && echo "unscripted: ok"
exit $failed
