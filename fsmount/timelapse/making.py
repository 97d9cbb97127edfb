"""Makes the file of a time lapse: renders pictures on all cores, and writes them in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fsmount.errors import FsmountError
from fsmount.store.frames.group import Rendered
from fsmount.store.read_store import ReadStore
from fsmount.store.transfer.groups import Tell, Wanted, for_each
from fsmount.store.transfer.tree import slices
from fsmount.timelapse.canvas import Canvas
from fsmount.timelapse.plan import Plan, Shot
from fsmount.timelapse.writers import writer


@dataclass
class Made:
    """The result. `frames` is the number of written pictures; `problems` has (path, reason)."""

    frames: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)


async def make(
    store: ReadStore,
    shots: Plan,
    path: Path,
    canvas: Canvas,
    progress: Callable[[int, int], None],
) -> Made:
    """Write a time lapse to `path`, whose ending says the format. The caller keeps `store` running.

    The file gets its name when it is whole. Pictures that are damaged or cannot be decoded are left
    out. `progress` gets (1, 0) for each picture. Memory holds the files of a few groups of pictures
    and a few frames, whatever the length. Raises FsmountError and OSError, also in exception
    groups.
    """
    made = Made()
    scratch = path.with_name(f".{path.name}.part")
    try:
        with writer(scratch, path.suffix.lower(), shots.count) as out:

            async def work(shot: Shot, rendered: Rendered | None) -> Tell:
                data: bytes | bytearray | None = None
                why = ""
                try:
                    if rendered is not None:
                        data = rendered.data
                    else:
                        data = b"".join([part async for part in slices(store, shot.ino)])
                except FsmountError as error:
                    why = str(error)

                def tell() -> None:
                    progress(1, 0)
                    name = os.fsdecode(store.index.path(shot.ino))
                    if data is None:
                        made.problems.append((name, why))
                        return
                    try:
                        frame = canvas.frame(data, shot.wall_us)
                    except FsmountError as error:
                        made.problems.append((name, str(error)))
                        return
                    out.add(frame, shot.start_ms, shot.duration_ms)
                    made.frames += 1

                return tell

            await for_each(store, _wanted(store, shots), work, with_bytes=True)
            out.finish()
        if not made.frames:
            raise FsmountError("none of the chosen pictures could be decoded")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return made


def _wanted(store: ReadStore, shots: Plan) -> Iterator[Wanted[Shot]]:
    """Yield each shot with its object."""
    for shot in shots:
        object_id = store.index.inode(shot.ino).object_id
        yield Wanted(shot, None if object_id is None else store.index.known_object(object_id))
