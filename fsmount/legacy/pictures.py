"""The pictures of a run, one after the other. Runs in worker processes.

Nothing in such a folder says which picture a difference belongs to, nor whether its bytes are
still right, and lossless JPEG XL of effort 1 has no checksum. What can be told is told here:

- A difference has fewer than 100,000 samples that are not zero. A `.jxl` that is none is a picture
  of its own: it is shown as it is, and the run goes on without it.
- An intact file is what the encoder makes of what it decodes to. Where the files around it are
  and one is not, that one is damaged.
- Behind a pause longer than usual a picture may be missing. A difference added to the wrong picture
  gives colours that were nowhere in the picture before: on 120 screenshots of a desktop at least
  82 % of the changed pixels had a colour of the picture before, where a link was missing mostly
  fewer than 72 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fsmount.codec.images import jxl
from fsmount.codec.images.jxl_header import codestream
from fsmount.codec.memory import WorkerMemory, of_worker
from fsmount.codec.png import png
from fsmount.codec.png.samples import Frame, is_opaque
from fsmount.errors import Damaged, NotExact
from fsmount.legacy.runs import Run, Step

MOST_DIFFERING = 100_000
"""A difference has fewer samples than this that are not zero."""

# Share of changed pixels that have a colour of the picture before.
_FITS = 0.8
_NEAR = 8  # files on each side that are asked whether their encoder is the one here
_COLOURS = 1 << 24


@dataclass(frozen=True)
class Picture:
    """A picture of a run: its samples, and what its PNG needs besides."""

    frame: Frame
    head: bytes = b""
    palette: bool = False

    @property
    def size(self) -> int:
        return self.frame.nbytes


@dataclass(frozen=True)
class Made:
    """What a `.jxl` turned out to be.

    `data`: the PNG of the picture. Else `itself` (a picture of its own), or `reason`: why the
    picture cannot be had.
    """

    data: bytes | None = None
    itself: bool = False
    reason: str = ""


@dataclass(frozen=True)
class _State:
    """A run up to some step: the last picture, or why there is none any more; the last verdict.

    `doubt`: the step may have been a difference so damaged that it looks like a picture.
    """

    picture: Picture | None
    cut: str
    made: Made
    doubt: bool = False


@dataclass(frozen=True)
class Context:
    """What stands around a run. `differences`: those of the folder near the step asked for, in
    order, which is the one at `at`.

    `sample`: a PNG and the difference that follows it without a pause, from another run.
    """

    differences: tuple[Step, ...] = ()
    at: int = 0
    sample: tuple[Step, Step] | None = None


def make(run: Run, context: Context, budget: int) -> Made:
    """The picture of the last step of `run`; `budget`: bytes this process may keep for the next."""
    memory = of_worker()
    memory.share_for_runs(budget)
    state = _state(run, context, memory)
    if state.picture is None or state.made.itself or state.made.reason:
        return state.made
    picture = state.picture
    palette = picture.palette
    return Made(png.canonical(picture.frame, picture.head, palette=palette, memory=memory))


def _state(run: Run, context: Context, memory: WorkerMemory) -> _State:
    done = len(run)
    while done and run[:done] not in memory.runs:
        done -= 1
    known: _State | None = memory.runs.get(run[:done]) if done else None
    state = known or _State(None, "there is no picture before it", Made())
    for count in range(done + 1, len(run) + 1):
        back = len(run) - count
        state = _advance(state, run[count - 1], context, context.at - back, memory)
        memory.runs.put(run[:count], state, state.picture.size if state.picture else 1000)
    return state


def _advance(state: _State, step: Step, context: Context, at: int, memory: WorkerMemory) -> _State:
    """One step further; `at`: its place among the folder's differences."""
    name = _name(step)
    if not step.is_difference:
        return _begin(state, step, name)
    try:
        data = Path(step.path).read_bytes()
        decoded = jxl.read(data)
    except (Damaged, OSError) as error:
        return _cut(f"damaged ({_why(error)})", f"it hangs on {name}, which is damaged")
    before, own = _aligned(None if step.unsure else state.picture, decoded)
    if stands_alone(before.frame if before else None, own):
        mostly = 2 * int(np.count_nonzero(own)) > own.size
        if not mostly and _is_odd(step, data, decoded, context, at, memory):
            return _damaged(name)
        return _State(state.picture, state.cut, Made(itself=True), doubt=True)
    if step.unsure:
        return _cut(
            f"it is not certain which picture it hangs on ({step.unsure})",
            f"it hangs on {name}, whose place in the folder is not certain",
        )
    if state.picture is None:
        return _State(None, state.cut, Made(reason=state.cut))
    if before is None:
        return _cut(
            "its shape is not that of the picture before it",
            f"it hangs on {name}, whose shape is not that of the picture before",
        )
    if _is_odd(step, data, decoded, context, at, memory):
        return _damaged(name)
    frame = before.frame + own
    if (step.after_gap or state.doubt) and _doubtful(before.frame, own, frame, context):
        return _cut(
            "the picture before it seems to be missing (a gap in time, and its colours do not fit)",
            f"it hangs on {name}, before which a picture is missing",
        )
    return _State(Picture(frame, before.head, before.palette), "", Made())


