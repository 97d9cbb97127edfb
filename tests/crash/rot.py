"""Bit rot: the harness damages a small store in many ways, one at a time.

It flips every bit, cuts every file at every boundary, deletes every file, overwrites stretches of
packs, and puts every page of the index in the place of every other page. After a damaged page, or a
damaged pack or parity, a repair must give everything back.

For every damage these rules hold:

- Names and attributes are right, or opening the store fails with a reason.
- Each file gives its bytes or an error.
- Nothing crashes or hangs.
- `check --full` notices all damage that a read notices, and names the file.
- No damage of one pack, or of its parity, costs a file, and `check --full` notices it.

The harness does not damage staged files or the log of the index. docs/durability.md says which
promises hold for them.

``python -m tests.crash.rot [--every N]``
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import trio

from fsmount.errors import Damaged, FsmountError
from fsmount.store import config
from fsmount.store.disk.disk import Disk
from fsmount.store.files import StoreFiles
from fsmount.store.frames import group, jobs, rebuilding
from fsmount.store.frames.layers import Done, Loan
from fsmount.store.index import ROOT
from fsmount.store.ingest import large
from fsmount.store.packs.location import Location
from fsmount.store.packs.parity import Shape
from fsmount.store.read_store import ReadStore
from fsmount.store.recovery.check import check_contents, check_relations
from fsmount.store.store import open_read_store, open_store
from fsmount.store.transfer.tree import slices
from tests.crash.command import options, processes, report
from tests.crash.limits import small_limits
from tests.crash.planted import caught
from tests.crash.points import quiet
from tests.crash.scratch import fast
from tests.repairing import repair
from tests.support.encoding import forget_caches, open_either, put
from tests.support.frames import png, screens

_SECONDS = 20
_INDEX, _PAGE = "index.sqlite", 4096
_PAGES = ("swapped", "twice")
# Stretches of each pack that are overwritten: their number, and their lengths.
_STRETCHES, _SHORT, _LONG = 2000, 4096, 64 << 10
_MEMORY = 4 << 30
# Path -> attributes. The empty path has the list of the root.
Facts = dict[bytes, tuple[object, ...]]


def make_reference(root: Path) -> None:
    """Make a store of about 100 KB that has everything a store can have."""
    large.KEEP_BYTES = 2500
    config.make(root, Disk())
    chance = random.Random(1)

    async def fill() -> None:
        opened = open_store(root)
        async with opened.running(count=1) as store:
            folder = store.index.create(ROOT, b"desk", mode=0o40755, uid=1, gid=2, now_ns=3).ino
            for number, frame in enumerate(screens(8, height=48, width=48)):
                put(store, b"%d.png" % number, png(frame), folder)
                await store.drain()
            put(store, b"large", chance.randbytes(3000))
            put(store, b"empty", b"")
            note = put(store, b"note.txt", b"some text")
            await store.drain()
            store.index.set_xattr(note, b"user.colour", b"red")
            store.index.link(ROOT, b"again", note, 5)
            store.index.create(
                ROOT, b"link", mode=0o120777, uid=0, gid=0, now_ns=4, target=b"desk/1.png"
            )
        opened.close()

    trio.run(fill)
    (root / "lock").unlink(missing_ok=True)
    (root / "reserve").unlink(missing_ok=True)


def _facts(store: StoreFiles) -> Facts:
    """Names and attributes, and the list of the root as read in small parts."""
    out: Facts = {b"": tuple(_listed(store))}
    for path, node in store.index.walk():
        xattrs = sorted(store.index.xattrs(node.ino).items())
        out[path] = (node.mode, node.uid, node.gid, node.nlink, node.size, node.mtime_ns,
                     node.target, *xattrs)  # fmt: skip
    return out


def _listed(store: StoreFiles) -> Iterator[bytes]:
    after = 0
    while rows := store.index.children(ROOT, after, 3):
        for _, name, node in rows:
            yield name
            yield b"%d" % node.ino
        after = rows[-1][0]


async def _bodies(store: ReadStore) -> dict[bytes, bytes | None]:
    """The bytes of each file; None if reading it fails."""
    out: dict[bytes, bytes | None] = {}
    for path, node in store.index.walk():
        if node.mode & 0o170000 == 0o100000:
            try:
                out[path] = b"".join([part async for part in slices(store, node.ino)])
            except (FsmountError, OSError):
                out[path] = None
    return out


@dataclass(frozen=True)
class Reference:
    """The contents of the undamaged store."""

    facts: Facts
    bodies: dict[bytes, bytes | None]


async def look(root: Path, *, read_only: bool = True) -> Reference:
    """Read the contents of an undamaged store."""
    opened = open_either(root, read_only=read_only)
    try:
        async with opened.running(count=1) as store:
            return Reference(_facts(store), await _bodies(store))
    finally:
        opened.close()


async def verdict(root: Path, whole: Reference, *, mended: bool = False) -> str:
    """Read and check a damaged store; returns the failure text, or "" if every rule holds.

    `mended`: the damage must cost no file.
    """
    try:
        opened = open_read_store(root)
    except (FsmountError, OSError):
        return ""
    try:
        report = check_relations(opened)
        try:
            facts = _facts(opened)
        except (FsmountError, OSError) as error:
            return "" if report.findings else f"check is content, reading names says {error}"
        if facts != whole.facts:
            return "" if report.findings else "names or attributes differ and check is content"
        async with opened.running(count=1) as store:
            bodies = await _bodies(store)
            if report.readable:
                await check_contents(store, report, lambda count: None)
        named = {os.fsencode(name) for _, _, names in report.findings for name in names}
        for path, data in bodies.items():
            if data is None and mended:
                return f"{path!r} cannot be read in spite of parity"
            if data is None and report.readable and path not in named:
                return f"{path!r} cannot be read, and check --full does not say so"
            if data is not None and data != whole.bodies[path]:
                return f"{path!r} gives wrong bytes"
        return ""
    finally:
        opened.close()


async def _recovers(root: Path, whole: Reference, *, mended: bool = False) -> str:
    """Open a damaged store for writing. Opened or refused, the writer must make nothing worse."""
    with contextlib.suppress(FsmountError, OSError):
        open_store(root).close()
    return await verdict(root, whole, mended=mended)


async def _noticed(root: Path) -> str:
    """Check a store with damage in a pack or its parity: `check --full` must notice it."""
    opened = open_read_store(root)
    try:
        report = check_relations(opened)
        async with opened.running(count=1) as store:
            await check_contents(store, report, lambda count: None)
        return "" if report.findings else "check --full is content"
    finally:
        opened.close()


async def _repacked(root: Path, whole: Reference) -> str:
    """Repack a damaged store, then repair it. The repack must cost no file.

    The repair must give back all files from before the repack. The copy of the index may then be
    a copy of the damaged index. So attributes may be gone, and files that only the packs have get
    other names.
    """
    with contextlib.suppress(FsmountError, OSError, ExceptionGroup):
        opened = open_store(root)
        try:
            async with opened.running(count=1) as store:
                await store.repack(lambda count: None)
        finally:
            opened.close()
    await repair(root)
    bodies = (await look(root)).bodies
    lost = [path for path, data in whole.bodies.items() if bodies.get(path) != data]
    return f"a repack costs {lost}" if lost else ""


async def _repaired(root: Path, whole: Reference) -> str:
    """Repair an index whose copy is whole, or a pack. The repair must give everything back."""
    repairs, report = await repair(root)
    if repairs.lost or report.findings:
        return f"a repair loses {repairs.lost}, leaves {report.findings[:2]}"
    return "" if await look(root) == whole else "a repair gives something else"


def remember_renders() -> None:
    """Make jobs that render the same bytes again return what they returned before."""
    vars(jobs)["render"] = _remembered(jobs.render, _entries)
    vars(group)["render"] = _remembered(group.render, _entries)
    vars(rebuilding)["render"] = _remembered(rebuilding.render, _packs)


def _remembered(
    real: Callable[..., object], read: Callable[[set[Location]], Iterator[bytes]]
) -> Callable[..., object]:
    """Return a job that asks the `real` one once for the same arguments and the same bytes.

    `read` reads all bytes that the job reads for some locations.
    """
    known: dict[bytes, object | Damaged] = {}

    def render(*args: object) -> object:
        # A loan is no argument: the job decodes everything itself.
        asked = [arg for arg in args if not isinstance(arg, Loan)]
        parts = [repr(_without_paths(asked)).encode()]
        try:
            parts += read(set(_places(asked)))
        except FileNotFoundError as error:
            raise Damaged(str(error.filename), reason=error) from error
        key = hashlib.blake2b(b"|".join(parts), digest_size=16).digest()
        if key not in known:
            forget_caches()
            if len(known) > 64:
                known.clear()
            try:
                done = real(*asked, *[Loan()] * (len(args) - len(asked)))
                known[key] = Done(done.result) if isinstance(done, Done) else done
            except Damaged as error:
                known[key] = error
        found = known[key]
        if isinstance(found, Damaged):
            raise found
        return found

    return render


def _places(args: object) -> Iterator[Location]:
    """Yield all locations in the arguments of a job."""
    if isinstance(args, Location):
        yield args
    elif isinstance(args, list | tuple):
        for each in args:
            yield from _places(each)


def _without_paths(args: object) -> object:
    """Return arguments without paths: each opening has other ones."""
    if isinstance(args, Location):
        return args._replace(pack="")
    return [_without_paths(each) for each in args] if isinstance(args, list | tuple) else args


def _entries(places: set[Location]) -> Iterator[bytes]:
    """Yield the bytes of some entries."""
    for place in sorted(places):
        with open(place.pack, "rb", buffering=0) as file:
            yield os.pread(file.fileno(), place.length, place.offset)


def _packs(places: set[Location]) -> Iterator[bytes]:
    """Yield the bytes of the packs of some entries, and of their parity. Either may be gone."""
    for pack in sorted({Path(place.pack) for place in places}):
        for path in (pack, pack.with_suffix(".parity")):
            yield path.read_bytes() if path.exists() else b"gone"


class Damage(NamedTuple):
    """One damage to the file `name` at byte `at`.

    `how` is one of:

    - "flip": flip the bit `other`.
    - "cut": cut the file there.
    - "gone": delete the file.
    - "swapped": swap the page with the page at `other`.
    - "twice": overwrite the page at `other` with this page.
    - "stretch": overwrite `other` bytes.
    """

    name: str
    how: str
    at: int = 0
    other: int = 0


def damages(root: Path) -> Iterator[Damage]:
    """All damages of the store at `root`."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.parent.name != "staging":
            name = str(path.relative_to(root))
            size = path.stat().st_size
            for at in range(size):
                for bit in range(8):
                    yield Damage(name, "flip", at, bit)
            for at in range(0, size, 16):
                yield Damage(name, "cut", at)
            yield Damage(name, "gone")
        if path.suffix == ".zip":
            chance = random.Random(name)
            for number in range(_STRETCHES):
                length = min(size, _LONG if number % 4 == 0 else chance.randint(1, _SHORT))
                yield Damage(name, "stretch", chance.randint(0, size - length), length)
    # The checksum of a page does not cover its place.
    size = (root / _INDEX).stat().st_size
    for at, other in permutations(range(0, size, _PAGE), 2):
        yield Damage(_INDEX, "twice", at, other)
        if at < other:
            yield Damage(_INDEX, "swapped", at, other)


