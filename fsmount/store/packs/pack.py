"""Packs: append-only ZIP files (PKWARE APPNOTE 6.3) of stored members, one per object.

The record of an object stands in an extra field (id 0x4D46, "FM") of the member's local header, or
for a record over 60,000 bytes in a member ``<id>.rec`` just before. A pack that is being written
has no central directory yet; one is put behind the entries at a clean end and when the pack is
sealed, and cut off again before the next append. Scanning local headers finds every entry without
it.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fsmount.errors import Damaged
from fsmount.store.disk.disk import Disk, pread

SEAL_BYTES = 64 << 20
# The classic end record counts members in 16 bits.
MAX_MEMBERS = 60_000
# Read at a time to look for a header.
_WINDOW_BYTES = 1 << 20
_EXTRA_ID = 0x4D46
_INLINE, _BEFORE = 0, 1
_MAX_INLINE = 60_000
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCAL_MAGIC, _CENTRAL_MAGIC, _END_MAGIC = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
# Fixed fields: version needed 2.0, UTF-8 names, 1980-01-01 00:00 (real times are in the records).
_VERSION, _FLAGS, _STORED, _TIME, _DATE = 20, 0x0800, 0, 0, 0x0021


@dataclass(frozen=True, slots=True)
class Member:
    """One ZIP member as the central directory lists it."""

    name: bytes
    crc: int
    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One object as it lies in a pack: `name` is ``<id in 8 hex digits><suffix>``."""

    name: str
    record: bytes
    payload: bytes

    @property
    def object_id(self) -> int:
        """The object's id."""
        return int(self.name[:8], 16)

    @property
    def suffix(self) -> str:
        """``.webp``, ``.jxl``, ``.nil`` or, for raw objects, the file's own."""
        return self.name[8:]


def _member(name: bytes, extra: bytes, data: bytes) -> bytes:
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
    """The bytes of an entry: one member, or two where the record is long."""
    name = entry.name.encode()
    if len(entry.record) <= _MAX_INLINE:
        return _member(name, _extra(_INLINE, entry.record), entry.payload)
    before = _member(f"{entry.object_id:08x}.rec".encode(), b"", entry.record)
    return before + _member(name, _extra(_BEFORE, b""), entry.payload)


def _parse_member(data: bytes, at: int) -> tuple[Member, bytes, bytes, int]:
    """One member at `at`: (member, extra, payload, end); raises :class:`Damaged`."""
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
    if len(payload) != size or zlib.crc32(payload) != crc:
        raise Damaged("entry", reason="checksum")
    return Member(name, crc, size, at), extra, payload, body + size


def parse_entry(data: bytes, at: int = 0) -> tuple[Entry, int]:
    """The entry at `at` and where it ends; raises :class:`Damaged`."""
    member, extra, payload, end = _parse_member(data, at)
    record: bytes | None = None
    if member.name.endswith(b".rec"):
        record = payload
        member, extra, payload, end = _parse_member(data, end)
    if len(extra) < 5:
        raise Damaged("entry", reason="no record")
    field, length, kind = struct.unpack_from("<HHB", extra)
    if field != _EXTRA_ID or length != len(extra) - 4 or kind != (_INLINE if record is None else 1):
        raise Damaged("entry", reason="a bad extra field")
    name = member.name.decode("ascii", "replace")
    try:
        int(name[:8], 16)
    except ValueError as error:
        raise Damaged("entry", reason="a bad name") from error
    return Entry(name, extra[5:] if record is None else record, payload), end


def read_entry(path: Path, offset: int, length: int) -> Entry:
    """One entry by its place; the ZIP checksum is verified. Raises :class:`Damaged`."""
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
    at = 0
    while at < len(data):
        member, _, _, at = _parse_member(data, at)
        yield member


def _stored_members(fd: int, end: int) -> Iterator[Member]:
    """The members up to `end`, read one at a time. Raises :class:`Damaged`."""
    at = 0
    while at < end:
        behind, _ = _member_end(fd, at, end)
        member, *_ = _parse_member(pread(fd, behind - at, at), 0)
        yield replace(member, offset=at)
        at = behind


