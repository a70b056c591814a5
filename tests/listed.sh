#!/usr/bin/env bash
# listed.sh: every source file is named in a Makefile.inc, so that nothing is written and then neither
# built, nor run, nor shipped. A test program is named without its ending.
set -eu
cd "${srcdir:-$(dirname "$0")/..}"
failed=0
listed=$(cat Makefile.am ./*/Makefile.inc ./*/*/Makefile.inc | grep -oE '[A-Za-z0-9_./-]+' | sort -u)
while read -r file; do
    if ! grep -qxF -e "$file" -e "${file%.c}" <<<"$listed"; then
        echo "no Makefile.inc names $file"
        failed=1
    fi
done < <(find include lib daemon tools bindings modules tests examples bench -name '*.[ch]' -o -name '*.sh' -o -name '*.bash' \
    -o -name '*.py' -o -name '*.pyi' | sort)
[ $failed -eq 0 ] && echo "listed: ok"
exit $failed