def apply(path: Path, damage: Damage) -> None:
    """Damage a file."""
    _, how, at, other = damage
    if how == "gone":
        path.unlink()
    elif how == "cut":
        os.truncate(path, at)
    else:
        with path.open("r+b", buffering=0) as file:
            fd = file.fileno()
            if how == "stretch":
                os.pwrite(fd, random.Random(at).randbytes(other), at)
                return
            if how == "flip":
                os.pwrite(fd, bytes([os.pread(fd, 1, at)[0] ^ 1 << other]), at)
                return
            page, replaced = os.pread(fd, _PAGE, at), os.pread(fd, _PAGE, other)
            os.pwrite(fd, page, other)
            if how == "swapped":
                os.pwrite(fd, replaced, at)


class _HangError(BaseException):
    """A case took too long. No handler of the store catches this."""


def _hangs(number: int, frame: FrameType | None) -> None:
    raise _HangError


def explore(share: int, shares: int, every: int, pages: int) -> tuple[int, list[str]]:
    """Try one share of all damages; returns (number of cases, failure texts)."""
    quiet()
    small_limits()
    signal.signal(signal.SIGALRM, _hangs)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(dir=fast()) as scratch:
        root = Path(scratch) / "store"
        make_reference(root)
        files = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
        cases = list(damages(root))
        # Damages of pages are few, and take long.
        of_pages = [damage for damage in cases if damage.how in _PAGES]
        others = [damage for damage in cases if damage.how not in _PAGES]
        chosen = (_some(others, every) + _some(of_pages, pages))[share::shares]

        async def work() -> None:
            whole = await look(root)
            assert None not in whole.bodies.values()
            remember_renders()
            for number, damage in enumerate(chosen):
                often = 10 if damage.how == "stretch" else 50
                writer = number % often == 0 or damage.how in _PAGES
                why = await _case(root, files, damage, whole, writer=writer)
                if why:
                    wrong.append(f"{damage}: {why}")
                if caught(wrong):
                    return

        trio.run(work)
    return len(chosen), wrong


