"""Packs: append-only ZIP files (PKWARE APPNOTE 6.3) of stored members.

An object is one to three members. An extra field (id 0x4D46, "FM") of the last one's local header
holds the record of the object. A record over 60,000 bytes is a member ``<id>.rec`` of its own, and
a second image a member ``<id>.photo.webp``, or ``.photo.jxl``, just before the last one.

A pack that is being written has no central directory. :meth:`Pack.write_directory` writes one
behind the entries at a clean end, and when the pack is sealed. The next append cuts it off again.
:func:`scan` finds every entry by its local header and needs no central directory.

Functions that take a path or a descriptor may wait for the disk.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fsmount.codec.delta.payload import Payload, Photographs
from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk, pread

SEAL_BYTES = 64 << 20
# The classic end record (no ZIP64) counts members in 16 bits.
MAX_MEMBERS = 60_000
# Bytes that _find_header() reads at a time.
_WINDOW_BYTES = 1 << 20
_EXTRA_ID = 0x4D46
# Kinds of extra fields. Data: the record; nothing, or a dictionary; which tiles are photographs;
# a dictionary and the record. A dictionary is an object id.
_INLINE, _BEFORE, _SECOND, _WITH_DICTIONARY = range(4)
_MAX_INLINE = 60_000
# Suffixes of members before the last one. The suffix of a raw file has one dot.
_RECORD, _PHOTO = b".rec", b".photo."
_DICTIONARY = struct.Struct("<I")
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
# Fixed fields: version needed 2.0, UTF-8 names, no compression, time 1980-01-01 00:00. The records
# have the real times.
_VERSION, _FLAGS, _STORED, _TIME, _DATE = 20, 0x0800, 0, 0, 0x0021


@dataclass(frozen=True, slots=True)
class Member:
    """One ZIP member, as the central directory lists it.

    crc : CRC-32 of the data.
    size : length of the data in bytes.
    offset : offset of the local header in the pack, in bytes.
    """

    name: bytes
    crc: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as a pack stores it.

    name : ``<id in 8 hex digits><suffix>``.
    record : packed record (:mod:`fsmount.codec.delta.record`).
    payload : data of the member: the file's own, or the first image.
    photographs : the second image, or None.
    dictionary : id of the object whose content is the dictionary of `payload`, 0 for none.
    """

    name: str
    record: bytes
    payload: bytes
    photographs: Photographs | None = None
    dictionary: int = 0

    @property
    def object_id(self) -> int:
        """Id of the object, from the name."""
        return int(self.name[:8], 16)

    @property
    def suffix(self) -> str:
        """Suffix of the name: of the first image, ``.nil`` or, for raw objects, the file's own."""
        return self.name[8:]

    @property
    def images(self) -> Payload:
        """The images of a picture's own tiles."""
        return Payload(self.suffix, self.payload, self.photographs)


def _member(name: bytes, extra: bytes, data: bytes) -> bytes:
    """The bytes of a member: local header, name, extra field, data."""
    header = _LOCAL.pack(
        _LOCAL_MAGIC,
        _VERSION,
        _FLAGS,
        _STORED,
        _TIME,
        _DATE,
        zlib.crc32(data),
        len(data),
        len(data),
        len(name),
        len(extra),
    )
    return header + name + extra + data


def _extra(kind: int, data: bytes) -> bytes:
    return struct.pack("<HHB", _EXTRA_ID, len(data) + 1, kind) + data


def build_entry(entry: Entry) -> bytes:
    """Return the bytes of an entry, one to three members."""
    name, parts = entry.name.encode(), []
    dictionary = _DICTIONARY.pack(entry.dictionary) if entry.dictionary else b""
    if len(entry.record) > _MAX_INLINE:
        parts.append(_member(name[:8] + _RECORD, b"", entry.record))
        extra = _extra(_BEFORE, dictionary)
    else:
        kind = _WITH_DICTIONARY if dictionary else _INLINE
        extra = _extra(kind, dictionary + entry.record)
    if entry.photographs is not None:
        second = entry.photographs
        second_name = name[:8] + _PHOTO + second.suffix[1:].encode()
        parts.append(_member(second_name, _extra(_SECOND, second.tiles), second.data))
    parts.append(_member(name, extra, entry.payload))
    return b"".join(parts)


