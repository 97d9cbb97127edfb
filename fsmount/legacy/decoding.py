"""Jobs of worker processes: decode the pictures of a run, one after the other.

Nothing in a legacy folder records which picture a difference belongs to, or whether its bytes are
still right. This module finds out what can be found out:

- A difference has fewer than 100,000 samples other than zero. A ``.jxl`` with more is a picture of
  its own: it is shown as it is, and the run continues without it.
- A file that is not what its encoder writes is damaged (:mod:`fsmount.legacy.intact`).
- After a longer interval than usual a picture may be missing. Then the colours decide
  (:mod:`fsmount.legacy.colours`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmount.codec.images import jxl
from fsmount.codec.memory import WorkerMemory, of_worker
from fsmount.codec.png import png
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged, NotExact
from fsmount.legacy.colours import MIN_KNOWN_COLOURS, share_of_known_colours
from fsmount.legacy.intact import is_damaged
from fsmount.legacy.pictures import Picture, align, read_picture, read_png
from fsmount.legacy.runs import Run, RunFile

MAX_DIFFERING = 100_000
"""A difference has fewer samples than this that are not zero."""


@dataclass(frozen=True)
class Decoded:
    """What a ``.jxl`` turned out to be. Exactly one of the three holds.

    ``png`` is the PNG of the picture. ``is_picture`` says that the file is a picture of its own.
    ``reason`` says why the picture cannot be decoded.
    """

    png: bytes | None = None
    is_picture: bool = False
    reason: str = ""


@dataclass(frozen=True)
class _State:
    """A run up to some file.

    ``picture`` is the last picture. If it is None, ``lost`` says why. ``decoded`` is the result of
    the last file. ``doubt`` says that the last file may be a difference whose damage makes it look
    like a picture.
    """

    picture: Picture | None
    lost: str
    decoded: Decoded
    doubt: bool = False


@dataclass(frozen=True)
class FolderContext:
    """The surroundings of a run.

    ``differences`` are the folder's differences around the one to decode, in order; ``at`` is the
    position of that one. ``reference`` is a PNG and the difference that follows it without a gap,
    from another run.
    """

    differences: tuple[RunFile, ...] = ()
    at: int = 0
    reference: tuple[RunFile, RunFile] | None = None


def decode(run: Run, context: FolderContext, budget: int) -> Decoded:
    """Decode the picture of the last file of a run.

    Parameters
    ----------
    run : Run
        The run up to that file.
    context : FolderContext
        Its surroundings.
    budget : int
        Bytes that this process may keep for later calls.
    """
    memory = of_worker()
    memory.share_for_runs(budget)
    state = _state_of(run, context, memory)
    if state.picture is None or state.decoded.is_picture or state.decoded.reason:
        return state.decoded
    picture = state.picture
    palette = picture.palette
    return Decoded(png.canonical(picture.frame, picture.head, palette=palette, memory=memory))


def _state_of(run: Run, context: FolderContext, memory: WorkerMemory) -> _State:
    """Return the state after the last file, from the longest remembered part of the run."""
    done = len(run)
    while done and run[:done] not in memory.runs:
        done -= 1
    known = memory.runs.get_as(run[:done], _State) if done else None
    state = known or _State(None, "there is no picture before it", Decoded())
    for count in range(done + 1, len(run) + 1):
        back = len(run) - count
        state = _advance(state, run[count - 1], context, context.at - back, memory)
        memory.runs.put(run[:count], state, state.picture.size if state.picture else 1000)
    return state


def _advance(
    state: _State, file: RunFile, context: FolderContext, at: int, memory: WorkerMemory
) -> _State:
    """Return the state after one more file; ``at`` is its position in ``context.differences``."""
    name = _name(file)
    if not file.is_difference:
        return _after_png(state, file, name)
    try:
        data = Path(file.path).read_bytes()
        samples = jxl.read(data)
    except (Damaged, OSError) as error:
        return _lose(f"damaged ({_reason(error)})", f"it belongs to {name}, which is damaged")
    before, difference = align(None if file.doubt else state.picture, samples)
    if is_whole_picture(before.frame if before else None, difference):
        mostly = 2 * int(np.count_nonzero(difference)) > difference.size
        if not mostly and is_damaged(file, data, samples, context.differences, at, memory):
            return _lose_damaged(name)
        return _State(state.picture, state.lost, Decoded(is_picture=True), doubt=True)
    if file.doubt:
        return _lose(
            f"it is not certain which picture it belongs to ({file.doubt})",
            f"it belongs to {name}, whose position in the folder is not certain",
        )
    if state.picture is None:
        return _State(None, state.lost, Decoded(reason=state.lost))
    if before is None:
        return _lose(
            "its shape is not that of the picture before it",
            f"it belongs to {name}, whose shape is not that of the picture before",
        )
    if is_damaged(file, data, samples, context.differences, at, memory):
        return _lose_damaged(name)
    frame = before.frame + difference
    may_be_wrong = file.after_gap or state.doubt
    if may_be_wrong and _colours_are_wrong(before.frame, difference, frame, context):
        return _lose(
            "the picture before it seems to be missing (a gap in time, and its colours do not fit)",
            f"it belongs to {name}, before which a picture is missing",
        )
    return _State(Picture(frame, before.head, before.palette), "", Decoded())


def _after_png(state: _State, file: RunFile, name: str) -> _State:
    """Return the state after a file that is no difference."""
    if file.doubt:
        return _State(None, f"the position of {name} in the folder is not certain", Decoded())
    try:
        picture = read_png(Path(file.path))
    except (Damaged, NotExact, OSError) as error:
        why = f"it belongs to {name}, which cannot be read ({_reason(error)})"
        return _State(None, why, Decoded())
    if file.twin is not None and not _agrees(state.picture, picture, file.twin):
        other = _name(file.twin)
        return _State(None, f"{name} and {other} are different pictures of one name", Decoded())
    return _State(picture, "", Decoded())


def _agrees(before: Picture | None, picture: Picture, twin: RunFile) -> bool:
    """Return whether a PNG shows the picture of its twin; True if that cannot be known."""
    try:
        samples = jxl.read(Path(twin.path).read_bytes())
    except (Damaged, OSError):
        return True
    if np.array_equal(samples, picture.frame) or np.count_nonzero(samples) >= MAX_DIFFERING:
        return True
    start, difference = align(before, samples)
    return start is not None and np.array_equal(start.frame + difference, picture.frame)


def _lose_damaged(name: str) -> _State:
    """Return the state after a damaged difference."""
    return _lose("damaged (not what its encoder writes)", f"it belongs to {name}, which is damaged")


def _lose(reason: str, reason_of_following: str) -> _State:
    """Return the state after a difference without a picture: those that follow have none either."""
    return _State(None, reason_of_following, Decoded(reason=reason))


def _reason(error: Exception) -> str:
    """Return an error in words, without the name of the file."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(getattr(error, "fields", {}).get("reason") or getattr(error, "detail", error))