def _member_end(fd: int, at: int, limit: int) -> tuple[int, bool]:
    """Where the member at `at` ends by its header, and whether it is a record of its own.

    Raises :class:`Damaged` if that is behind `limit`.
    """
    header = pread(fd, _LOCAL.size, at)
    if len(header) < _LOCAL.size or not header.startswith(_LOCAL_MAGIC):
        raise Damaged("entry", reason="not a local header")
    *_, size, name_size, extra_size = _LOCAL.unpack(header)
    end = at + _LOCAL.size + name_size + extra_size + size
    if end > limit:
        raise Damaged("entry", reason="cut off")
    return end, pread(fd, name_size, at + _LOCAL.size).endswith(b".rec")


def _find_header(fd: int, at: int) -> int:
    """The next place from `at` on that has the signature of a local header, -1 if there is none."""
    while window := pread(fd, _WINDOW_BYTES, at):
        found = window.find(_LOCAL_MAGIC)
        if found >= 0:
            return at + found
        if len(window) < _WINDOW_BYTES:
            break
        # The signature may lie across the edge.
        at += len(window) - len(_LOCAL_MAGIC) + 1
    return -1


def has_directory(path: Path, at: int) -> bool:
    """Whether the central directory begins there."""
    with path.open("rb", buffering=0) as file:
        file.seek(at)
        return file.read(len(_CENTRAL_MAGIC)) in (_CENTRAL_MAGIC, _END_MAGIC)


def scan(path: Path) -> Iterator[tuple[int, int, Entry]]:
    """All whole entries: (offset, length, entry). What is damaged is skipped, to the next header
    behind which a whole entry stands; so whatever follows damage is found. One entry at a time is
    in memory. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        at = 0
        while at >= 0:
            try:
                end, is_record = _member_end(fd, at, size)
                if is_record:
                    end, _ = _member_end(fd, end, size)
                entry, length = parse_entry(pread(fd, end - at, at))
            except Damaged:
                at = _find_header(fd, at + 1)
                continue
            yield at, length, entry
            # Where nothing is damaged, the next one stands there: no window to look through.
            at += length


class Pack:
    """The pack that is being written. `length` is where the next entry goes."""

    def __init__(self, path: Path, number: int, disk: Disk, length: int) -> None:
        """Open (or make) a pack and drop what lies behind the `length` committed bytes."""
        self.path = path
        self.number = number
        self.length = length
        self._disk = disk
        # None once it is closed: the number may be another file's then.
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
        """Drop what lies behind the committed bytes; the members in them."""
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
        """The descriptor; raises OSError EBADF when the pack is closed."""
        if self._open_fd is None:
            raise OSError(errno.EBADF, "the pack is closed", str(self.path))
        return self._open_fd

    @property
    def is_closed(self) -> bool:
        """Whether it was closed: it takes no more."""
        return self._open_fd is None

    @property
    def full(self) -> bool:
        """Whether the next entry belongs into a new pack."""
        return self.length >= SEAL_BYTES or len(self._members) >= MAX_MEMBERS

    def append(self, entry: Entry) -> tuple[int, int]:
        """Write an entry behind the others, not yet durable: (offset, length)."""
        return self.count(*self.write(entry))

    def write(self, entry: Entry) -> tuple[list[Member], int]:
        """The first half of :meth:`append`, which may wait for the disk: members and length.

        Nothing counts yet. Nobody writes to the pack or cuts it meanwhile.
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
        """The second half: what was written counts from now on. (offset, length)."""
        offset = self.length
        self._members += members
        self.length += length
        return offset, length

    def write_directory(self) -> None:
        """Put a central directory behind the entries, so that any unzip opens the file."""
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
        """Cut off the entries from `length` on: they were never committed."""
        self._disk.ftruncate(self._fd, length)
        self._members = [member for member in self._members if member.offset < length]
        self.length = length
        self._has_directory = False

    def fsync(self) -> None:
        """Force the pack to the disk."""
        self._disk.fsync(self._fd)

    def close(self) -> None:
        """Close the descriptor; may be called twice. Raises OSError, closed all the same."""
        fd, self._open_fd = self._open_fd, None
        if fd is not None:
            self._disk.close(fd)