def _parse_member(data: bytes, at: int) -> tuple[Member, bytes, bytes, int]:
    """Parse the member at offset `at`. Return (member, extra field, payload, end offset).

    Raises :class:`Damaged` if the header is invalid, the data is cut off or the CRC-32 is wrong.
    """
    if len(data) < at + _LOCAL.size:
        raise Damaged("entry", reason="cut off")
    fields = _LOCAL.unpack_from(data, at)
    magic, version, flags, method, time, date, crc, packed, size, name_size, extra_size = fields
    fixed = (magic, version, flags, method, time, date)
    if fixed != (_LOCAL_MAGIC, _VERSION, _FLAGS, _STORED, _TIME, _DATE) or packed != size:
        raise Damaged("entry", reason="not a local header")
    start = at + _LOCAL.size
    name = data[start : start + name_size]
    extra = data[start + name_size : start + name_size + extra_size]
    body = start + name_size + extra_size
    payload = data[body : body + size]
    if body > len(data) or len(payload) != size or zlib.crc32(payload) != crc:
        raise Damaged("entry", reason="checksum")
    return Member(name, crc, size, at), extra, payload, body + size


def parse_entry(data: bytes, at: int = 0) -> tuple[Entry, int]:
    """Parse the entry at offset `at` of `data`. Return the entry and its end offset.

    Verifies the CRC-32 of each member. Raises :class:`Damaged` if the entry is not whole.
    """
    member, extra, payload, end = _parse_member(data, at)
    names = {member.name[:8]}
    record: bytes | None = None
    photographs = None
    if member.name[8:] == _RECORD:
        record = payload
        member, extra, payload, end = _parse_member(data, end)
        names.add(member.name[:8])
    if member.name[8:].startswith(_PHOTO):
        kind, tiles = _parse_extra(extra)
        if kind != _SECOND:
            raise Damaged("entry", reason="a bad extra field")
        suffix = member.name[8 + len(_PHOTO) - 1 :].decode("ascii", "replace")
        photographs = Photographs(suffix, payload, tiles)
        member, extra, payload, end = _parse_member(data, end)
        names.add(member.name[:8])
    kind, inside = _parse_extra(extra)
    dictionary = 0
    if kind == _WITH_DICTIONARY or (kind == _BEFORE and inside):
        if len(inside) < _DICTIONARY.size:
            raise Damaged("entry", reason="a bad extra field")
        (dictionary,) = _DICTIONARY.unpack_from(inside)
        inside = inside[_DICTIONARY.size :]
    if kind not in ((_INLINE, _WITH_DICTIONARY) if record is None else (_BEFORE,)):
        raise Damaged("entry", reason="a bad extra field")
    name = member.name.decode("ascii", "replace")
    try:
        int(name[:8], 16)
    except ValueError as error:
        raise Damaged("entry", reason="a bad name") from error
    if names != {member.name[:8]}:
        raise Damaged("entry", reason="members of several objects")
    return Entry(name, inside if record is None else record, payload, photographs, dictionary), end


def _parse_extra(extra: bytes) -> tuple[int, bytes]:
    """Return the kind and the data of an extra field of ours. Raises :class:`Damaged`."""
    if len(extra) < 5:
        raise Damaged("entry", reason="no record")
    field, length, kind = struct.unpack_from("<HHB", extra)
    if field != _EXTRA_ID or length != len(extra) - 4:
        raise Damaged("entry", reason="a bad extra field")
    return kind, extra[5:]


def read_entry(path: Path, offset: int, length: int) -> Entry:
    """Read the entry at `offset` of a pack; `length` is its length in bytes.

    Verifies the CRC-32 of each member. Raises :class:`Damaged` if the entry is not whole, has
    another length or cannot be read.
    """
    try:
        with path.open("rb", buffering=0) as file:
            data = pread(file.fileno(), length, offset)
    except OSError as error:
        raise Damaged(path, reason=error) from error
    try:
        entry, end = parse_entry(data)
    except Damaged as error:
        raise Damaged(f"{path} at {offset}", reason=error.fields["reason"]) from error
    if end != length:
        raise Damaged(f"{path} at {offset}", reason="an entry of another length")
    return entry


