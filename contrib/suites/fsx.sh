#!/usr/bin/env bash
# Runs fsx (ltp/fsx.c of xfstests, built). FSX names the program. Arguments: numbers of operations
# and of seeds.
set -euo pipefail
fsx=${FSX:?name the program fsx}
mount=$1 operations=${2:-20000} seeds=${3:-8} failed=0 passed=0
logs=$(mktemp -d)
# These options leave out calls that a FUSE filesystem does not have: fallocate, punch, collapse,
# insert, clone, dedupe, copy.
plain="-F -H -z -C -I -J -B -E -0 -u -a"
for seed in $(seq "$seeds"); do
    for variant in "-R -W" "" "-c 50 -f" "-X -c 200 -N 2000"; do
        # shellcheck disable=SC2086
        if "$fsx" -q -S "$seed" -l 1048576 -o 65536 -P "$logs" -N "$operations" $plain $variant \
            "$mount/file" > "$logs/log" 2>&1; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            echo "seed $seed '$variant': $(tail -1 "$logs/log")"
        fi
        rm -f "$mount/file"
    done
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
