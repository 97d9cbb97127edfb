"""Jobs of worker processes: look at a staged file, encode a frame or JPEG, render an object.

All arguments and results are immutable values. Jobs read packs and staged files by path.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fsmount.codec.deflate.deflate import DeflateParams
from fsmount.codec.delta import delta, moves, payload, record
from fsmount.codec.delta.delta import MAX_SLOTS, OWN, Copy, Layer, TileLayout
from fsmount.codec.delta.payload import Own, Payload
from fsmount.codec.delta.record import Record
from fsmount.codec.images import images, jpeg
from fsmount.codec.memory import WorkerMemory, of_worker
from fsmount.codec.png.png import Picture, assemble, parse
from fsmount.codec.png.producer import unknown_encoder
from fsmount.codec.png.recipe import Recipe
from fsmount.codec.png.samples import Frame
from fsmount.errors import Damaged, NotExact
from fsmount.store.frames import features
from fsmount.store.frames.features import FrameFeatures
from fsmount.store.frames.layers import DecodedLayer, Done, JobLayers, Layers, Loan
from fsmount.store.frames.pending import PendingObject
from fsmount.store.frames.planner import Plan
from fsmount.store.frames.reader import Reader
from fsmount.store.frames.relations import Below, References, Relations, references, relations
from fsmount.store.packs.entries import (
    DICTIONARY,
    JPEG,
    FileFacts,
    dictionary_content,
    entry_digest,
    layout_of,
    picture_record,
    raw_length,
    recipe_of,
)
from fsmount.store.packs.location import Location
from fsmount.store.packs.pack import Entry, build_entry, parse_entry, read_entry
from fsmount.work import machine
from fsmount.work.shared_frames import SharedPicture, share

# Several threads render and look: a program waits for a render, and a picture that arrives alone
# is looked at sooner on several cores.
_MOST_THREADS = 4
# A tile gets a residual only if the roughness of the residual is below this share of the roughness
# of its pixels. A second encoding decides whether the residuals are used.
_RESIDUAL_LOOKS_BETTER = 0.7
# A large image is encoded a second time, with residuals, only if at least this share of its tiles
# has a prediction. For 120 desktop frames the second encodings cost 5 ms a frame and saved
# 1.4 %. With this bound they cost 0.7 ms and save 0.8 %.
_FEW = 0.03
_NOTHING = Loan()
LARGER = "larger when encoded"
"""Reason why a picture is kept raw: its entry would be larger than its file."""
# An entry may be at most this many bytes larger than the entry of the verbatim file: no other
# picture can use the pixels of a verbatim file.
_MOST_LARGER = 2048
# A record against an anchor that is as short as this is not compared with one that stands alone.
_SHORT = 400


@dataclass(frozen=True)
class Look:
    """The result of a look at a staged file.

    sha256, size : SHA-256 and size in bytes of the file.
    picture, features : the picture and its features. None if the file is kept raw.
    reason : why the file is kept raw. "" for a picture.
    jpeg : whether the file is a JPEG that :func:`transcode` may make smaller.
    """

    sha256: bytes
    size: int
    picture: SharedPicture | None
    features: FrameFeatures | None
    reason: str
    jpeg: bool = False


@dataclass(frozen=True)
class EncodeOrder:
    """A frame to encode.

    about : the facts that the record of the frame gets.
    picture : the frame and its recipe, or where another process holds them.
    plan : which tiles to copy from which objects.
    places : locations of all entries that encoding may need.
    pending : the objects of the plan that have no entry yet.
    pack : path of the pack that the entry probably goes to, "" for none.
    dictionary : the entry of the plan's dictionary, if no pack has it yet.
    """

    about: FileFacts
    picture: Picture | SharedPicture
    plan: Plan
    places: tuple[Location, ...]
    pending: tuple[PendingObject, ...] = ()
    pack: str = ""
    dictionary: Entry | None = None

    def reader(self, memory: WorkerMemory, layers: Layers) -> Reader:
        """Return a reader of the objects that encoding may need."""
        return Reader(self.places, memory, layers, self.pending, self.dictionary)


class Proof(NamedTuple):
    """What a job has checked of an entry.

    references : the objects that the entry names.
    levels : level of the layer of each object that the frame is made of, as pairs (id, level); 0
        for a pending object.
    anchor : SHA-256 of the record that a pending anchor must get; b"" if the anchor is not pending.
    digest : :func:`entry_digest` of the checked entry, with all other fields.
    """

    references: References
    levels: tuple[tuple[int, int], ...]
    anchor: bytes
    digest: bytes


@dataclass(frozen=True)
class Encoded:
    """An encoded frame. The worker has decoded the entry and compared the result.

    entry : the entry.
    kind : column of the object's row in the index.
    layout : where each tile comes from.
    fell_back : whether the plan failed and the frame is coded without other objects.
    proof : what was checked.
    """

    entry: Entry
    kind: str
    layout: TileLayout
    fell_back: bool
    proof: Proof


@dataclass(frozen=True)
class Transcoded:
    """A JPEG as a JPEG XL file. The worker has made the JPEG again from it.

    `proof` is the SHA-256 of `payload`.
    """

    payload: bytes
    proof: bytes


def memory_for(streams_bytes: int) -> WorkerMemory:
    """Return the caches of this process, after limiting those for deflate streams."""
    memory = of_worker()
    memory.streams.resize(streams_bytes)
    return memory


@functools.cache
def _threads() -> int:
    """Number of threads for one job: the cores of this process, capped at _MOST_THREADS."""
    return min(_MOST_THREADS, machine.cores())


def look(
    path: str, hints: Sequence[DeflateParams], streams_bytes: int = 0, alone: bool = True
) -> Look:
    """Hash a staged file. If it is a PNG that can be re-created exactly, parse it.

    `path` is the path of the staged file, `hints` are the deflate parameters to try first,
    `streams_bytes` is the number of bytes of deflate streams that this process may keep for its
    next job. `alone`: no other job keeps the cores busy, so this one may use several. Raises
    OSError.
    """
    memory = memory_for(streams_bytes)
    data = Path(path).read_bytes()
    sha256 = hashlib.sha256(data).digest()
    try:
        threads = _threads() if alone else 1
        picture = parse(data, hints, threads=threads, memory=memory)
    except NotExact as error:
        is_jpeg = jpeg.is_jpeg(data) and jpeg.available()
        return Look(sha256, len(data), None, None, str(error.detail), is_jpeg)
    shared = share(path, sha256, picture)
    return Look(sha256, len(data), shared, features.of(picture.frame, memory), "")


def look_raw(path: str, reason: str) -> Look:
    """Hash a staged file that is kept verbatim. The caller knows the reason. Raises OSError."""
    data = Path(path).read_bytes()
    return Look(hashlib.sha256(data).digest(), len(data), None, None, reason)


def transcode(path: str, sha256: bytes) -> Transcoded:
    """Encode a staged JPEG as a JPEG XL file, and make the JPEG again from it as a proof.

    `sha256` is the SHA-256 that the look found. Raises OSError, and :class:`NotExact` if the file
    has another hash, no JPEG XL file gives the same bytes, or none is smaller.
    """
    data = Path(path).read_bytes()
    if hashlib.sha256(data).digest() != sha256:
        raise NotExact("changed while it was encoded")
    coded = jpeg.encode(data)
    return Transcoded(coded, hashlib.sha256(coded).digest())


@dataclass(frozen=True)
class DecodedPicture:
    """A decoded picture: its frame, its recipe, and the layer of its object."""

    frame: Frame
    recipe: Recipe
    own: DecodedLayer


def decode_picture(
    entry: Entry, found: Record, reader: Reader, *, alone: bool = True
) -> DecodedPicture:
    """Decode the frame and recipe of an entry from payloads alone. `found` is its record.

    `alone`: no other job keeps the cores busy, so several threads may decode. Otherwise a job of a
    group may have decoded the layer already. Raises :class:`Damaged`.
    """
    layout = layout_of(found)
    known = None
    if alone:
        reader.prefetch(entry, layout)
    else:
        known = reader.known_layer(entry.object_id)
    own, level = (known.layer, known.level) if known else reader.decode(entry, layout)
    others = {i: reader.layer(i) for i in sorted(layout.copied())}
    frame = delta.compose(layout, own, others)
    return DecodedPicture(frame, recipe_of(found), DecodedLayer(own, level))


def relations_of(target: Location, reader: Reader) -> Relations:
    """Compute columns of a picture's row from its entry. Decodes its frame, so the entry is whole.

    `reader` has the locations of all entries that the picture may need. Raises :class:`Damaged`.
    """
    reader.begin()
    entry = read_entry(Path(target.pack), target.offset, target.length)
    found = reader.record(entry)
    decode_picture(entry, found, reader)
    named = references(layout_of(found), entry)
    return relations(named, {i: _below(i, reader) for i in named.layers()})


def layer_relations(object_id: int, reader: Reader) -> tuple[int, ...]:
    """Compute the column `layer` of a picture whose frame cannot be made any more.

    Decodes its layer. Raises :class:`Damaged` if that is not possible either.
    """
    reader.begin()
    return _below(object_id, reader).layer


def _below(object_id: int, reader: Reader) -> Below:
    """Return what the layer of an object rests on, from its entry. Raises :class:`Damaged`."""
    entry, layout = reader.opened(object_id)
    named = references(layout, entry)._replace(copied=())
    found = relations(named, {i: _below(i, reader) for i in named.predicting})
    return Below(found.layer, reader.level(object_id))


def render(
    target: Location, places: Sequence[Location], sha256: bytes, loan: Loan = _NOTHING
) -> Done[bytes]:
    """Render the file of an object and compare its hash. The result is the bytes of the file.

    `places` are the locations of the other entries that it needs. `sha256` is the hash in the
    index. Raises :class:`Damaged`.
    """
    memory = memory_for(loan.streams_bytes)
    layers = JobLayers(loan, memory)
    reader = Reader([*places, target], memory, layers)
    data = rendered(reader.entry(target.id), reader, sha256)
    return Done(data, layers.made())


def rendered(entry: Entry, reader: Reader, sha256: bytes, *, alone: bool = True) -> bytes:
    """Render the file of an entry. Return its bytes.

    `alone`: no other job keeps the cores busy, so this one may use several. Raises
    :class:`Damaged` if the hash of the bytes is not `sha256`, if the record has another hash, or
    if an entry is damaged.
    """
    found = reader.record(entry)
    what = f"object {entry.object_id}"
    kind = found.header.get("kind")
    if kind == "raw":
        data = entry.payload
    elif kind == DICTIONARY:
        data = dictionary_content(entry, found)
    elif kind == JPEG:
        if entry.suffix != images.JXL:
            raise Damaged(what, reason=f"a JPEG as {entry.suffix!r}")
        data = jpeg.decode(entry.payload, what)
    else:
        rebuilt = decode_picture(entry, found, reader, alone=alone)
        # The next picture probably copies tiles from this layer.
        reader.keep(entry.object_id, rebuilt.own)
        threads = _threads() if alone else 1
        data = assemble(rebuilt.frame, rebuilt.recipe, threads=threads, memory=reader.memory)
    if not hashlib.sha256(data).digest() == sha256 == found.arrays.get("sha256"):
        raise Damaged(what, reason="the rendered bytes have another hash")
    return data


def find_moves(order: EncodeOrder, loan: Loan = _NOTHING) -> Done[Plan]:
    """Return the plan of an order with copies in place of own tiles, where tiles have only moved.

    The tiles are searched in the layers of the objects `near` of the plan. The result names no such
    objects any more. It is the plan as it was, if a layer cannot be read: the search saves space
    and nothing else. Raises NotExact, OSError if the picture cannot be read.
    """
    memory = memory_for(loan.streams_bytes)
    layers = JobLayers(loan, memory)
    plan = replace(order.plan, near=())
    frame = _with_picture(order, memory).picture.frame
    reader = order.reader(memory, layers)
    with suppress(Damaged):
        plan = _with_moves(frame, plan, {i: reader.layer(i) for i in order.plan.near})
    return Done(plan, layers.made())


def _with_moves(frame: Frame, plan: Plan, layers: Mapping[int, Layer]) -> Plan:
    """Return the plan with copies from `layers` (by object id) of tiles that have only moved."""
    is_flat, _ = delta.flat(frame)
    tiles, sources = plan.tiles.copy(), list(plan.sources)
    for copy, mask in moves.find(frame, (tiles == OWN) & ~is_flat, layers):
        if len(sources) < MAX_SLOTS:
            sources.append(copy)
            tiles[mask] = len(sources)
    return replace(plan, tiles=tiles, sources=tuple(sources))


def encode(order: EncodeOrder, loan: Loan = _NOTHING) -> Done[Encoded]:
    """Encode a frame as planned, and decode the entry as a proof.

    If the plan fails, encode again without the wrong copies, and then as a keyframe. Raises
    :class:`NotExact` if the keyframe decodes to something else, too, if the entry is too large, or
    if the picture is that of another file. Raises OSError if the picture cannot be read.
    """
    memory = memory_for(loan.streams_bytes)
    layers = JobLayers(loan, memory)
    encoded = _encode_somehow(order, memory, layers)
    return Done(encoded, layers.made())


def _encode_somehow(order: EncodeOrder, memory: WorkerMemory, layers: Layers) -> Encoded:
    """Encode a frame; see :func:`encode`."""
    order = _with_picture(order, memory)
    try:
        return _encode(order, memory, layers, fell_back=False)
    except Damaged as error:
        if not order.plan.sources:
            raise NotExact(f"decoding gave something else: {error}") from error
    with suppress(Damaged):
        return _encode(
            _without_wrong_copies(order, memory, layers), memory, layers, fell_back=False
        )
    alone = Plan(np.zeros_like(order.plan.tiles), (), np.zeros_like(order.plan.tiles), 0)
    try:
        return _encode(replace(order, plan=alone), memory, layers, fell_back=True)
    except Damaged as error:
        raise NotExact(f"decoding gave something else: {error}") from error


def _with_picture(order: EncodeOrder, memory: WorkerMemory) -> EncodeOrder:
    """Return the order with its frame in this process.

    Raises :class:`NotExact` if the picture is that of another file, and OSError.
    """
    if not isinstance(order.picture, SharedPicture):
        return order
    if order.picture.sha256 != order.about.sha256:
        raise NotExact("a picture of another file")
    return replace(order, picture=order.picture.get(memory))


def _without_wrong_copies(order: EncodeOrder, memory: WorkerMemory, layers: Layers) -> EncodeOrder:
    """Return the order without the copies that show other pixels.

    Such copies happen because the planner compares only a few bytes of each signature.
    """
    frame, plan = order.picture.frame, order.plan
    shape = (frame.shape[0], frame.shape[1], frame.shape[2])
    layout = TileLayout(shape, frame.dtype, plan.tiles, plan.sources, np.zeros_like(plan.tiles))
    reader = order.reader(memory, layers)
    copied = {i: reader.layer(i) for i in layout.copied()}
    same = delta.split(frame) == delta.copies(layout, copied)
    tiles = np.where(same.all(axis=(2, 3, 4)), plan.tiles, OWN).astype(np.uint8)
    return replace(order, plan=replace(plan, tiles=tiles))


def _encode(
    order: EncodeOrder, memory: WorkerMemory, layers: Layers, *, fell_back: bool
) -> Encoded:
    """Encode a frame, decode the entry and compare frame, recipe and record.

    Raises :class:`Damaged` if they differ, and :class:`NotExact` if the entry is too large.
    """
    entry, layout = _entry(order, order.reader(memory, layers))
    data = build_entry(entry)
    fresh = order.reader(memory, layers)
    parsed, _ = parse_entry(data)
    written = fresh.record(parsed)
    rebuilt = decode_picture(parsed, written, fresh)
    picture, kind = order.picture, "delta" if layout.sources else "key"
    if not (
        written.header.items() >= order.about.header(kind).items()
        and written.arrays.get("sha256") == order.about.sha256
    ):
        raise Damaged(f"object {order.about.id}", reason="the record is of something else")
    if not delta.equal(rebuilt.frame, picture.frame) or rebuilt.recipe != picture.recipe:
        raise Damaged(f"object {order.about.id}", reason="the decoded frame differs")
    # What other jobs may have taken for this layer while it was pending.
    if not delta.same_layer(rebuilt.own.layer, delta.layer_in(picture.frame, layout.own())):
        raise Damaged(f"object {order.about.id}", reason="its layer is not what its frame shows")
    if order.pack:
        # The next frame probably copies tiles from this layer.
        layers.put((order.pack, order.about.id), rebuilt.own)
    named = references(layout, entry)
    levels = tuple((i, fresh.level(i)) for i in sorted(named.layers()))
    anchor = fresh.assumed_anchor(named.anchor)
    digest = entry_digest(data, order.about, kind, (named, levels, anchor))
    proof = Proof(named, levels, anchor, digest)
    return Encoded(entry, kind, layout, fell_back, proof)


def _entry(order: EncodeOrder, reader: Reader) -> tuple[Entry, TileLayout]:
    """Encode a frame. Return its entry and its layout.

    If the entry is too large, encode once more with more effort, provided that a smaller payload
    can help. Raises :class:`NotExact` if the entry stays too large.
    """
    plan = order.plan
    for fast in (True, False):
        layout, images, dictionary = _coded(order.picture.frame, plan, reader, fast=fast)
        layout = layout.without_unused_sources()
        stored = _record(order, layout, reader)
        name = f"{order.about.id:08x}{images.suffix}"
        entry = Entry(name, stored, images.data, images.photographs, dictionary)
        length = len(build_entry(entry))
        # An entry that is smaller than the file is never too large.
        if length < order.about.size or length <= _most_bytes(order):
            return entry, layout
        if length - images.cost > _most_bytes(order):
            break
    raise _too_large(order)


def _most_bytes(order: EncodeOrder) -> int:
    """Largest length in bytes that the entry of a picture may have.

    No other picture can copy from a picture that is kept raw. So an entry may be larger than the
    raw one by 512 bytes plus a quarter of the file, together 2 KB at most. An entry with a
    correction record must be smaller than the file, because a larger one is mostly corrections.
    """
    size = order.about.size
    if order.picture.recipe.has_corrections:
        return size - 1
    return raw_length(order.about, LARGER) + min(512 + size // 4, _MOST_LARGER)


def _too_large(order: EncodeOrder) -> NotExact:
    """Make the error that says why a picture with a too large entry is kept raw."""
    recipe = order.picture.recipe
    if not recipe.has_corrections:
        return NotExact(LARGER)
    idat = recipe.split if isinstance(recipe.split, int) else recipe.split[0]
    return unknown_encoder(recipe.head, recipe.tail, idat)


def _coded(
    frame: Frame, plan: Plan, reader: Reader, *, fast: bool
) -> tuple[TileLayout, Payload, int]:
    """Encode the own tiles with and without residuals, and keep the smaller payload.

    Returns its layout, it, and the id of its dictionary. `fast` selects less effort.
    """
    shape = (frame.shape[0], frame.shape[1], frame.shape[2])
    nothing = np.zeros_like(plan.tiles)
    plain = TileLayout(shape, frame.dtype, plan.tiles, plan.sources, nothing)
    own = Own(delta.own_tiles(frame, plain, {}), plain.own(), shape)
    is_small = len(own.tiles) < payload.LARGE
    dictionary = reader.dictionary(plan.dictionary) if is_small else None
    coded = payload.encode(own, dictionary, fast=fast)
    prediction = _worthwhile(plain, plan, frame, reader)
    few = not is_small and np.count_nonzero(prediction) < _FEW * len(own.tiles)
    if prediction.any() and not few:
        mixed = replace(plain, prediction=prediction)
        others = {i: reader.layer(i) for i in mixed.predicting()}
        residual = replace(own, tiles=delta.own_tiles(frame, mixed, others))
        other = payload.encode(residual, dictionary, fast=fast)
        if other.cost < coded.cost:
            plain, coded = mixed, other
    return (
        plain,
        coded,
        plan.dictionary if dictionary is not None and coded.suffix == payload.PAM else 0,
    )


def _worthwhile(layout: TileLayout, plan: Plan, frame: Frame, reader: Reader) -> delta.Tiles:
    """For each own tile return the slot to predict it from, 0 if its pixels look as cheap.

    The result has shape (tile rows, tile columns) and dtype uint8.
    """
    guess = np.where(layout.own(), plan.guess, 0).astype(np.uint8)
    if not guess.any():
        return guess
    candidate = replace(layout, prediction=guess)
    layers = {i: reader.layer(i) for i in candidate.predicting()}
    for slot in delta.slots(guess):
        source = candidate.source(slot)
        if isinstance(source, Copy):
            guess[(guess == slot) & (layers[source.object].index < 0)] = 0
    guessed = guess != 0
    tiles = delta.cut(frame, guessed)
    predicted = delta.predictions(replace(layout, prediction=guess), layers)
    keep = _roughness(tiles - predicted) < _RESIDUAL_LOOKS_BETTER * _roughness(tiles)
    guess[guessed] = np.where(keep, guess[guessed], 0)
    return guess


def _roughness(tiles: Frame) -> NDArray[np.int64]:
    """Estimate the cost of each tile: the number of samples that differ from a neighbour.

    `tiles` has shape (n, TILE, TILE, channels). The result has shape (n,).
    """
    step = tiles[:, :, 1:] != tiles[:, :, :-1]
    first = tiles[:, 1:, 0] != tiles[:, :-1, 0]
    return np.asarray(step.sum(axis=(1, 2, 3)) + first.sum(axis=(1, 2)))


def _record(order: EncodeOrder, layout: TileLayout, reader: Reader) -> bytes:
    """Pack the record, against the anchor of the plan if that makes it smaller."""
    whole = picture_record(order.about, layout, order.picture.recipe)
    anchor = order.plan.anchor
    if not anchor:
        return record.pack(whole)
    against = record.pack(whole, anchor, reader.anchor(anchor))
    return against if len(against) <= _SHORT else min(against, record.pack(whole), key=len)
