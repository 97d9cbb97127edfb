#!/usr/bin/env python3
"""Give back every file of an fsmount store, without an installed fsmount.

    python3 unpack.py STORE DEST          names, folders, links and times from STORE/index.sqlite
    python3 unpack.py STORE/packs DEST    all from the packs, without the index

The script needs Python 3.10, numpy and Pillow (Debian: python3-numpy and python3-pil). It needs
imagecodecs or jxlpy if a pack holds a .jxl (any JPEG XL decoder will do: it is one function below).
JPEGs that are kept as JPEG XL need imagecodecs, or the program djxl (Debian: libjxl-tools). A
.pam.zst needs zstandard (Debian: python3-zstandard), Python 3.14 or the program zstd. A PNG
that classic zlib did not write (Chromium's, for example) takes up to a minute. docs/format.md
describes the format.

It does not use parity (packs/*.parity). If a pack is damaged, repair the store with fsmount first.

The script changes nothing inside STORE. DEST must be new or empty. Each written file has the
SHA-256 that it had when it was stored. A file with another SHA-256 gets ".not-exact" into its name,
is listed, and makes the exit code 1. The likely cause is a zlib that compresses differently from
the classic one (zlib-ng, for example): then the picture is right, and the PNG around it differs.
"""

# One long file, because it must work alone: nothing of it is imported from fsmount. In order:
# entries, records and pixels (Packs); PNG and JPEG files from them; files and folders in DEST
# (Folder); the index. The second half makes the deflate streams of encoders other than classic
# zlib; it is the readable form of fsmount/codec/kernel/deflate. At the end stands main.

import functools
import hashlib
import io
import json
import mmap
import os
import re
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

try:
    import numpy as np
    from PIL import Image

    MISSING = None
except ImportError as error:
    # --help works without them.
    MISSING = str(error)

TILE, SEGMENT = 16, 1 << 20
# The first byte of a zlib stream with a window of 32 KiB, and the magic number of zstd.
ZLIB, ZSTD = 0x78, bytes.fromhex("28b52ffd")
# The dictionary for records that are written against no other record. Part of the format.
DICTIONARY = (
    b'{"id":1,"kind":"raw","reason":"unknown deflate encoder","size":100000,"mtime":17000000000000'
    b'00000,"path":"notes.txt","arrays":[["sha256",32]]}"reason":"not a PNG"'
    b'{"id":10,"kind":"key","kind":"delta","frame":[1080,1920,3,8],"png":{"c":6,"d":8,"o":1,'
    b'"z":30876,"p":[6,1,8,15],"i":8192},"sources":[],"size":500000,"mtime":1700000000000000000,'
    b'"path":"2024-01-01T00:00:00+00:00.png","arrays":[["sha256",32],["tiles",8160],'
    b'["prediction",8160],["filters",1080],["tail",12]]}'
)
# A ZIP local header as fsmount writes it: magic, fixed fields, CRC-32, size twice, length of the
# name and of the extra field. The name follows. It starts with the id of the object in hexadecimal.
HEADER = re.compile(rb"PK\x03\x04\x14\0\0\x08\0\0\0\0\x21\0(.{16})([0-9a-f]{8})(?=\.)", re.DOTALL)


def tell(line):
    """Print a line. On a terminal, escape control characters that a name may hold."""
    if sys.stdout.isatty():
        line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
    print(line)