def _begin(state: _State, step: Step, name: str) -> _State:
    """On to a file that is no difference. `state`: the run up to it."""
    if step.unsure:
        return _State(None, f"the place of {name} in the folder is not certain", Made())
    try:
        picture = read_png(Path(step.path))
    except (Damaged, NotExact, OSError) as error:
        return _State(None, f"it hangs on {name}, which cannot be read ({_why(error)})", Made())
    if step.twin is not None and not _agree(state.picture, picture, step.twin):
        other = _name(step.twin)
        return _State(None, f"{name} and {other} are different pictures of one name", Made())
    return _State(picture, "", Made())


def _agree(before: Picture | None, picture: Picture, twin: Step) -> bool:
    """Whether a PNG shows what the `.jxl` of its stem stands for, as far as that stands for any."""
    try:
        decoded = jxl.read(Path(twin.path).read_bytes())
    except (Damaged, OSError):
        return True
    if np.array_equal(decoded, picture.frame) or np.count_nonzero(decoded) >= MOST_DIFFERING:
        return True
    start, own = _aligned(before, decoded)
    return start is not None and np.array_equal(start.frame + own, picture.frame)


def _damaged(name: str) -> _State:
    return _cut("damaged (not what its encoder writes)", f"it hangs on {name}, which is damaged")


def _cut(reason: str, behind: str) -> _State:
    return _State(None, behind, Made(reason=reason))


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(getattr(error, "fields", {}).get("reason") or getattr(error, "detail", error))


def _name(step: Step) -> str:
    return Path(step.path).name


# -- samples


def read_png(path: Path) -> Picture:
    """The samples of a file; raises NotExact, OSError."""
    return read_picture(path.read_bytes())


