#!/usr/bin/env bash
# Runs fsstress (ltp/fsstress.c of xfstests, built). FSSTRESS names the program. Argument: number of
# operations.
set -euo pipefail
fsstress=${FSSTRESS:?name the program fsstress}
for seed in 1 2 3 4; do
    mkdir "$1/$seed"
    "$fsstress" -d "$1/$seed" -n "${2:-2000}" -p 4 -s "$seed" > /dev/null
    rm -rf "${1:?}/$seed"
done
echo "4 passed, 0 failed"
