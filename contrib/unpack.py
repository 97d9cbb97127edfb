#!/usr/bin/env python3
"""Give every file of an fsmount store back, with nothing of fsmount installed.

    python3 unpack.py STORE DEST          names, folders, links and times from STORE/index.sqlite
    python3 unpack.py STORE/packs DEST    from the packs alone, whatever became of the index

Needs Python 3.10, numpy and Pillow, and imagecodecs or jxlpy where a pack holds a .jxl (any JPEG XL
decoder will do: it is one function below). JPEGs kept as JPEG XL need imagecodecs, or the program
djxl (Debian: libjxl-tools). PNGs that classic zlib did not write (Chromium's, for
example) need corrections.py, which lies in fsmount/codec/ of the sources and needs nothing, beside
this script, and up to a minute each. docs/format.md describes what is read here. Nothing
inside STORE is changed, DEST has to be new or empty. What is written has the SHA-256 it had when
it was stored; a file that has not gets ".not-exact" into its name, is listed, and makes the exit
code 1. Most likely then is a zlib that compresses differently from the classic one (zlib-ng, for
example): the picture is right, the PNG around it is another.
"""

import functools
import hashlib
import io
import json
import mmap
import os
import re
import runpy
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

TILE, SEGMENT = 16, 1 << 20
# What zlib is told beforehand about the records that stand alone. Part of the format.
DICTIONARY = (
    b'{"id":1,"kind":"raw","reason":"unknown deflate encoder","size":100000,"mtime":17000000000000'
    b'00000,"path":"notes.txt","arrays":[["sha256",32]]}"reason":"not a PNG"'
    b'{"id":10,"kind":"key","kind":"delta","frame":[1080,1920,3,8],"png":{"c":6,"d":8,"o":1,'
    b'"z":30876,"p":[6,1,8,15],"i":8192},"sources":[],"size":500000,"mtime":1700000000000000000,'
    b'"path":"2024-01-01T00:00:00+00:00.png","arrays":[["sha256",32],["tiles",8160],'
    b'["prediction",8160],["filters",1080],["tail",12]]}'
)
# A ZIP local header as fsmount writes it: magic, fixed fields, CRC-32, size twice, length of the
# name and of the extra field; then the name, which starts with the object's id in hexadecimal.
HEADER = re.compile(rb"PK\x03\x04\x14\0\0\x08\0\0\0\0\x21\0(.{16})([0-9a-f]{8})(?=\.)", re.DOTALL)


def tell(line):
    """Print a line; what a name may hold to control a terminal is escaped there."""
    if sys.stdout.isatty():
        line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
    print(line)


