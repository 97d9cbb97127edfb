"""What one file's way through the pipeline ends with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from fsmount.store.index import Object
from fsmount.store.ingest.claims import Claim


@dataclass(frozen=True, slots=True)
class Appended:
    """The body has an object, which the next commit makes durable.

    Attributes
    ----------
    object_id : the object's number.
    size : bytes of the body.
    new : the object's row, or None if the store had the same bytes before.
    check : reads the new entry back; raises if it is not the entry that was proved.
    kept : the file in ``raw/`` that holds a large body.
    dictionary : the geometry that `new` is a dictionary of; "" for the body of a file. A
        dictionary has the claim of the file that it was made before.
    """

    claim: Claim
    object_id: int
    size: int
    new: Object | None
    check: Callable[[], None] | None = None
    kept: Path | None = None
    dictionary: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """Everything appended was given up meanwhile.

    The committer queues the file again, behind the files that were before it.
    """

    claim: Claim


class Skipped(Enum):
    """Nothing was appended. The encoder queues the file again if it still has a staged body."""

    NOT_STAGED = "the file was removed, or a writer has it"
    CHANGED = "the body was changed or replaced on the way"
    RESCUED = "the staged file was replaced after a failed fsync"


Outcome = Appended | Retry | Skipped
