#!/usr/bin/env bash
# Runs common programs of the PATH on the mount: rsync, git, sqlite3, tar, cp, mv, sed, zip.
set -uo pipefail
mount=$1
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
for folder in 1 2 3; do
    mkdir -p "$source/$folder/e é $folder"
    for file in $(seq 12); do
        head -c $((file * file * 997)) /dev/urandom > "$source/$folder/$file.bin"
    done
    echo text > "$source/$folder/e é $folder/náme"
done
ln -s 1/3.bin "$source/link"
ln "$source/1/4.bin" "$source/2/hard"
touch -d "2001-02-03 04:05:06.123456789" "$source/1/5.bin"
chmod 600 "$source/3/6.bin"
export source
passed=0 failed=0
same='same() { [ -z "$(rsync -anci --delete "$1/" "$2/" | grep -v "^\.d\.\.t")" ]; };'
try() {
    local work
    work=$(mktemp -d "$mount/app.XXXXXX")
    if out=$(cd "$work" && timeout 120 bash -ec "$same $2" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$1: $(tail -1 <<< "$out")"
    fi
    rm -rf "$work"
    stat -t "$mount" > /dev/null || { echo "MOUNT DEAD after $1"; exit 1; }
}
try "rsync -a" 'rsync -a $source/ t/; same $source t'
try "rsync -aH" 'rsync -aH $source/ t/; same $source t; [ $(stat -c %h t/2/hard) = 2 ]'
try "rsync twice" 'rsync -a $source/ t/; [ -z "$(rsync -ai $source/ t/)" ]'
try "rsync times" 'rsync -a $source/ t/; [ $(stat -c %.9Y t/1/5.bin) = $(stat -c %.9Y $source/1/5.bin) ]'
try "rsync --inplace" 'rsync -a $source/ t/; printf X | dd of=t/1/9.bin bs=1 seek=99 conv=notrunc; rsync -aIc --inplace --no-whole-file $source/ t/; same $source t'
try "rsync --append-verify" 'mkdir t; head -c 5000 $source/1/12.bin > t/12.bin; rsync --append-verify -a $source/1/12.bin t/; cmp $source/1/12.bin t/12.bin'
try "rsync --delete" 'rsync -a $source/ t/; mkdir t/x; touch t/x/y t/z; rsync -a --delete-delay $source/ t/; same $source t'
try "rsync -X" 'rsync -aX $source/ t/; setfattr -n user.a -v b t/1/1.bin; rsync -aX t/ u/; [ $(getfattr --only-values -n user.a u/1/1.bin) = b ]'
try "rsync --link-dest" 'rsync -a $source/ t/; rsync -a --link-dest=$PWD/t $source/ u/; [ $(stat -c %i t/1/5.bin) = $(stat -c %i u/1/5.bin) ]'
try "rsync two at once" 'rsync -a $source/ t/ & rsync -a $source/ u/; wait; same $source t; same $source u'
try "rsync killed" 'timeout -s KILL .3 rsync -a --partial --bwlimit=500 $source/ t/ || true; rsync -a $source/ t/; find t -name ".*" -type f -delete; same $source t'
try "cp -a, mv" 'cp -a $source t; mkdir u; mv t/1 u/; mv u/1 t/; same $source t'
try "tar" 'tar -C $source -cf a.tar .; mkdir t; tar -C t -xpf a.tar; tar -C t -df a.tar'
try "unzip" 'python3 -m zipfile -c z.zip $source/1; python3 -m zipfile -e z.zip t; cmp t/1/7.bin $source/1/7.bin'
try "sed -i" 'for i in 1 2 3 4 5; do echo a$i > f; sed -i s/a/b/ f; grep -q b$i f; done'
try "two appenders" '(for i in $(seq 100); do echo aaaa >> f; done) & for i in $(seq 100); do echo bbbb >> f; done; wait; [ $(grep -cE "^(a{4}|b{4})$" f) = 200 ]'
try "git" 'git init -q r; cd r; git config user.email a@b; git config user.name n; cp -a $source s; git add -A; git commit -qm 1; git gc -q --prune=now; git fsck --full --strict; git clone -q . ../c; cd ../c; git fsck --full; [ -z "$(git status --porcelain)" ]'
for journal in delete truncate persist wal memory; do
    try "sqlite3 $journal" "sqlite3 t.db 'pragma journal_mode=$journal; create table t(a integer primary key, b); with recursive c(x) as (select 1 union all select x+1 from c where x<900) insert into t(b) select randomblob(200) from c; delete from t where a%2; vacuum;'; [ \$(sqlite3 t.db 'pragma integrity_check') = ok ]; [ \$(sqlite3 t.db 'select count(*) from t') = 450 ]"
done
try "sqlite3, two writers" 'sqlite3 t.db "create table t(a)"; w() { for i in $(seq 30); do sqlite3 -cmd ".timeout 30000" t.db "insert into t values($i)"; done; }; w & w; wait; [ $(sqlite3 t.db "select count(*) from t") = 60 ]'
try "names" 'python3 -c "
import os
for name in (b\"a\" * 255, b\"\\xff\\xfe\", b\" \", b\"-rf\"): open(name, \"wb\").write(name)
for name in os.listdir(b\".\"): assert open(name, \"rb\").read() == name
try: open(b\"a\" * 256, \"wb\")
except OSError as error: assert error.errno == 36
else: raise SystemExit(1)"'
try "many entries" 'python3 -c "
import os
for i in range(3000): open(f\"n{i}\", \"w\").close()
assert len(set(os.listdir(\".\"))) == 3000"; find . -type f -delete; [ -z "$(ls -A)" ]'
try "file manager trash" 'command -v gio > /dev/null || exit 0; echo x > a; gio trash a 2> /dev/null || rm a; [ ! -e a ]'
try "vim" 'command -v vim > /dev/null || exit 0; echo a > f; vim -es -c "%s/a/b/" -c wq f; grep -q b f'
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
