"""The job that renders a group: objects near to each other, one after the other in one worker.

Neighbours have most layers in common, and the deflate stream of a picture is made from the stream
of the one before. So a worker that renders a run of neighbours does each of these things once. If
workers took turns at them, each would do them again: on 16 cores the same work took twice the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from fsmount.store.frames import jobs
from fsmount.store.frames.layers import Done, JobLayers, Loan
from fsmount.store.frames.reader import Reader
from fsmount.store.packs.location import Location

# A worker keeps the stream of one picture for the next one, also if its share of the cache is
# smaller: that of a picture of 3840 x 2160 pixels fits.
_STREAM_BYTES = 48 << 20
# A job ends after the object with which its decoded layers exceed one of these. An answer holds
# fewer than MOST_SEALED layers, and one object needs some 30 at most.
_LAYER_BYTES = 64 << 20
_LAYERS = 150


class Rendered(NamedTuple):
    """A rendered file that has the hash of the index.

    size, sha256 : of its bytes.
    data : its bytes, which a message does not copy; empty if the caller wanted none.
    """

    size: int
    sha256: bytes
    data: bytearray


def render(
    wanted: Sequence[tuple[Location, bytes]],
    places: Sequence[Location],
    with_bytes: bool,
    loan: Loan,
) -> Done[list[Rendered | None]]:
    """Render the files of some objects, and compare their hashes.

    `wanted` has the location and the hash of each object, `places` are the locations of the other
    entries that they need. The result has one item for each of the first objects, at least one:
    None if the object cannot be rendered. The job ends early if the layers take much memory.
    """
    memory = jobs.memory_for(max(loan.streams_bytes, _STREAM_BYTES))
    layers = JobLayers(loan, memory)
    reader = Reader([*places, *(target for target, _ in wanted)], memory, layers)
    found: list[Rendered | None] = []
    for target, sha256 in wanted:
        reader.begin()
        found.append(_rendered(target, reader, sha256, with_bytes))
        if _is_enough(layers):
            break
    return Done(found, layers.made())


def _rendered(target: Location, reader: Reader, sha256: bytes, with_bytes: bool) -> Rendered | None:
    try:
        data = jobs.rendered(reader.entry(target.id), reader, sha256, alone=False)
    except MemoryError:
        raise
    # A damaged record can make the code raise any exception. The caller renders the object alone,
    # and gets the reason.
    except Exception:
        return None
    return Rendered(
        len(data), hashlib.sha256(data).digest(), bytearray(data if with_bytes else b"")
    )


def decode_layers(wanted: Sequence[Location], places: Sequence[Location], loan: Loan) -> Done[None]:
    """Decode the layers of the `wanted` objects, for the jobs that need them.

    `places` are the locations of these entries, and of others that the layers may need. Leaves out
    what cannot be decoded: the job that needs it finds out why. Ends early if the layers take much
    memory.
    """
    layers = JobLayers(loan)
    reader = Reader(places, jobs.memory_for(loan.streams_bytes), layers)
    for target in wanted:
        if _is_enough(layers):
            break
        try:
            reader.layer(target.id)
        except MemoryError:
            raise
        except Exception:
            continue
    return Done(None, layers.made())


def _is_enough(layers: JobLayers) -> bool:
    """Whether a job has decoded so many layers that it should end."""
    return layers.count > _LAYERS or layers.nbytes > _LAYER_BYTES