def _name(file: RunFile) -> str:
    """Return the name of a file as text."""
    return Path(file.path).name


def is_whole_picture(before: Frame | None, difference: Frame) -> bool:
    """Return whether a ``.jxl`` is a picture of its own and no difference.

    Parameters
    ----------
    before : Frame or None
        The picture before it, of the same shape and dtype.
    difference : Frame
        The samples of the file, (height, width, channels), uint8 or uint16.
    """
    differing = int(np.count_nonzero(difference))
    if differing >= MAX_DIFFERING:
        return True
    # All samples of a small picture may differ. Then the smoother of both is the picture.
    mostly = 2 * differing > difference.size
    return mostly and before is not None and _edges(difference) < _edges(before + difference)


def _edges(frame: Frame) -> int:
    """Count the samples that differ from the one to their left."""
    return int(np.count_nonzero(frame[:, 1:] != frame[:, :-1]))


def _colours_are_wrong(
    before: Frame, difference: Frame, after: Frame, context: FolderContext
) -> bool:
    """Return whether a picture has new colours in a folder where pictures have few of them."""
    share = share_of_known_colours(before, difference, after)
    if share >= MIN_KNOWN_COLOURS or context.reference is None:
        return False
    # Photographs always have new colours. So the reference decides whether this folder has few.
    key, following = context.reference
    try:
        first = read_png(Path(key.path))
        samples = jxl.read(Path(following.path).read_bytes())
    except (Damaged, NotExact, OSError):
        return False
    start, usual = align(first, samples)
    if start is None:
        return False
    return share_of_known_colours(start.frame, usual, start.frame + usual) >= MIN_KNOWN_COLOURS


def find_reference(runs: Sequence[Run], number: int) -> tuple[RunFile, RunFile] | None:
    """Return a PNG and the difference after it, without gap or doubt, from the nearest other run.

    Parameters
    ----------
    runs : sequence of Run
        The runs of a folder.
    number : int
        The number of the run that the reference is for.
    """
    for at in sorted(range(len(runs)), key=lambda other: abs(other - number)):
        run = runs[at]
        if at != number and len(run) > 1 and _is_reference(run[0], run[1]):
            return run[0], run[1]
    return None


def _is_reference(first: RunFile, second: RunFile) -> bool:
    """Return whether two files are a PNG and its certain difference."""
    linked = not first.is_difference and second.is_difference
    return linked and not (second.after_gap or second.doubt)


def is_difference_of(before: bytes, after: bytes, path: str) -> bool:
    """Return whether the difference of two PNGs has exactly the samples of a ``.jxl``.

    Parameters
    ----------
    before, after : bytes
        The PNG files.
    path : str
        The ``.jxl``.
    """
    try:
        first, second = read_picture(before), read_picture(after)
        samples = jxl.read(Path(path).read_bytes())
    except (Damaged, NotExact, OSError):
        return False
    start, difference = align(first, samples)
    if start is None or start.frame.dtype != second.frame.dtype:
        return False
    same_shape = start.frame.shape == second.frame.shape
    return same_shape and np.array_equal(second.frame - start.frame, difference)