class Packs:
    """All entries of all packs. A method that cannot give what it should raises some exception."""

    def __init__(self, folder, raw):
        self.folder, self.raw = folder, raw
        self.entries = {}  # id -> (suffix, stored record, payload, CRC-32 of the payload)
        self.places = {}  # (name of the pack, offset) -> the same
        self.damage = []  # a line for each place in a pack that cannot be read
        # Others may have put something of their own there.
        paths = sorted(path for path in folder.glob("[0-9]*.zip") if path.is_file())
        paths = [path for path in paths if re.fullmatch("[0-9]{8}|[1-9][0-9]{8,}", path.stem)]
        for path in paths:
            if path.stat().st_size:
                with path.open("rb") as file:
                    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self.scan(path, data, is_last=path == paths[-1])
        # Pixels an object coded itself are wanted by many frames near it, records by all near it.
        self.record = functools.lru_cache(maxsize=256)(self.record)
        self.own = functools.lru_cache(maxsize=32)(self.own)

    def scan(self, path, data, is_last):
        """Read header after header, for a pack may have lost its central directory or never had
        one, and a damaged header must not hide the entries behind it."""
        at, record, start = 0, b"", None
        while at < len(data) and data[at : at + 4] not in (b"PK\1\2", b"PK\5\6"):
            found, is_whole = HEADER.match(data, at), False
            if found:
                crc, _, size, name_size, extra_size = struct.unpack("<3I2H", found[1])
                extra = at + 30 + name_size
                body = extra + extra_size
                end = body + size
                # The lengths are right if the payload is, or if something follows where it ends.
                is_whole = data[end : end + 2] == b"PK" or zlib.crc32(data[body:end]) == crc
            if not is_whole or end > len(data):
                following = HEADER.search(data, at + 1)
                end = following.start() if following else len(data)
                if following or not is_last or data[-22:-18] == b"PK\5\6":
                    self.damage.append(f"{path.name}: bytes {at} to {end} are damaged")
                else:  # what a crash leaves of entries that were under way
                    tell(f"{path.name}: left out an unfinished end of {end - at} bytes")
            elif data[at + 38 : extra] == b".rec":
                record, start = data[body:end], at  # a long record is a member of its own
            else:
                # Extra field: id 0x4D46, length, and 0: the record follows, 1: it came before.
                kind = data[extra + 4 : body][:1]
                if kind == b"\0":
                    record = data[extra + 5 : body]
                payload = memoryview(data)[body:end]
                entry = (data[at + 38 : extra].decode("ascii", "replace"), record, payload, crc)
                if data[extra : extra + 2] != b"FM" or kind not in (b"\0", b"\1"):
                    self.damage.append(f"{path.name}: the entry at {at} has no record")
                elif self.entries.setdefault(int(found[2], 16), entry)[1] != record:
                    # With the same record it is what a repack that was killed left behind.
                    self.damage.append(f"{path.name}: a second object {int(found[2], 16)} at {at}")
                self.places[path.stem, at if start is None else start] = entry
                start = None
            at = end

    def record(self, number):
        """(header, arrays, text of the header) of an object."""
        stored = self.entries[number][1]
        anchor = int.from_bytes(stored[:4], "little")
        # Records of frames in a row are alike, so most are written against one of them.
        _, others, dictionary = self.record(anchor) if anchor else ({}, {}, DICTIONARY)
        decoder = zlib.decompressobj(zdict=dictionary)
        plain = decoder.decompress(stored[4:])
        if not decoder.eof:
            raise ValueError("a record is cut off")
        start = len(plain) - 4 - int.from_bytes(plain[-4:], "little")
        header, arrays, at = json.loads(plain[start:-4]), {}, 0
        for name, size in header["arrays"]:
            array, other = plain[at : at + size], others.get(name, b"")
            if len(other) == size:
                array = bytes(a ^ b for a, b in zip(array, other, strict=True))
            arrays[name] = array
            at += size
        return header, arrays, plain[start:-4]

    def payload(self, number):
        """The payload of an entry, checked."""
        _, _, payload, crc = self.entries[number]
        if zlib.crc32(payload) != crc:
            raise ValueError(f"the payload of object {number} is damaged")
        return bytes(payload)

    def map(self, number, array):
        """One byte for each tile of a frame; rows of 16 x 16 tiles from the upper left."""
        header, arrays, _ = self.record(number)
        rows, columns = (-(-side // TILE) for side in header["frame"][:2])
        return np.frombuffer(arrays.get(array, bytes(rows * columns)), np.uint8).reshape(rows, -1)

    def own(self, number):
        """The frame of an object with the pixels it coded itself, zeros elsewhere."""
        header = self.record(number)[0]
        height, width, channels, bits = header["frame"]
        canvas = np.zeros((height, width, channels), np.uint8 if bits == 8 else np.uint16)
        mine = self.map(number, "tiles") == 0
        if mine.any():
            # The image is the frame without the tile rows and columns that have no tile of its own.
            image = decode(self.entries[number][0], self.payload(number), channels)
            for i, row in enumerate(np.flatnonzero(mine.any(axis=1))):
                for j, column in enumerate(np.flatnonzero(mine.any(axis=0))):
                    if mine[row, column]:
                        canvas[area(row, column)] = image[area(i, j)]
        # Some tiles are coded as what they differ by, modulo 256 or 65536, from other pixels.
        prediction = self.map(number, "prediction")
        for row, column in np.argwhere(mine & (prediction != 0)):
            source = header["sources"][prediction[row, column] - 1]
            canvas[area(row, column)] += self.pixels(source, row, column, canvas)
        return canvas

    def pixels(self, source, row, column, canvas):
        """What a source shows at a tile: a colour, or pixels another object coded itself."""
        if isinstance(source, dict):
            return np.array(source["fill"], canvas.dtype)
        number, dx, dy = source if isinstance(source, list) else (source, 0, 0)
        height, width = canvas[area(row, column)].shape[:2]
        top, left = row * TILE + dy, column * TILE + dx
        return self.own(number)[top : top + height, left : left + width]

    def frame(self, number):
        """The pixels of a picture, (height, width, channels)."""
        canvas, tiles = self.own(number).copy(), self.map(number, "tiles")
        sources = self.record(number)[0]["sources"]
        for row, column in np.argwhere(tiles != 0):
            source = sources[tiles[row, column] - 1]
            canvas[area(row, column)] = self.pixels(source, row, column, canvas)
        return canvas

    def write(self, number, file, sha256=None):
        """Write the file an object stands for; whether it is exactly the one that was stored."""
        if number not in self.entries:
            raise ValueError(f"object {number} is in no pack")
        header, arrays, _ = self.record(number)
        if header["kind"] == "raw" and self.entries[number][0] == ".sums":
            return self.write_kept(number, file, header["size"])
        if header["kind"] == "raw":
            data = self.payload(number)
        elif header["kind"] == "jpeg":
            data = jpeg(self.payload(number))
        else:
            data = png(self.frame(number), header["png"], arrays)
        file.write(data)
        return hashlib.sha256(data).digest() == arrays["sha256"] == (sha256 or arrays["sha256"])

    def write_kept(self, number, file, size):
        """A large file lies in raw/; its payload is the SHA-256 of each MiB that is not zeros."""
        exact = True
        with (self.raw / f"{number:08x}").open("rb") as source:
            for index, digest in struct.iter_unpack("<Q32s", self.payload(number)):
                source.seek(index * SEGMENT)
                data = source.read(min(SEGMENT, size - index * SEGMENT))
                exact = exact and hashlib.sha256(data).digest() == digest
                file.seek(index * SEGMENT)
                file.write(data)
        file.truncate(size)
        return exact


def area(row, column):
    """The pixels of a tile; at the right and lower edge the array's end cuts them off."""
    return np.s_[row * TILE : row * TILE + TILE, column * TILE : column * TILE + TILE]


def decode(suffix, data, channels):
    """An image file as array (height, width, channels)."""
    if suffix == ".webp":
        # WebP has neither grey nor grey with alpha: they are stored with three equal colours.
        image = Image.open(io.BytesIO(data)).convert("RGBA" if channels in (2, 4) else "RGB")
        return np.asarray(image)[:, :, {1: [0], 2: [0, 3]}.get(channels, slice(None))]
    try:
        import imagecodecs

        image = imagecodecs.jpegxl_decode(data, index=0, numthreads=1)
    except ImportError:
        return decode_by_jxlpy(data, channels)
    return image.reshape(*image.shape[:2], channels)


def decode_by_jxlpy(data, channels):
    """As decode, for a .jxl where imagecodecs is not installed."""
    import jxlpy

    decoder = jxlpy.JXLPyDecoder(data, num_threads=1)
    info = decoder.get_info()
    dtype = np.uint8 if info["bits_per_sample"] == 8 else np.uint16
    return np.frombuffer(decoder.get_frame(), dtype).reshape(info["ysize"], info["xsize"], channels)


def jpeg(data):
    """The JPEG file that a JPEG XL file was made of."""
    try:
        import imagecodecs
    except ImportError:
        if shutil.which("djxl") is None:
            raise ValueError("this JPEG needs imagecodecs or djxl, see above") from None
    else:
        return imagecodecs.jpegxl_decode_jpeg(data)
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "x.jxl"), Path(scratch, "x.jpg")
        source.write_bytes(data)
        subprocess.run(["djxl", source, target], check=True, capture_output=True)
        return target.read_bytes()


def png(frame, recipe, arrays):
    """The PNG file of a frame: c colour type, d bits a sample, o alpha was left out, z zlib header,
    p parameters of deflate, i how the stream is cut into IDATs."""
    height, width, _ = frame.shape
    if recipe["o"]:
        alpha = np.full((height, width, 1), np.iinfo(frame.dtype).max, frame.dtype)
        frame = np.concatenate((frame, alpha), axis=2)
    rows = frame.reshape(height, -1)
    if recipe["d"] == 16:
        rows = rows.astype(">u2").view(np.uint8)
    elif recipe["d"] < 8:
        bits = np.unpackbits(rows[:, :, np.newaxis], axis=2)[:, :, 8 - recipe["d"] :]
        rows = np.packbits(bits.reshape(height, -1), axis=1)
    raw = filtered(rows, arrays["filters"], max(1, frame.shape[2] * recipe["d"] // 8))
    body = corrected(arrays["corrections"], raw) if recipe["p"] == [2] else zlibs(raw, *recipe["p"])
    stream = recipe["z"].to_bytes(2, "big") + body + zlib.adler32(raw).to_bytes(4, "big")
    stream += arrays.get("idat_tail", b"")
    sizes = recipe["i"]
    if isinstance(sizes, int):  # all alike but the last; 0: a single one
        sizes = [sizes or len(stream)] * -(-len(stream) // (sizes or len(stream)))
    out = [b"\x89PNG\r\n\x1a\n"]
    fields = struct.pack(">2I5B", width, height, recipe["d"], recipe["c"], 0, 0, 0)
    out += [chunk(b"IHDR", fields), arrays.get("head", b"")]
    at = 0
    for size in sizes:
        out.append(chunk(b"IDAT", stream[at : at + size]))
        at += size
    return b"".join(out) + arrays.get("tail", b"")


def zlibs(raw, level, strategy, memory, window):
    """The deflate stream of classic zlib."""
    coder = zlib.compressobj(level, zlib.DEFLATED, -window, memory, strategy)
    pieces = [coder.compress(raw[i : i + 65536]) for i in range(0, len(raw), 65536)]
    return b"".join(pieces) + coder.flush()


def corrected(record, raw):
    """The deflate stream of another encoder, from its correction record."""
    here = Path(__file__).resolve().parent
    for path in (here / "corrections.py", here.parent / "fsmount" / "codec" / "corrections.py"):
        if path.exists():
            return runpy.run_path(str(path))["apply"](record, raw)
    raise ValueError("put corrections.py (fsmount/codec/ in the sources) beside this script")


def filtered(rows, kinds, pixel):
    """Each row behind the number of its filter and filtered by it (PNG specification, part 9)."""
    out, above = [], np.zeros(rows.shape[1], np.int16)
    for kind, row in zip(kinds, rows.astype(np.int16), strict=True):
        left, corner = (np.pad(x, (pixel, 0))[: len(x)] for x in (row, above))
        if kind == 4:
            guess = left + above - corner
            a, b, c = abs(guess - left), abs(guess - above), abs(guess - corner)
            predicted = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
        else:
            predicted = (0, left, above, (left + above) // 2)[kind]
        out += [bytes([kind]), (row - predicted).astype(np.uint8).tobytes()]
        above = row
    return b"".join(out)


def chunk(kind, content):
    """A PNG chunk."""
    checksum = zlib.crc32(kind + content)
    return len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")


class Folder:
    """DEST, and the count of what went well. Links are made last, so none is ever followed."""

    def __init__(self, path):
        self.path = path
        self.good = 0
        self.bad = 0
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            sys.exit(f"{path} is not empty")

    def inside(self, name):
        """A path below DEST, whatever a damaged or hostile name says."""
        parts = os.fsdecode(name.replace(b"\0", b"_")).split("/")
        return self.path.joinpath(*[p for p in parts if p not in ("", ".", "..")] or ["unnamed"])

    def complain(self, name, reason):
        """Report a file that is not, or not exactly, given back."""
        self.bad += 1
        tell(f"DAMAGED {name}: {reason}")

    def give(self, path, write):
        """A new file filled by `write`, which says whether it is exact; True if it is."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                try:
                    exact = write(file)
                except BaseException:
                    path.unlink()
                    raise
            if exact:
                self.good += 1
                return True
            path.rename(path.with_name(f"{path.stem}.not-exact{path.suffix}"))
            reason = "not exactly what was stored, see .not-exact"
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        self.complain(path.relative_to(self.path), reason)
        return False


def dated(path, atime, mtime):
    """Set times in ns since 1970; one that this file system cannot hold is let go."""
    try:
        os.utime(path, ns=(atime, mtime), follow_symlinks=False)
    except (OSError, OverflowError) as error:
        tell(f"{path}: {error}")


def from_packs(packs, folder):
    """Every object under the path it had when it was encoded. Deleted files come back too."""
    for line in packs.damage:
        folder.complain("pack", line)
    seen = set()
    for number in sorted(packs.entries, reverse=True):  # of several with one name the latest wins
        try:
            header, arrays, _ = packs.record(number)
            name = header["path"].encode("utf-8", "surrogateescape")
        except Exception as error:
            folder.complain(f"object {number}", f"{type(error).__name__}: {error}")
            continue
        if (name, arrays["sha256"]) in seen:
            continue
        seen.add((name, arrays["sha256"]))
        path = folder.inside(name)
        if path.exists() or any(above.is_file() for above in path.parents):
            top = path.parent if path.parent.is_dir() else folder.path
            path = top / f"{path.stem}.{number:08x}{path.suffix}"
        if folder.give(path, functools.partial(packs.write, number)):
            dated(path, header["mtime"], header["mtime"])


def read_index(store):
    """Rows of the index. It is SQLite with 8 bytes of checksum, ignored here, behind each page.

    A copy is read: SQLite would put files beside the original, and a store that was not closed has
    its newest rows in the -wal file.
    """
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("index.sqlite", "index.sqlite-wal"):
            if (store / name).exists():
                shutil.copyfile(store / name, Path(scratch, name))
        db = sqlite3.connect(Path(scratch, "index.sqlite"))
        try:
            if db.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("it is damaged")
            columns = "ino, mode, atime, mtime, object, staged, target"
            inodes = {row[0]: row[1:] for row in db.execute(f"SELECT {columns} FROM inodes")}
            names = {}
            for parent, name, ino in db.execute("SELECT folder, name, ino FROM dirents"):
                names.setdefault(parent, []).append((name, ino))
            places = {
                number: ((f"{pack:08d}", offset), sha256)
                for number, pack, offset, sha256 in db.execute(
                    "SELECT id, pack, offset, sha256 FROM objects"
                )
            }
            return inodes, names, places
        finally:
            db.close()


def from_index(store, packs, folder, index):
    """The tree as it was: names, modes, times, links, files not encoded yet."""
    inodes, names, places = index
    for line in packs.damage:
        tell(line)  # whether a file misses anything shows when it is rebuilt
    # The index knows where entries lie; the id in a header, which no checksum covers, is not asked.
    found = {number: packs.places.get(place) for number, (place, _) in places.items()}
    unknown = len(packs.places) - sum(entry is not None for entry in found.values())
    if unknown:
        tell(f"the index does not know {unknown} entries; unpack {packs.folder} to see them")
    packs.entries = {number: entry for number, entry in found.items() if entry}
    first, links, folders, todo = {}, [], {1: folder.path}, [(1, b"")]
    while todo:
        parent, above = todo.pop()
        for last, ino in sorted(names.get(parent, [])):
            name = above + b"/" + last.replace(b"/", b"_")
            path = folder.inside(name)
            mode, atime, mtime, number, token, target = inodes.get(ino, (0,) * 6)
            if stat.S_ISDIR(mode):
                if ino not in folders:  # else a damaged index goes in a circle
                    path.mkdir(exist_ok=True)
                    folders[ino] = path
                    todo.append((ino, name))
            elif stat.S_ISLNK(mode):
                links.append((path, target, atime, mtime))
            elif not mode:
                folder.complain(os.fsdecode(name), "the index has no row for it")
            elif not stat.S_ISREG(mode):
                tell(f"{path}: a special file is left out")
            elif ino in first:
                path.hardlink_to(first[ino])
                folder.good += 1
            else:
                if token is not None:
                    write = functools.partial(copy, store / "staging" / str(token))
                else:
                    sha256 = places[number][1] if number in places else None
                    write = functools.partial(packs.write, number, sha256=sha256)
                if folder.give(path, write):
                    first[ino] = path
                    path.chmod(mode & 0o777)
                    dated(path, atime, mtime)
    for path, target, atime, mtime in links:
        path.symlink_to(os.fsdecode(target))
        dated(path, atime, mtime)
    for ino in reversed(folders):  # the deepest first, for a mode may lock us out
        mode, atime, mtime = inodes[ino][:3]
        dated(folders[ino], atime, mtime)
        folders[ino].chmod(mode & 0o777)


def copy(source, file):
    """A file that was not encoded yet."""
    with source.open("rb") as staged:
        shutil.copyfileobj(staged, file)
    return True


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python3 unpack.py STORE_OR_PACKS_FOLDER DEST")
    sys.stdout.reconfigure(errors="backslashreplace")
    store, folder = Path(sys.argv[1]), Folder(Path(sys.argv[2]))
    config = store / "fsmount.json"
    if config.exists() and json.loads(config.read_bytes())["format"] != 1:
        sys.exit(f"{config}: this script knows format 1 only")
    inside = store / "packs"
    packs_folder = inside if inside.is_dir() else store
    packs = Packs(packs_folder, packs_folder.parent / "raw")
    index = None
    if (store / "index.sqlite").exists():
        try:
            index = read_index(store)
        except sqlite3.Error as error:
            tell(f"index.sqlite: {error}; names and times come from the packs")
    if index:
        from_index(store, packs, folder, index)
    else:
        from_packs(packs, folder)
    tell(f"{folder.good} files, {folder.bad} not exact or damaged")
    sys.exit(1 if folder.bad else 0)


if __name__ == "__main__":
    main()