def _members(data: bytes) -> Iterator[Member]:
    """Yield the members in `data`. Raises :class:`Damaged`."""
    at = 0
    while at < len(data):
        member, _, _, at = _parse_member(data, at)
        yield member


def _stored_members(fd: int, end: int) -> Iterator[Member]:
    """Yield the members of a pack up to offset `end`. Reads one member at a time.

    Raises OSError, :class:`Damaged`.
    """
    at = 0
    while at < end:
        behind, _ = _member_end(fd, at, end)
        member, *_ = _parse_member(pread(fd, behind - at, at), 0)
        yield replace(member, offset=at)
        at = behind


def _member_end(fd: int, at: int, limit: int) -> tuple[int, bool]:
    """Read the header of the member at `at`. Return (end offset, whether its entry goes on).

    Raises OSError, and :class:`Damaged` if there is no header or the end is behind `limit`.
    """
    header = pread(fd, _LOCAL.size, at)
    if len(header) < _LOCAL.size or not header.startswith(_LOCAL_MAGIC):
        raise Damaged("entry", reason="not a local header")
    *_, size, name_size, extra_size = _LOCAL.unpack(header)
    end = at + _LOCAL.size + name_size + extra_size + size
    if end > limit:
        raise Damaged("entry", reason="cut off")
    kind = pread(fd, name_size, at + _LOCAL.size)[8:]
    return end, kind == _RECORD or kind.startswith(_PHOTO)


def _find_header(fd: int, at: int) -> int:
    """Find the next signature of a local header. Return its offset, which is `at` or greater.

    Returns -1 if there is none.
    """
    while window := pread(fd, _WINDOW_BYTES, at):
        found = window.find(_LOCAL_MAGIC)
        if found >= 0:
            return at + found
        if len(window) < _WINDOW_BYTES:
            break
        # The signature may lie across the edge of the window.
        at += len(window) - len(_LOCAL_MAGIC) + 1
    return -1