def _some(cases: list[Damage], every: int) -> list[Damage]:
    """A random one of `every` cases, the same in each run."""
    return random.Random(every).sample(cases, len(cases) // every) if every > 1 else cases


async def _case(
    root: Path,
    files: dict[Path, bytes],
    damage: Damage,
    whole: Reference,
    *,
    writer: bool,
) -> str:
    path = root / damage.name
    apply(path, damage)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    mended = path.suffix in (".zip", ".parity")
    try:
        why = await verdict(root, whole, mended=mended)
        if not why and _is_covered(path, files, damage):
            why = await _noticed(root)
        if not why and writer:
            why = await _recovers(root, whole, mended=mended)
        if not why and writer and mended:
            why = await _repaired(root, whole)
        if not why and damage.how in _PAGES:
            _restore(root, files)
            apply(path, damage)
            why = await _repaired(root, whole)
        if not why and damage.how in _PAGES:
            _restore(root, files)
            apply(path, damage)
            why = await _repacked(root, whole)
    except Exception as error:
        why = f"raised {error!r}"
    except _HangError:
        why = "hangs"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if writer:
        _restore(root, files)
    elif damage.how == "flip":
        apply(path, damage)
    else:
        path.write_bytes(files[path])
    return why


def _is_covered(path: Path, files: dict[Path, bytes], damage: Damage) -> bool:
    """Whether checksums of parity cover the damaged bytes. A missing parity is no damage."""
    if path.suffix == ".parity":
        return damage.how != "gone"
    if path.suffix != ".zip":
        return False
    return damage.at < Shape.parse(files[path.with_suffix(".parity")]).covered


def _restore(root: Path, files: dict[Path, bytes]) -> None:
    for path in [p for p in root.rglob("*") if p.is_file() and p not in files]:
        path.unlink()
    for path, data in files.items():
        path.write_bytes(data)


def main() -> int:
    """Run the command that the module describes."""
    parser = options(__doc__)
    parser.add_argument("--every", type=int, default=1, help="a random one of so many")
    parser.add_argument("--pages", type=int, default=1, help="one of so many exchanges of pages")
    given = parser.parse_args()
    with processes(given) as pool:
        work = [(share, given.jobs, given.every, given.pages) for share in range(given.jobs)]
        results = pool.starmap(explore, work)
    wrong = [line for _, lines in results for line in lines]
    return report(f"{sum(count for count, _ in results)} damages", wrong)


if __name__ == "__main__":
    sys.exit(main())