def read_picture(data: bytes) -> Picture:
    """The samples of a PNG as image libraries give them; raises NotExact."""
    try:
        frame, layout, head = png.read(data)
    except NotExact as error:
        if error.detail != "interlaced":
            raise
        return _by_pillow(data)
    if layout.colour_type == 3:
        return Picture(frame, _palette_chunks(head), palette=True)
    if layout.bit_depth < 8:
        frame = frame * np.uint8(255 // layout.maximum)
    return Picture(frame)


def _by_pillow(data: bytes) -> Picture:
    image = Image.open(BytesIO(data))
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise NotExact(f"an interlaced PNG of mode {image.mode}")
    frame = np.array(image)
    return Picture(frame.reshape(frame.shape[0], frame.shape[1], -1))


def _palette_chunks(head: bytes) -> bytes:
    """PLTE and tRNS, as they stand in the file."""
    kept, at = b"", 0
    while at + 12 <= len(head):
        end = at + 12 + int.from_bytes(head[at : at + 4], "big")
        if head[at + 4 : at + 8] in (b"PLTE", b"tRNS"):
            kept += head[at:end]
        at = end
    return kept


def _aligned(picture: Picture | None, own: Frame) -> tuple[Picture | None, Frame]:
    """The picture before and a difference in the same samples; None where the shapes do not fit.

    A script may have read palette pictures as RGB, and dropped an alpha channel that says nothing.
    """
    if picture is None:
        return None, own
    frame = picture.frame
    if frame.dtype == own.dtype and frame.shape == own.shape:
        return picture, own
    if frame.shape[:2] != own.shape[:2] or frame.dtype != own.dtype or own.shape[2] != 3:
        return None, own
    if picture.palette:
        table = picture.head[8 : 8 + int.from_bytes(picture.head[:4], "big")]
        colours = np.zeros((256, 3), np.uint8)
        found = np.frombuffer(table, np.uint8)[: len(table) // 3 * 3].reshape(-1, 3)
        colours[: len(found)] = found
        return Picture(colours[frame[..., 0]]), own
    if frame.shape[2] == 4 and is_opaque(frame):
        wide = np.dstack((own, np.zeros(own.shape[:2], own.dtype)))
        # Otherwise it is the difference to another picture, which is missing.
        if _fit(frame, wide, frame + wide) >= _FITS:
            return picture, wide
    return None, own


def stands_alone(before: Frame | None, own: Frame) -> bool:
    """Whether the samples of a `.jxl` are taken for a picture and no difference to `before`."""
    differing = int(np.count_nonzero(own))
    if differing >= MOST_DIFFERING:
        return True
    # Of a small picture all samples may differ: which of both looks like a picture?
    mostly = 2 * differing > own.size
    return mostly and before is not None and _rough(own) < _rough(before + own)


def _rough(frame: Frame) -> int:
    """Samples that differ from the one to their left."""
    return int(np.count_nonzero(frame[:, 1:] != frame[:, :-1]))


# -- doubts


def _doubtful(before: Frame, own: Frame, after: Frame, context: Context) -> bool:
    """Whether a picture behind a gap has colours it should not have."""
    if _fit(before, own, after) >= _FITS or context.sample is None:
        return False
    # Photographs have new colours all the time: what do pictures without a gap have here?
    key, next_one = context.sample
    try:
        first = read_png(Path(key.path))
        step = jxl.read(Path(next_one.path).read_bytes())
    except (Damaged, NotExact, OSError):
        return False
    earlier, step = _aligned(first, step)
    if earlier is None:
        return False
    return _fit(earlier.frame, step, earlier.frame + step) >= _FITS


def _fit(before: Frame, own: Frame, after: Frame) -> float:
    """Of the pixels that change, the share whose new colour the picture before has somewhere."""
    changed = own.any(axis=2)
    if not changed.any():
        return 1.0
    palette = np.zeros(_COLOURS, bool)
    palette[_colours(before)] = True
    return float(palette[_colours(after[changed])].mean())


def _colours(pixels: Frame) -> npt.NDArray[np.uint32]:
    """Pixels (…, channels) as numbers below 2²⁴."""
    wide: npt.NDArray[np.uint32] = pixels.astype(np.uint32) & np.uint32(255)
    if pixels.shape[-1] < 3:
        return wide[..., 0]
    numbers = wide[..., 0] << np.uint32(16) | wide[..., 1] << np.uint32(8) | wide[..., 2]
    return np.asarray(numbers, np.uint32)


def _is_odd(
    step: Step, data: bytes, own: Frame, context: Context, at: int, memory: WorkerMemory
) -> bool:
    """Whether a file is not what the encoder here writes, while those around it are."""
    if _note(step, data, own, memory):
        return False
    sides = (
        context.differences[max(0, at - _NEAR) : at][::-1],
        context.differences[at + 1 : at + 1 + _NEAR],
    )
    return any(sides) and all(
        any(_is_genuine(other, memory) for other in side) for side in sides if side
    )


def _is_genuine(step: Step, memory: WorkerMemory) -> bool:
    known = memory.genuine.get((step.path, step.stamp))
    if known is not None:
        return known
    try:
        data = Path(step.path).read_bytes()
        return _note(step, data, jxl.read(data), memory)
    except (Damaged, OSError):
        return False


def _note(step: Step, data: bytes, own: Frame, memory: WorkerMemory) -> bool:
    """Whether the encoder here makes the same file of what the file decodes to; remembered."""
    fits = own.dtype == np.uint8 and jxl.fits(own)  # as in `writing`
    found = fits and jxl.encode(own, 1) == codestream(data)
    memory.genuine[step.path, step.stamp] = found
    return found


def sample_of(runs: Sequence[Run], number: int) -> tuple[Step, Step] | None:
    """A PNG and the difference behind it without a gap, from the run nearest to number `number`."""
    for at in sorted(range(len(runs)), key=lambda other: abs(other - number)):
        run = runs[at]
        if at != number and len(run) > 1 and _is_sample(run[0], run[1]):
            return run[0], run[1]
    return None


def _is_sample(first: Step, second: Step) -> bool:
    link = not first.is_difference and second.is_difference
    return link and not (second.after_gap or second.unsure)


def gives(before: bytes, after: bytes, path: str) -> bool:
    """Whether the difference between two PNGs has the very samples of the `.jxl` at `path`."""
    try:
        first, second = read_picture(before), read_picture(after)
        decoded = jxl.read(Path(path).read_bytes())
    except (Damaged, NotExact, OSError):
        return False
    start, own = _aligned(first, decoded)
    if start is None or start.frame.dtype != second.frame.dtype:
        return False
    alike = start.frame.shape == second.frame.shape
    return alike and np.array_equal(second.frame - start.frame, own)


def same_picture(data: bytes, other: bytes) -> bool:
    """Whether two PNGs have the same samples, in the same channels and of the same depth."""
    try:
        first, second = read_picture(data), read_picture(other)
    except NotExact:
        return False
    alike = (first.palette, first.head) == (second.palette, second.head)
    alike = alike and first.frame.dtype == second.frame.dtype
    return alike and np.array_equal(first.frame, second.frame)
