#!/usr/bin/env bash
# Runs pjdfstest (github.com/pjd/pjdfstest, built). PJDFSTEST names its folder. It needs root.
# Arguments: parts of its tests/ folder, for example rename. Without arguments all parts run.
set -euo pipefail
tests=$(realpath "${PJDFSTEST:?name the folder of pjdfstest}")/tests
work=$1/pjd
shift
mkdir -m 755 "$work"
cd "$work"
passed=0 failed=0
while read -r test; do
    out=$(timeout 300 sh "$test" 2>&1 || true)
    good=$(grep -c '^ok ' <<< "$out" || true)
    todo=$(grep -c '^not ok .*# TODO' <<< "$out" || true)
    plan=$(sed -n 's/^1\.\.\([0-9]*\).*/\1/p' <<< "$out" | head -1)
    passed=$((passed + good + todo)) bad=$((${plan:-1} - good - todo))
    if [ "$bad" -gt 0 ]; then
        failed=$((failed + bad))
        echo "$(realpath --relative-to "$tests" "$test"): $bad failed:" \
            "$(grep '^not ok' <<< "$out" | grep -v TODO | cut -c1-60 | head -3 | tr '\n' ';')"
    fi
done < <(if [ $# = 0 ]; then find "$tests" -name '*.t'; else
    for part; do find "$tests/$part" -name '*.t'; done; fi | sort)
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
