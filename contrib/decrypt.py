#!/usr/bin/env python3
"""Decrypt what `fsmount push --encrypt` sent, without fsmount.

    python3 decrypt.py KEYS FOLDER DEST

KEYS: what `age -d -i IDENTITY FOLDER/keys/NUMBER.age` prints, of the highest NUMBER.
FOLDER: a copy of all objects. DEST: a new folder for the plain objects, under their plain names.
Needs python3-cryptography. docs/remote-format.md says what the objects are.
"""

import hashlib
import json
import sys
import zipfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if len(sys.argv) != 4:
    sys.exit(__doc__)
ring, folder, dest = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), Path(sys.argv[3])
for path in sorted(path for path in folder.glob("[!k]*/**/*") if path.is_file()):
    name, pieces = path.relative_to(folder), []
    with zipfile.ZipFile(path) as file:
        for number, member in enumerate(sorted(file.namelist())):
            key, place, count = map(int, member.split("-"))
            master, salt = bytes.fromhex(ring["keys"][key - 1]["key"]), ring["store"].encode()
            info = f"fsmount object {name.as_posix()}".encode()
            cipher = AESGCM(HKDF(SHA256(), 32, salt, info).derive(master))
            content = file.read(member)
            pieces.append(cipher.decrypt(content[:12], content[12:], member.encode()))
            if place != number or count != len(file.namelist()):
                sys.exit(f"{path}: a chunk is missing")
    plain = b"".join(pieces)
    if name.parts[0] != "state":
        name = name.with_name(hashlib.sha256(plain).hexdigest())
    (dest / name).parent.mkdir(parents=True, exist_ok=True)
    (dest / name).write_bytes(plain)