def has_directory(path: Path, at: int) -> bool:
    """Whether the central directory of a pack begins at offset `at`. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        file.seek(at)
        return file.read(len(_CENTRAL_MAGIC)) in (_CENTRAL_MAGIC, _END_MAGIC)


def scan(path: Path) -> Iterator[tuple[int, int, Entry]]:
    """Yield all whole entries of a pack in order: (offset, length, entry).

    Behind damage the scan goes on at the next local header that begins a whole entry. So it finds
    all whole entries behind the damage. It holds one entry in memory at a time. Raises OSError.
    """
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        at = 0
        while at >= 0:
            try:
                end, goes_on = _member_end(fd, at, size)
                while goes_on:
                    end, goes_on = _member_end(fd, end, size)
                entry, length = parse_entry(pread(fd, end - at, at))
            except Damaged:
                at = _find_header(fd, at + 1)
                continue
            yield at, length, entry
            # Without damage the next entry begins here, so no search for a header is needed.
            at += length


class Pack:
    """A pack that is open for writing.

    path : path of the pack.
    number : number of the pack.
    length : bytes of all counted entries. The next entry is written at this offset.

    Contract: all methods that write may wait for the disk, so a mount runs them in threads. Only
    one thread at a time may use a pack.
    """

    def __init__(self, path: Path, number: int, disk: Disk, length: int) -> None:
        """Open a pack, or make it if `length` is 0. Cut off all bytes behind `length`.

        `length` is the number of committed bytes. May wait for the disk. Raises OSError, and
        :class:`Damaged` if the committed bytes are missing or are no members.
        """
        self.path = path
        self.number = number
        self.length = length
        self._disk = disk
        # None after close(): the kernel may have given the number of the descriptor to another
        # file.
        self._open_fd: int | None
        if path.exists():
            self._open_fd = disk.open(path, os.O_RDWR)
        elif length:
            raise Damaged(path, reason="the pack is missing")
        else:
            self._open_fd = disk.create(path)
        self._has_directory = False
        try:
            disk.fsync_folder(path.parent)
            self._members = self._cut_back()
        except BaseException:
            self.close()
            raise

    def _cut_back(self) -> list[Member]:
        """Cut off all bytes behind the committed ones. Return the members in the committed ones."""
        present = os.fstat(self._fd).st_size
        if present < self.length:
            raise Damaged(self.path, reason=f"{present} bytes of {self.length} are left")
        try:
            members = list(_stored_members(self._fd, self.length))
        except OSError as error:
            raise Damaged(self.path, reason=error) from error
        if present > self.length:
            self._disk.ftruncate(self._fd, self.length)
        return members

    @property
    def _fd(self) -> int:
        """The descriptor. Raises OSError EBADF if the pack is closed."""
        if self._open_fd is None:
            raise OSError(errno.EBADF, "the pack is closed", str(self.path))
        return self._open_fd

    @property
    def is_closed(self) -> bool:
        """Whether the pack was closed. A closed pack takes no more entries."""
        return self._open_fd is None

    @property
    def full(self) -> bool:
        """Whether the pack is so large that the next entry must go to a new pack."""
        return self.length >= SEAL_BYTES or len(self._members) >= MAX_MEMBERS

    def append(self, entry: Entry) -> tuple[int, int]:
        """Write an entry behind the others and count it. Return (offset, length) in bytes.

        The entry is not durable before :meth:`fsync`. Raises OSError.
        """
        return self.count(*self.write(entry))

    def write(self, entry: Entry) -> tuple[list[Member], int]:
        """Do the first half of :meth:`append`: write the entry. Return its members and length.

        The entry does not count before :meth:`count`. May wait for the disk. The caller makes sure
        that nothing else writes to the pack or cuts it until then. Raises OSError.
        """
        data = build_entry(entry)
        offset = self.length
        if self._has_directory:
            self._disk.ftruncate(self._fd, self.length)
            self._has_directory = False
        try:
            self._disk.pwrite(self._fd, data, offset)
        except OSError:
            self._disk.ftruncate(self._fd, offset)
            raise
        members = [replace(each, offset=offset + each.offset) for each in _members(data)]
        return members, len(data)

    def count(self, members: list[Member], length: int) -> tuple[int, int]:
        """Do the second half of :meth:`append`: count the written entry. Return (offset, length).

        `members` and `length` are the result of :meth:`write`. Does not wait for the disk.
        """
        offset = self.length
        self._members += members
        self.length += length
        return offset, length

    def write_directory(self) -> None:
        """Write a central directory behind the entries, so that any unzip opens the pack.

        No-op if the pack has its directory or no entries. Raises OSError.
        """
        fd = self._fd
        if self._has_directory or not self._members:
            return
        directory = b"".join(
            _CENTRAL.pack(
                _CENTRAL_MAGIC,
                _VERSION,
                _VERSION,
                _FLAGS,
                _STORED,
                _TIME,
                _DATE,
                member.crc,
                member.size,
                member.size,
                len(member.name),
                0,
                0,
                0,
                0,
                0,
                member.offset,
            )
            + member.name
            for member in self._members
        )
        count = len(self._members)
        end = _END.pack(_END_MAGIC, 0, 0, count, count, len(directory), self.length, 0)
        try:
            self._disk.pwrite(fd, directory + end, self.length)
        except OSError:
            self._disk.ftruncate(fd, self.length)
            raise
        self._has_directory = True

    def rewind(self, length: int) -> None:
        """Cut the pack to `length` bytes. The entries behind were never committed. Raises OSError.

        A central directory is cut off, too.
        """
        self._disk.ftruncate(self._fd, length)
        self._members = [member for member in self._members if member.offset < length]
        self.length = length
        self._has_directory = False

    def fsync(self) -> None:
        """Force the pack to the disk. Raises OSError."""
        self._disk.fsync(self._fd)

    def close(self) -> None:
        """Close the descriptor. May be called twice.

        If closing raises OSError, the pack counts as closed all the same.
        """
        fd, self._open_fd = self._open_fd, None
        if fd is not None:
            self._disk.close(fd)