class Packs:
    """All entries of all packs.

    A method raises some exception if damage keeps it from its result. Errors have no common class.
    """

    def __init__(self, folder, raw):
        self.folder, self.raw = folder, raw
        # id -> (suffix, stored record, payload, CRC-32 of the payload, dictionary, photographs).
        # The dictionary is an id, or 0. Photographs are (suffix, payload, CRC-32, packed bits).
        self.entries = {}
        self.places = {}  # (name of the pack, offset in bytes) -> the same tuple
        self.damage = []  # a line for each place in a pack that cannot be read
        # Other programs may have put files of their own there.
        paths = sorted(path for path in folder.glob("[0-9]*.zip") if path.is_file())
        paths = [path for path in paths if re.fullmatch("[0-9]{8}|[1-9][0-9]{8,}", path.stem)]
        for path in paths:
            if path.stat().st_size:
                with path.open("rb") as file:
                    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self.scan(path, data, is_last=path == paths[-1])
        # Many frames near an object need the pixels that it coded itself, and all need its record.
        self.record = functools.lru_cache(maxsize=256)(self.record)
        self.own = functools.lru_cache(maxsize=32)(self.own)

    def scan(self, path, data, is_last):
        """Read all entries of the pack `data`, header after header.

        A pack may have lost its central directory, or never had one. A damaged header must not hide
        the entries behind it. Damage becomes a line in `self.damage`.
        """
        at, record, photographs, start = 0, b"", None, None
        while at < len(data) and data[at : at + 4] not in (b"PK\1\2", b"PK\5\6"):
            found, is_whole = HEADER.match(data, at), False
            if found:
                crc, _, size, name_size, extra_size = struct.unpack("<3I2H", found[1])
                extra = at + 30 + name_size
                body = extra + extra_size
                end = body + size
                # The lengths are right if the payload is, or if an entry or directory follows it.
                is_whole = data[end : end + 2] == b"PK" or zlib.crc32(data[body:end]) == crc
            if not is_whole or end > len(data):
                following = HEADER.search(data, at + 1)
                end = following.start() if following else len(data)
                if following or not is_last or data[-22:-18] == b"PK\5\6":
                    self.damage.append(f"{path.name}: bytes {at} to {end} are damaged")
                else:  # a crash left unfinished entries here
                    tell(f"{path.name}: left out an unfinished end of {end - at} bytes")
            elif data[at + 38 : extra] == b".rec":
                record, start = data[body:end], at  # a long record is a ZIP member of its own
            elif data[at + 38 : extra].startswith(b".photo."):  # and so are photographs
                suffix = data[at + 44 : extra].decode("ascii", "replace")
                photographs = suffix, memoryview(data)[body:end], crc, data[extra + 5 : body]
                start = at if start is None else start
            else:
                # Extra field: id 0x4D46, length, then 0 (the record follows), 1 (it came before)
                # or 3 (a dictionary and the record). A dictionary may also be behind a 1.
                kind, inside = data[extra + 4 : body][:1], data[extra + 5 : body]
                dictionary = 0
                if kind == b"\3" or (kind == b"\1" and inside):
                    dictionary, inside = int.from_bytes(inside[:4], "little"), inside[4:]
                if kind != b"\1":
                    record = inside
                payload = memoryview(data)[body:end]
                suffix = data[at + 38 : extra].decode("ascii", "replace")
                entry = (suffix, record, payload, crc, dictionary, photographs)
                if data[extra : extra + 2] != b"FM" or kind not in (b"\0", b"\1", b"\3"):
                    self.damage.append(f"{path.name}: the entry at {at} has no record")
                elif self.entries.setdefault(int(found[2], 16), entry)[1] != record:
                    # With the same record it is a leftover of a killed repack, and no damage.
                    self.damage.append(f"{path.name}: a second object {int(found[2], 16)} at {at}")
                self.places[path.stem, at if start is None else start] = entry
                photographs = start = None
            at = end

    def record(self, number):
        """The record of an object: (header, arrays). Raises ValueError."""
        stored = self.entries[number][1]
        anchor, form = struct.unpack_from("<IB", stored)
        # Records of successive frames are alike, so most are written against one of them.
        known, others = self.record(anchor) if anchor else (None, {})
        arrays = {}
        if form == ZLIB:
            decoder = zlib.decompressobj(zdict=known_text(known, 1))
            plain = decoder.decompress(stored[4:])
            if not decoder.eof:
                raise ValueError("a record is cut off")
        else:
            crc, mtime = struct.unpack_from("<Iq", stored, 5)
            at = 49 if form == 2 else 17
            arrays["sha256"] = stored[17:at]
            plain = zstd(ZSTD + stored[at:], known_text(known, 2))
        start = len(plain) - 4 - int.from_bytes(plain[-4:], "little")
        header, at = json.loads(plain[start:-4]), 0
        for name, size in header["arrays"]:
            array, other = plain[at : at + size], others.get(name, b"")
            if len(other) == size:
                array = bytes(a ^ b for a, b in zip(array, other, strict=True))
            arrays[name] = array
            at += size
        if form != ZLIB:
            header["mtime"] = mtime
            whole = mtime.to_bytes(8, "little", signed=True) + b"".join(arrays.values())
            if zlib.crc32(whole + plain[start:-4]) != crc:
                raise ValueError("a record is damaged")
        return header, arrays

    def payload(self, number):
        """The payload of an entry. Raises ValueError if its CRC-32 is wrong."""
        payload, crc = self.entries[number][2:4]
        if zlib.crc32(payload) != crc:
            raise ValueError(f"the payload of object {number} is damaged")
        return bytes(payload)

    def map(self, number, array):
        """An array of a record with one byte for each tile of its frame: shape (rows, columns).

        Tiles have 16 x 16 pixels and begin in the upper left corner.
        """
        header, arrays = self.record(number)
        rows, columns = (-(-side // TILE) for side in header["frame"][:2])
        return np.frombuffer(arrays.get(array, bytes(rows * columns)), np.uint8).reshape(rows, -1)

    def own(self, number):
        """The frame of an object with the pixels that it coded itself, and zeros elsewhere.

        Its shape is (height, width, channels), its dtype uint8 or uint16.
        """
        header = self.record(number)[0]
        height, width, channels, bits = header["frame"]
        canvas = np.zeros((height, width, channels), np.uint8 if bits == 8 else np.uint16)
        mine = self.map(number, "tiles") == 0
        suffix, _, _, _, dictionary, photographs = self.entries[number]
        first = mine.copy()
        if photographs:  # some of the tiles are in an image of their own
            second = np.zeros_like(mine)
            bits = np.frombuffer(zlib.decompress(photographs[3]), np.uint8)
            second[mine] = np.unpackbits(bits)[: np.count_nonzero(mine)]
            if zlib.crc32(photographs[1]) != photographs[2]:
                raise ValueError(f"the photographs of object {number} are damaged")
            image = decode(photographs[0], bytes(photographs[1]), channels)
            lay_out(canvas, second, image)
            first &= ~second
        if first.any() and suffix == ".pam.zst":
            known = self.content(dictionary) if dictionary else b""
            size = np.count_nonzero(first) * TILE * TILE * channels
            tiles = np.frombuffer(zstd(self.payload(number), known)[-size:], np.uint8)
            tiles = tiles.reshape(-1, TILE, TILE, channels)
            for (row, column), tile in zip(np.argwhere(first), tiles, strict=True):
                shown = canvas[area(row, column)]
                shown[:] = tile[: shown.shape[0], : shown.shape[1]]
        elif first.any():
            lay_out(canvas, first, decode(suffix, self.payload(number), channels))
        # Some tiles are coded as differences from other pixels, modulo 256 or 65536.
        prediction = self.map(number, "prediction")
        for row, column in np.argwhere(mine & (prediction != 0)):
            source = header["sources"][prediction[row, column] - 1]
            canvas[area(row, column)] += self.pixels(source, row, column, canvas)
        return canvas

    def content(self, number):
        """The content of a dictionary: a PAM picture. Raises ValueError for damage."""
        content = zstd(self.payload(number))
        if hashlib.sha256(content).digest() != self.record(number)[1]["sha256"]:
            raise ValueError(f"dictionary {number} is damaged")
        return content

    def pixels(self, source, row, column, canvas):
        """The pixels of a source at a tile: a colour, or own pixels of another object."""
        if isinstance(source, dict):
            return np.array(source["fill"], canvas.dtype)
        number, dx, dy = source if isinstance(source, list) else (source, 0, 0)
        height, width = canvas[area(row, column)].shape[:2]
        top, left = row * TILE + dy, column * TILE + dx
        return self.own(number)[top : top + height, left : left + width]

    def frame(self, number):
        """The pixels of a picture: shape (height, width, channels), dtype uint8 or uint16."""
        canvas, tiles = self.own(number).copy(), self.map(number, "tiles")
        sources = self.record(number)[0]["sources"]
        for row, column in np.argwhere(tiles != 0):
            source = sources[tiles[row, column] - 1]
            canvas[area(row, column)] = self.pixels(source, row, column, canvas)
        return canvas

    def write(self, number, file, sha256=None):
        """Write the file of an object. Returns whether it is exactly the file that was stored.

        `sha256` is the hash in the index, if there is one. Raises ValueError if no pack has the
        object, and any exception for damage.
        """
        if number not in self.entries:
            raise ValueError(f"object {number} is in no pack")
        header, arrays = self.record(number)
        if header["kind"] == "raw" and self.entries[number][0] == ".sums":
            return self.write_kept(number, file, header["size"])
        if header["kind"] == "raw":
            data = self.payload(number)
        elif header["kind"] == "dictionary":
            data = self.content(number)
        elif header["kind"] == "jpeg":
            data = jpeg(self.payload(number))
        else:
            data = png(self.frame(number), header["png"], arrays)
        file.write(data)
        return hashlib.sha256(data).digest() == arrays["sha256"] == (sha256 or arrays["sha256"])

    def write_kept(self, number, file, size):
        """Write a large file of `size` bytes from raw/. Returns whether it is exact.

        Its payload has the SHA-256 of each MiB that is not all zeros.
        """
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


def lay_out(canvas, mask, image):
    """Lay the tiles of an image out: the frame without tile rows and columns with none in `mask`.

    `mask` has shape (tile rows, tile columns).
    """
    for i, row in enumerate(np.flatnonzero(mask.any(axis=1))):
        for j, column in enumerate(np.flatnonzero(mask.any(axis=0))):
            if mask[row, column]:
                canvas[area(row, column)] = image[area(i, j)]


def zstd(data, dictionary=b""):
    """The content of a zstd file. Raises ValueError if nothing is installed that reads it."""
    try:
        import zstandard
    except ImportError:
        pass
    else:
        kind = zstandard.DICT_TYPE_RAWCONTENT
        known = zstandard.ZstdCompressionDict(dictionary, dict_type=kind) if dictionary else None
        return zstandard.ZstdDecompressor(dict_data=known).decompress(data)
    try:
        from compression import zstd as library
    except ImportError:
        pass
    else:
        known = library.ZstdDict(dictionary, is_raw=True) if dictionary else None
        return library.decompress(data, zstd_dict=known)
    if shutil.which("zstd") is None:
        raise ValueError("this picture needs zstandard or zstd, see above")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "dictionary")
        path.write_bytes(dictionary)
        command = ["zstd", "-d", "-c", "-q", *(["-D", path] if dictionary else [])]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def known_text(header, form):
    """The dictionary for a record of a form that is written against the record with this header."""
    if header is None:
        return DICTIONARY
    kept = {key: value for key, value in header.items() if form == 1 or key != "mtime"}
    kept["arrays"] = [each for each in header["arrays"] if form == 1 or each[0] != "sha256"]
    return json.dumps(kept, separators=(",", ":")).encode()


def area(row, column):
    """The slices of the pixels of a tile. The end of the array cuts off tiles at its edges."""
    return np.s_[row * TILE : row * TILE + TILE, column * TILE : column * TILE + TILE]


def decode(suffix, data, channels):
    """Decode an image file to an array of shape (height, width, channels).

    `suffix` is the format: ``.webp`` or ``.jxl``.
    """
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
    """Decode a .jxl if imagecodecs is not installed. The result is that of :func:`decode`."""
    import jxlpy

    decoder = jxlpy.JXLPyDecoder(data, num_threads=1)
    info = decoder.get_info()
    dtype = np.uint8 if info["bits_per_sample"] == 8 else np.uint16
    return np.frombuffer(decoder.get_frame(), dtype).reshape(info["ysize"], info["xsize"], channels)


def jpeg(data):
    """The JPEG file from which a JPEG XL file was made.

    Raises ValueError if neither imagecodecs nor djxl is installed.
    """
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
    """The PNG file of a frame.

    Keys of `recipe`: c: colour type; d: bits of a sample; o: whether alpha was left out; z: zlib
    header; p: parameters of deflate; i: sizes of the chunks of a stream in bytes, or one size for
    all; a: whether the picture is interlaced; s: width and height of an animation; f: for each
    picture but the first z, p, i and the lengths of its parts of three arrays.
    """
    if recipe["o"]:
        alpha = np.full((*frame.shape[:2], 1), np.iinfo(frame.dtype).max, frame.dtype)
        frame = np.concatenate((frame, alpha), axis=2)
    further, kinds, at = recipe.get("f", []), arrays["filters"], 0
    size = recipe.get("s", [frame.shape[1], frame.shape[0]])
    fields = *size, recipe["d"], recipe["c"], 0, 0, recipe.get("a", 0)
    out = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", struct.pack(">2I5B", *fields))]
    streams = [[recipe[key] for key in "zpi"], *(one[:3] for one in further)]
    befores, behinds, records = (
        parts(arrays.get(name, b""), [one[3 + number] for one in further])
        for number, name in enumerate(("head", "idat_tail", "corrections"))
    )
    shown = pictures(frame, size, befores[1:], arrays.get("repeated")) if further else [frame]
    for number, (picture, (header, params, split)) in enumerate(zip(shown, streams, strict=True)):
        raw = b""
        for one in passes(picture) if recipe.get("a") else [picture]:
            raw += scanlines(one, recipe["d"], kinds[at : at + len(one)])
            at += len(one)
        body = corrected(records[number], raw) if params == [2] else zlibs(raw, *params)
        stream = header.to_bytes(2, "big") + body + zlib.adler32(raw).to_bytes(4, "big")
        stream += behinds[number]
        sizes = split
        if isinstance(split, int):  # all chunks but the last have this size; 0: one chunk
            sizes = [split or len(stream)] * -(-len(stream) // (split or len(stream)))
        out.append(befores[number])
        start, sequence = 0, int.from_bytes(befores[number][-30:-26], "big")
        for size in sizes:
            content = stream[start : start + size]
            if number:  # each fdAT begins with its sequence number; they follow that of the fcTL
                sequence = sequence + 1 & 0xFFFFFFFF
                content = sequence.to_bytes(4, "big") + content
            out.append(chunk(b"fdAT" if number else b"IDAT", content))
            start += size
    return b"".join(out) + arrays.get("tail", b"")


def parts(joined, lengths):
    """Cut an array into a first part, which gets what is left, and parts of these lengths."""
    ends = np.cumsum([len(joined) - sum(lengths), *lengths])
    return [joined[end - size : end] for end, size in zip(ends, [ends[0], *lengths], strict=True)]


def pictures(sheet, size, befores, repeated):
    """Yield the pictures of an animation of `size`, (width, height).

    `sheet` has the tiles of all pictures, in rows. Only tiles whose bit in `repeated` is set are
    not there: they show what the pictures before show at their place. `befores`: for each picture
    but the first the bytes before its data. They end with a chunk that says its size and its place.
    """
    rows, columns = len(sheet) // TILE, sheet.shape[1] // TILE
    tiles = (sheet[area(row, column)] for row in range(rows) for column in range(columns))
    canvas = np.zeros((size[1], size[0], sheet.shape[2]), sheet.dtype)
    places = [struct.unpack(">4I", before[-26:-10]) for before in befores]
    stored = np.frombuffer(repeated or bytes(rows * columns), np.uint8)
    bits = iter(np.unpackbits(stored))
    for number, (wide, high, left, top) in enumerate([(*size, 0, 0), *places]):
        shown = canvas[top : top + high, left : left + wide]
        for row in range(-(-high // TILE)):
            for column in range(-(-wide // TILE)):
                if not (number and next(bits)):
                    part = shown[area(row, column)]
                    part[:] = next(tiles)[: part.shape[0], : part.shape[1]]
        yield shown


def passes(picture):
    """The parts of an interlaced picture that have pixels (PNG specification, section 8.1)."""
    found = [picture[0::8, 0::8], picture[0::8, 4::8], picture[4::8, 0::4], picture[0::4, 2::4]]
    found += [picture[2::4, 0::2], picture[0::2, 1::2], picture[1::2]]
    return [one for one in found if one.size]


def scanlines(picture, depth, kinds):
    """The filtered rows of a picture whose samples have `depth` bits. `kinds`: their filters."""
    rows = picture.reshape(len(picture), -1)
    if depth == 16:
        rows = rows.astype(">u2").view(np.uint8)
    elif depth < 8:
        bits = np.unpackbits(rows[:, :, np.newaxis], axis=2)[:, :, 8 - depth :]
        rows = np.packbits(bits.reshape(len(picture), -1), axis=1)
    return filtered(rows, kinds, max(1, picture.shape[2] * depth // 8))


def zlibs(raw, level, strategy, memory, window):
    """The deflate stream that classic zlib makes with these parameters."""
    coder = zlib.compressobj(level, zlib.DEFLATED, -window, memory, strategy)
    pieces = [coder.compress(raw[i : i + 65536]) for i in range(0, len(raw), 65536)]
    return b"".join(pieces) + coder.flush()


def corrected(record, raw):
    """The deflate stream of another encoder, from its correction record (see below in this file).

    Raises ValueError if the decoder notices damage in the record. Else damage gives a wrong stream.
    """
    try:
        return Stream(record, raw).read()
    except (IndexError, KeyError) as error:
        raise ValueError("damaged correction record") from error


def filtered(rows, kinds, pixel):
    """The filtered rows, each behind the number of its filter (PNG specification, part 9).

    `kinds` has the filter of each row; `pixel` is the bytes of a pixel, at least 1.
    """
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
    """The bytes of a PNG chunk."""
    checksum = zlib.crc32(kind + content)
    return len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")


class Folder:
    """DEST, and the counts of exact files (`good`) and of complaints (`bad`).

    Links are made last, so none is followed.
    """

    def __init__(self, path):
        self.path = path
        self.good = 0
        self.bad = 0
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            sys.exit(f"{path} is not empty")

    def inside(self, name):
        """A path below DEST for `name`, also for a damaged or hostile name."""
        parts = os.fsdecode(name.replace(b"\0", b"_")).split("/")
        return self.path.joinpath(*[p for p in parts if p not in ("", ".", "..")] or ["unnamed"])

    def complain(self, name, reason):
        """Count and report a file that is missing or not exact."""
        self.bad += 1
        tell(f"DAMAGED {name}: {reason}")

    def give(self, path, write):
        """Create a file and let `write(file)` fill it. Returns whether the file is exact.

        `write` returns whether it wrote the exact bytes. Its exceptions are reported, not raised.
        """
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
    """Set times in ns since 1970. Reports an error: a filesystem may not hold such a time."""
    try:
        os.utime(path, ns=(atime, mtime), follow_symlinks=False)
    except (OSError, OverflowError) as error:
        tell(f"{path}: {error}")


def from_packs(packs, folder):
    """Write every object under the path that it had when it was encoded.

    Deleted files come back, too.
    """
    for line in packs.damage:
        folder.complain("pack", line)
    seen = set()
    for number in sorted(packs.entries, reverse=True):  # the newest object gets the name
        try:
            header, arrays = packs.record(number)
            if header["kind"] == "dictionary":
                continue
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
    """The rows of the index: (inodes, names, places of objects). Raises sqlite3.Error.

    The index is an SQLite file. Each page ends with 8 bytes of checksum, which are ignored here.
    This function reads a copy: SQLite would put files beside the original. The copy includes the
    -wal file, which has the newest rows of a store that was not closed.
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
    """Write the whole tree: names, modes, times, links, and files that are not encoded yet."""
    inodes, names, places = index
    for line in packs.damage:
        tell(line)  # a file that needs this place is reported when it is rebuilt
    # The index has the places of entries. No checksum covers the id in a header, so it is not used.
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
                if ino not in folders:  # else folders of a damaged index form a cycle
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
    for ino in reversed(folders):  # the deepest first: a mode may forbid access
        mode, atime, mtime = inodes[ino][:3]
        dated(folders[ino], atime, mtime)
        folders[ino].chmod(mode & 0o777)


def copy(source, file):
    """Copy a file that is not encoded yet. Returns True: staged bytes have no hash."""
    with source.open("rb") as staged:
        shutil.copyfileobj(staged, file)
    return True


# ---- Correction records: deflate streams of encoders other than classic zlib -----------------
#
# docs/deflate.md of fsmount describes them. The C kernel of fsmount makes and reads them. This is a
# second decoder, written to be read. It is a reference, and a check on the first decoder.

EVEN, ONE_BITS, SLOWEST, SPARED = 1 << 21, 22, 255, 4
LEAST, MOST = 1 << ONE_BITS - 16, (1 << ONE_BITS) - (1 << ONE_BITS - 16)
RATES = [(2 << 16) // (2 * seen + 3) for seen in range(SLOWEST + 1)]

STORED, FIXED, DYNAMIC = 0, 1, 2
MEDIUM = 1
LONGEST, RESERVE = 258, 262
LITERALS, DISTANCES, RUNS, END = 286, 30, 19, 256
RUN_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
RUN_EXTRA = {16: 2, 17: 3, 18: 7}


def steps(first: int, extras: Sequence[int]) -> tuple[list[int], list[int]]:
    """The first value of each code and its extra bits (RFC 1951 section 3.2.5)."""
    firsts = []
    for extra in extras:
        firsts.append(first)
        first += 1 << extra
    return firsts, list(extras)


LENGTH_FIRST, LENGTH_EXTRA = steps(3, [0] * 8 + [i // 4 for i in range(4, 24)])
LENGTH_FIRST, LENGTH_EXTRA = [*LENGTH_FIRST, 258], [*LENGTH_EXTRA, 0]
DISTANCE_FIRST, DISTANCE_EXTRA = steps(1, [0, 0, *(i // 2 for i in range(28))])
LENGTH_CODE = [max(c for c in range(29) if LENGTH_FIRST[c] <= n) for n in range(3, 259)]

Chance = list[int]
Match = tuple[int, int]
"""Length in bytes (0: no match) and distance in bytes."""


def chances(*shape: int) -> list[Chance]:
    """A flat list of new contexts, as many as the product of `shape`.

    A context is [probability of a 1 in units of 2^-22, number of bits seen].
    """
    count = 1
    for size in shape:
        count *= size
    return [[EVEN, 0] for _ in range(count)]


class Numbers:
    """Contexts of a number: for its count of bits, and for the two bits behind its first one."""

    def __init__(self) -> None:
        self.length, self.first = chances(32), chances(32, 4)


class Coder:
    """An adaptive binary range decoder. Raises ValueError if it reads far behind the record."""

    def __init__(self, record: bytes) -> None:
        self.record, self.at = record, 0
        self.range, self.code = 0xFFFFFFFF, 0
        for _ in range(5):
            self.code = (self.code << 8 | self._byte()) & 0xFFFFFFFF

    def _byte(self) -> int:
        self.at += 1
        if self.at > len(self.record):
            if self.at > len(self.record) + SPARED:
                raise ValueError("damaged correction record: it ends too early")
            return 0
        return self.record[self.at - 1]

    def _renew(self) -> None:
        while self.range < 1 << 24:
            self.range = self.range << 8 & 0xFFFFFFFF
            self.code = (self.code << 8 | self._byte()) & 0xFFFFFFFF

    def bit(self, chance: Chance) -> int:
        """Decode one bit, and adapt its context."""
        one, seen = chance
        bound = self.range * min(max(one, LEAST), MOST) >> ONE_BITS
        if self.code < bound:
            self.range = bound
            chance[0] = one + (((1 << ONE_BITS) - one) * RATES[seen] >> 16)
            bit = 1
        else:
            self.code -= bound
            self.range -= bound
            chance[0] = one - (one * RATES[seen] >> 16)
            bit = 0
        if seen < SLOWEST:
            chance[1] = seen + 1
        if self.range < 1 << 24:
            self._renew()
        return bit

    def flat(self, bits: int) -> int:
        """Decode a number of `bits` bits without a context."""
        value = 0
        for _ in range(bits):
            self.range >>= 1
            bit = self.code >= self.range
            self.code -= self.range if bit else 0
            value = value << 1 | bit
            self._renew()
        return value

    def tree(self, chances: Sequence[Chance], bits: int) -> int:
        """Decode a number of `bits` bits, highest first. Each prefix has a context."""
        node = 1
        for _ in range(bits):
            node = node << 1 | self.bit(chances[node])
        return node - (1 << bits)

    def number(self, chances: Numbers) -> int:
        """Decode a number from 0 to 2^32 - 2."""
        bits, value = 0, 1
        while bits < 31 and self.bit(chances.length[bits]):
            bits += 1
        for _ in range(min(bits, 2)):
            value = value << 1 | self.bit(chances.first[4 * bits + value])
        rest = max(bits - 2, 0)
        return (value << rest | self.flat(rest)) - 1


class Model:
    """The numbers at the front of a record (`fsmount/codec/kernel/deflate/model.h`).

    They describe an encoder. Raises ValueError for values that no encoder has.
    """

    def __init__(self, coder: Coder) -> None:
        chances = Numbers()
        numbers = [coder.number(chances) & 0xFFFF for _ in range(17)]
        self.kind, self.hashed, self.hash_bits, self.least = numbers[:4]
        self.chain, self.good, self.good_chain, self.group = numbers[4:8]
        self.lazy, self.nice, self.far, self.reach = numbers[8:12]
        self.insert, self.insert_end, self.unseen, self.heap, self.joined = numbers[12:]
        if not (
            self.kind <= MEDIUM
            and self.hashed in (3, 4)
            and 8 <= self.hash_bits <= 24
            and 3 <= self.least <= LONGEST
            and 1 <= self.good_chain <= self.chain <= 4096
            and 1 <= self.group <= 8
            and self.reach <= 32768
            and self.insert_end <= 2
            and self.unseen <= 2
            and self.heap <= 1
            and self.joined <= 1
        ):
            raise ValueError("damaged correction record: no such model")

    def hash(self, at: bytes) -> int:
        """The hash of the first bytes of `at`."""
        mask = (1 << self.hash_bits) - 1
        if self.hashed == 4:
            return (int.from_bytes(at[:4], "little") * 2654435761 & 0xFFFFFFFF) >> 16 & mask
        shift = (self.hash_bits + 2) // 3
        return (at[0] << 2 * shift ^ at[1] << shift ^ at[2]) & mask


class Guesser:
    """Guesses the next step of an encoder that has the numbers of a model."""

    def __init__(self, model: Model, raw: bytes) -> None:
        self.model, self.raw = model, raw
        self.heads: dict[int, int] = {}
        self.links: dict[int, int] = {}
        self.filled = 0
        self.ahead: tuple[int, Match] | None = None

    def guess(self, position: int) -> tuple[Match, bool]:
        """The match at `position`, and whether a better match behind it makes it a literal."""
        return (self._medium if self.model.kind == MEDIUM else self._by_lazy)(position)

    def learn(self, position: int, length: int) -> None:
        """Note that the encoder took `length` bytes at once at `position` (1: a literal)."""
        self._enter(position, length)
        if self.ahead and self.ahead[0] != position + length:
            self.ahead = None

    def candidates(self, position: int) -> list[int]:
        """Earlier positions with the same hash that the encoder can see, newest first."""
        found: list[int] = []
        before = self.links.get(position)
        while before is not None and position - before <= self.model.reach:
            if self.model.unseen and before & (0xFFFF if self.model.unseen == 2 else -1) == 0:
                break
            found.append(before)
            if len(found) == 1 << 15:
                break
            before = self.links.get(before)
        return found

    def equal(self, a: int, b: int, most: int) -> int:
        """The number of equal bytes from two positions on, at most `most`."""
        raw = self.raw
        x = int.from_bytes(raw[a : a + most], "little") ^ int.from_bytes(
            raw[b : b + most], "little"
        )
        return most if x == 0 else (x & -x).bit_length() - 1 >> 3

    def _fill(self, end: int) -> None:
        end = min(end, len(self.raw) - self.model.hashed + 1)
        for position in range(self.filled, end):
            value = self.model.hash(self.raw[position : position + 4])
            before = self.heads.get(value)
            if before is not None:
                self.links[position] = before
            self.heads[value] = position
        self.filled = max(self.filled, end)

    def _enter(self, position: int, length: int) -> None:
        model = self.model
        self._fill(position + 1)
        if length > model.insert and length > model.insert_end:
            self.filled = max(self.filled, position + length - model.insert_end)

    def _search(self, position: int, held: int) -> Match:
        model, raw = self.model, self.raw
        left = len(raw) - position
        if left < model.hashed:
            return 0, 0
        self._fill(position + 1)
        most, length = min(left, LONGEST), max(held, 2)
        if length >= most:
            return 0, 0
        budget = model.good_chain if held >= model.good else model.chain
        spared, found, distance = 0, 0, 0
        at, start, end = position, raw[position : position + 2], raw[position + length - 1 :][:2]
        while True:
            if spared == 0:
                if budget == 0:
                    break
                budget -= 1
            spared = spared - 1 if spared else model.group - 1
            before = self.links.get(at)
            if before is None or position - before > model.reach:
                break
            if model.unseen and before & (0xFFFF if model.unseen == 2 else -1) == 0:
                break
            at = before
            if raw[at + length - 1 : at + length + 1] != end:
                continue
            spared = 0
            if raw[at : at + 2] != start:
                continue
            equal = self.equal(position, at, most)
            if equal > length:
                length = found = equal
                distance = position - at
                end = raw[position + length - 1 : position + length + 1]
                if equal >= min(model.nice, most):
                    break
        if found < model.least or (found == 3 and distance > model.far):
            return 0, distance
        return found, distance

    def _look(self, position: int) -> Match:
        if self.ahead and self.ahead[0] == position:
            return self.ahead[1]
        return self._search(position, 0)

    def _by_lazy(self, position: int) -> tuple[Match, bool]:
        here = self._look(position)
        self.ahead = None
        if here[0] and here[0] < self.model.lazy and position + 1 < len(self.raw):
            behind = self._search(position + 1, here[0])
            if behind[0] > here[0]:
                self.ahead = position + 1, behind
                return (0, 0), True
        return here, False

    def _medium(self, position: int) -> tuple[Match, bool]:
        here = self._look(position)
        deferred = False
        self.ahead = None
        while True:
            start = position + max(here[0], 1)
            if start >= len(self.raw) or len(self.raw) - position <= RESERVE:
                return here, deferred
            self._enter(position, start - position)
            length, distance = self._search(start, 0)
            moved = self._moved_back(position, start, (length, distance)) if here[0] else 0
            if moved and here[0] - moved <= 1:
                length += moved
                if here[0] == moved:
                    here = length, distance
                    continue
                here, deferred, start = (0, 0), True, position + 1
            self.ahead = start, (length, distance)
            return here, deferred

    def _moved_back(self, position: int, start: int, match: Match) -> int:
        length, distance = match
        moved, limit, raw = 0, max(start - self.model.reach, 0), self.raw
        while (
            length
            and moved < start - position
            and start - moved > limit
            and length + moved < 256
            and start - moved - distance > 1
            and raw[start - moved - 1] == raw[start - moved - 1 - distance]
        ):
            moved += 1
        return moved


class Bits:
    """Collects bits, lowest first. `bytes` holds the complete bytes."""

    def __init__(self) -> None:
        self.bytes, self.hold, self.count = bytearray(), 0, 0

    def put(self, value: int, bits: int) -> None:
        """Append the lowest `bits` bits of `value`, which has no higher ones."""
        self.hold |= value << self.count
        self.count += bits
        whole = self.count >> 3
        self.bytes += (self.hold & (1 << 8 * whole) - 1).to_bytes(whole, "little")
        self.hold >>= 8 * whole
        self.count &= 7


def canonical_codes(lengths: Sequence[int]) -> list[int]:
    """The canonical codes of these lengths, with reversed bits (RFC 1951 section 3.2.2)."""
    code, codes = 0, [0] * len(lengths)
    for bits in range(1, 16):
        for symbol, length in enumerate(lengths):
            if length == bits:
                codes[symbol] = int(f"{code & (1 << bits) - 1:0{bits}b}"[::-1], 2)
                code += 1
        code <<= 1
    return codes


def sorted_lengths(frequency: Sequence[int], longest: int) -> list[int]:
    """Code lengths by two queues. The rarest symbols get the longest codes.

    Lengths above `longest` bits are limited as miniz does it.
    """
    lengths = [0] * len(frequency)
    symbols = sorted((n, symbol) for symbol, n in enumerate(frequency) if n)
    if not symbols:
        return lengths
    weights = [n for n, _ in symbols]
    leaf, pair, above = 0, len(symbols), {}
    for top in range(len(symbols), 2 * len(symbols) - 1):
        total = 0
        for _ in range(2):
            is_leaf = leaf < len(symbols) and (pair == top or weights[leaf] <= weights[pair])
            taken = leaf if is_leaf else pair
            leaf, pair = leaf + is_leaf, pair + (not is_leaf)
            above[taken] = top
            total += weights[taken]
        weights.append(total)
    depths = [0] * len(weights)
    depths[-1] = int(len(symbols) == 1)
    for node in reversed(range(len(weights) - 1)):
        depths[node] = depths[above[node]] + 1
    per_length = [0] * (longest + 2)
    for depth in depths[: len(symbols)]:
        per_length[min(depth, longest)] += 1
    total = sum(n << longest - bits for bits, n in enumerate(per_length[: longest + 1]) if bits)
    while total > 1 << longest and len(symbols) > 1:
        per_length[longest] -= 1
        bits = longest - 1
        while bits and not per_length[bits]:
            bits -= 1
        if not bits:
            break
        per_length[bits] -= 1
        per_length[bits + 1] += 2
        total -= 1
    rarest = iter(symbols)
    for bits in range(longest, 0, -1):
        for _ in range(per_length[bits]):
            lengths[next(rarest)[1]] = bits
    return lengths


def heap_lengths(frequency: Sequence[int], longest: int) -> list[int]:
    """Code lengths of at most `longest` bits by the heap of zlib.

    It orders by frequency, then by depth; among equals the last one in comes out first.
    """
    count = len(frequency)
    heap = [(0, 0, 0)] + [(n, 0, symbol) for symbol, n in enumerate(frequency) if n]
    last = max((symbol for _, _, symbol in heap[1:]), default=-1)
    while len(heap) < 3:
        forced, last = (last + 1, last + 1) if last < 2 else (0, last)
        heap.append((1, 0, forced))

    def sift(hole: int, item: tuple[int, int, int]) -> None:
        while (child := 2 * hole) < len(heap):
            if child + 1 < len(heap) and heap[child + 1][:2] <= heap[child][:2]:
                child += 1
            if item[:2] <= heap[child][:2]:
                break
            heap[hole] = heap[child]
            hole = child
        heap[hole] = item

    for at in range((len(heap) - 1) // 2, 0, -1):
        sift(at, heap[at])
    order: list[int] = []
    above: dict[int, int] = {}
    node = count
    while len(heap) > 2:
        first, item = heap[1], heap.pop()
        sift(1, item)
        second = heap[1]
        order += first[2], second[2]
        above[first[2]] = above[second[2]] = node
        sift(1, (first[0] + second[0], max(first[1], second[1]) + 1, node))
        node += 1
    depths, lengths, per_length, overflow = {node - 1: 0}, [0] * count, [0] * (longest + 1), 0
    for child in reversed(order):
        bits = depths[above[child]] + 1
        overflow += bits > longest
        depths[child] = bits = min(bits, longest)
        if child < count:
            lengths[child] = bits
            per_length[bits] += 1
    if overflow:
        while overflow > 0:
            bits = longest - 1
            while not per_length[bits]:
                bits -= 1
            per_length[bits] -= 1
            per_length[bits + 1] += 2
            per_length[longest] -= 1
            overflow -= 2
        symbols = (one for one in order if one < count)
        for bits in range(longest, 0, -1):
            for _ in range(per_length[bits]):
                lengths[next(symbols)] = bits
    return lengths


class Headers:
    """The headers of dynamic blocks (RFC 1951 section 3.2.7).

    The record holds only the parts that differ from the expected header.
    """

    def __init__(self, coder: Coder, model: Model) -> None:
        self.coder, self.model = coder, model
        self.lengths_same, self.op_same, self.run_same, self.run_count_same = chances(4)
        self.counts_same = chances(2)
        self.lengths = [chances(16) for _ in range(16)]
        self.ops = chances(4)
        self.op_lengths = [chances(256) for _ in range(4)]
        self.run = [chances(8) for _ in range(8)]

    def write(
        self, literals: Sequence[int], distances: Sequence[int], out: Bits
    ) -> tuple[list[int], list[int]]:
        """Write the header of a block with these frequencies. Returns the lengths of its two codes.

        Raises ValueError for a damaged record.
        """
        coder = self.coder
        lengths = self._expected(literals, 15) + self._expected(distances, 15)
        if not coder.bit(self.lengths_same):
            lengths = [coder.tree(self.lengths[length], 4) for length in lengths]
        ours, far = lengths[:LITERALS], lengths[LITERALS:]
        literal_count = self._count(self.counts_same[0], ours, 257, LITERALS, 5)
        distance_count = self._count(self.counts_same[1], far, 1, DISTANCES, 5)
        joined = ours[:literal_count] + far[:distance_count]
        ops = self._ops(joined, literal_count)
        frequency = [0] * RUNS
        for symbol, _ in ops:
            frequency[symbol] += 1
        run = self._expected(frequency, 7)
        if not coder.bit(self.run_same):
            run = [coder.tree(self.run[length], 3) for length in run]
        ordered = [run[symbol] for symbol in RUN_ORDER]
        run_count = self._count(self.run_count_same, ordered, 4, RUNS, 4)
        out.put(literal_count - 257, 5)
        out.put(distance_count - 1, 5)
        out.put(run_count - 4, 4)
        for length in ordered[:run_count]:
            out.put(length, 3)
        codes = canonical_codes(run)
        for symbol, length in ops:
            out.put(codes[symbol], run[symbol])
            if symbol > 15:
                out.put(length - (11 if symbol == 18 else 3), RUN_EXTRA[symbol])
        return joined[:literal_count], far[:distance_count]

    def _expected(self, frequency: Sequence[int], longest: int) -> list[int]:
        if not self.model.heap:
            return sorted_lengths(frequency, longest)
        shift = 0
        while sum(frequency) >> shift > 0xFFFF - LITERALS:
            shift += 1
        return heap_lengths([(n >> shift) + bool(n and shift) for n in frequency], longest)

    def _count(
        self, chance: Chance, lengths: Sequence[int], least: int, most: int, bits: int
    ) -> int:
        needed = most
        while needed > least and lengths[needed - 1] == 0:
            needed -= 1
        if self.coder.bit(chance):
            return needed
        return min(self.coder.flat(bits) + least, most)

    def _ops(self, lengths: Sequence[int], border: int) -> list[tuple[int, int]]:
        """Pairs of a symbol of the run code and the number of lengths that it stands for."""
        coder, ops, at = self.coder, [], 0
        while at < len(lengths):
            symbol, length = self._longest_run(lengths, at, border)
            if not coder.bit(self.op_same):
                kind = coder.tree(self.ops, 2)
                symbol, length = lengths[at], 1
                if kind:
                    symbol, length = kind + 15, coder.tree(self.op_lengths[kind], 8)
                    least, most = ((0, 0), (3, 6), (3, 10), (11, 138))[kind]
                    if not least <= length <= min(most, len(lengths) - at) or at + kind == 1:
                        raise ValueError("damaged correction record: code lengths")
            ops.append((symbol, length))
            at += length
        return ops

    def _longest_run(self, lengths: Sequence[int], at: int, border: int) -> tuple[int, int]:
        joined = bool(self.model.joined)
        start = 0 if joined or at < border else border
        end = len(lengths) if joined or at >= border else border
        length = lengths[at]
        if length and (at == start or lengths[at - 1] != length):
            return length, 1
        count, most = 1, 6 if length else 138
        while count < most and at + count < end and lengths[at + count] == length:
            count += 1
        if count < 3:
            return length, 1
        return (16 if length else 17 if count < 11 else 18), count


class Stream:
    """Reads one correction record for the inflated data `raw`."""

    def __init__(self, record: bytes, raw: bytes) -> None:
        self.coder, self.raw = Coder(record), raw
        self.model = Model(self.coder)
        self.guesser = Guesser(self.model, raw)
        self.headers = Headers(self.coder, self.model)
        self.out = Bits()
        self.position, self.past, self.before, self.kind = 0, 7, 0, DYNAMIC
        # Contexts of tokens: by the class of the guess, and by the hits of the last three guesses.
        self.hit, self.literal = chances(10, 8), chances(10, 8)
        self.same_distance, self.same_length = chances(10), chances(10)
        self.longer, self.last, self.full, self.padding_bits = chances(4)
        self.off, self.hops, self.symbols, self.stored = (Numbers() for _ in range(4))
        self.lengths, self.distances, self.kinds = chances(256), chances(32), chances(4, 4)

    def read(self) -> bytes:
        """Return the deflate stream. Raises ValueError, IndexError, KeyError for damage."""
        blocks, last = 1024 + len(self.raw) // 16, False
        while not last:
            if not blocks:
                raise ValueError("damaged correction record: too many blocks")
            blocks -= 1
            last = self._block()
        self._padding()
        if self.position != len(self.raw):
            raise ValueError("damaged correction record: another length")
        return bytes(self.out.bytes)

    def _block(self) -> bool:
        coder, start = self.coder, self.position
        last = bool(coder.bit(self.last))
        self.kind = coder.tree(self.kinds[4 * self.kind : 4 * self.kind + 4], 2)
        self.out.put(last | self.kind << 1, 3)
        if self.kind == STORED:
            self._stored()
            return last
        if self.kind > DYNAMIC:
            raise ValueError("damaged correction record: no such block")
        tokens = self._tokens(last)
        if self.kind == FIXED:
            lengths = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
            far = [5] * DISTANCES
        else:
            lengths, far = self.headers.write(*self._frequencies(start, tokens), self.out)
        self._write(start, tokens, lengths, far)
        return last

    def _padding(self) -> None:
        bits = -self.out.count & 7
        self.out.put(self.coder.flat(bits) if self.coder.bit(self.padding_bits) else 0, bits)

    def _stored(self) -> None:
        self._padding()
        length = self.coder.number(self.stored)
        content = self.raw[self.position : self.position + length]
        if length > 0xFFFF or len(content) < length:
            raise ValueError("damaged correction record: a stored block")
        self.out.put(length | (length ^ 0xFFFF) << 16, 32)
        self.out.bytes += content
        for _ in range(length):
            self.guesser.learn(self.position, 1)
            self.position += 1

    def _tokens(self, last: bool) -> list[Match]:
        tokens: list[Match] = []
        count = 0
        if not last:
            is_full = self.coder.bit(self.full)
            count = self.before = self.before if is_full else self.coder.number(self.symbols)
        while self.position < len(self.raw) if last else len(tokens) < count:
            if self.position >= len(self.raw):
                raise ValueError("damaged correction record: too many symbols")
            tokens.append(self._token())
        return tokens

    def _token(self) -> Match:
        """The next token: (0, 0) for a literal."""
        guessed, deferred = self.guesser.guess(self.position)
        length = guessed[0]
        kind = int(deferred)
        if length:
            kind = 2 + (length - 3 if length < 6 else 3 if length < 9 else 4 if length < 17 else 5)
            kind += (length >= 65) + (length >= 258)
        hit = self.coder.bit(self.hit[8 * kind + self.past])
        token = guessed if length else (0, 0)
        if not hit:
            token = self._miss(guessed, kind)
            self._check(token)
        self.past = (self.past << 1 | hit) & 7
        self.guesser.learn(self.position, token[0] or 1)
        self.position += token[0] or 1
        return token

    def _check(self, token: Match) -> None:
        length, distance = token
        if not length and not distance:
            return
        most = min(LONGEST, len(self.raw) - self.position)
        if (
            not 3 <= length <= most
            or not 1 <= distance <= self.position
            or self.guesser.equal(self.position, self.position - distance, length) < length
        ):
            raise ValueError("damaged correction record: no such match")

    def _miss(self, guessed: Match, kind: int) -> Match:
        coder, length = self.coder, guessed[0]
        if length:
            if coder.bit(self.literal[8 * kind + self.past]):
                return 0, 0
            if coder.bit(self.same_distance[kind]):
                sign = 1 if coder.bit(self.longer) else -1
                length += sign * (coder.number(self.off) + 1)
                return length & 0x1FF, guessed[1]
        if not (length and coder.bit(self.same_length[kind])):
            length = coder.tree(self.lengths, 8) + 3
        return length, self._distance(length)

    def _distance(self, length: int) -> int:
        coder = self.coder
        wanted = coder.number(self.hops)
        if wanted:
            if len(self.raw) - self.position >= self.model.hashed:
                for candidate in self.guesser.candidates(self.position)[:1024]:
                    equal = self.guesser.equal(self.position, candidate, length)
                    wanted -= equal >= length
                    if not wanted:
                        return self.position - candidate
            return 0
        code = coder.tree(self.distances, 5)
        return DISTANCE_FIRST[code] + coder.flat(DISTANCE_EXTRA[code])

    def _frequencies(self, start: int, tokens: Sequence[Match]) -> tuple[list[int], list[int]]:
        literals, distances = [0] * LITERALS, [0] * DISTANCES
        literals[END] = 1
        for length, distance in tokens:
            if length:
                literals[257 + LENGTH_CODE[length - 3]] += 1
                distances[distance_code(distance)] += 1
            else:
                literals[self.raw[start]] += 1
            start += length or 1
        return literals, distances

    def _write(
        self, start: int, tokens: Sequence[Match], lengths: list[int], far: list[int]
    ) -> None:
        put = self.out.put
        codes, far_codes = canonical_codes(lengths), canonical_codes(far)
        for length, distance in tokens:
            if not length:
                put(codes[self.raw[start]], lengths[self.raw[start]])
                start += 1
                continue
            code = LENGTH_CODE[length - 3]
            put(codes[257 + code], lengths[257 + code])
            put(length - LENGTH_FIRST[code], LENGTH_EXTRA[code])
            code = distance_code(distance)
            put(far_codes[code], far[code])
            put(distance - DISTANCE_FIRST[code], DISTANCE_EXTRA[code])
            start += length
        put(codes[END], lengths[END])


def distance_code(distance: int) -> int:
    """The code of a distance in bytes (RFC 1951 section 3.2.5)."""
    if distance < 5:
        return distance - 1
    bit = (distance - 1).bit_length() - 1
    return 2 * bit + (distance - 1 >> bit - 1 & 1)


def tell_elsewhere(store):
    """Name the packs of a store that are at a URL only. What needs them is reported as damaged."""
    try:
        record = json.loads((store / "elsewhere.json").read_bytes())
        names = [f"{int(number):08d}.zip" for number in record["packs"]]
        away = [name for name in names if not (store / "packs" / name).exists()]
        if away:
            tell(f"{record['url']} alone has {', '.join(away)}. To have all files, bring them back")
    except (OSError, ValueError, KeyError, TypeError) as error:
        tell(f"elsewhere.json says which packs are elsewhere, and cannot be read: {error}")


def main():
    """Run the script. Exits with 1 if a file is damaged or not exact, or for wrong arguments."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        sys.exit(0)
    if len(sys.argv) != 3:
        sys.exit("usage: python3 unpack.py STORE_OR_PACKS_FOLDER DEST (--help says more)")
    if MISSING:
        sys.exit(
            f"{MISSING}. This script needs numpy and Pillow: pip install numpy pillow,"
            " or apt-get install python3-numpy python3-pil"
        )
    sys.stdout.reconfigure(errors="backslashreplace")
    store, folder = Path(sys.argv[1]), Folder(Path(sys.argv[2]))
    config = store / "fsmount.json"
    version = json.loads(config.read_bytes())["format"] if config.exists() else 2
    if version not in (1, 2, 3):
        sys.exit(f"{config}: this script knows formats 1 to 3 only")
    if version == 3:
        tell_elsewhere(store)
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
