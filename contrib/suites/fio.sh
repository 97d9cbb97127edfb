#!/usr/bin/env bash
# Runs fio of the PATH, which writes and verifies. Argument: megabytes of each file.
set -euo pipefail
for kind in write randwrite; do
    for sum in crc32c sha256; do
        for size in 4k 128k; do
            echo "$kind $sum $size"
            fio --name="$kind$sum$size" --directory="$1" --rw="$kind" --bs="$size" \
                --size="${2:-16}m" --verify="$sum" --do_verify=1 --verify_fatal=1 \
                --verify_state_save=0 \
                --ioengine=psync --end_fsync=1 --output-format=terse > /dev/null
            rm -f "$1"/*
        done
    done
done
echo "8 passed, 0 failed"
