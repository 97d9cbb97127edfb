"""What a command that removes pictures does about their words."""

from __future__ import annotations

from fsmount.cli.common.output import warn
from fsmount.cli.common.progress import meter
from fsmount.errors import FsmountError, TextLocked
from fsmount.store.writable_store import WritableStore
from fsmount.text.wiping import SECONDS, wipe_at


async def wipe_words(store: WritableStore) -> None:
    """Remove the words of pictures that the store no longer shows. Warns if that is not possible.

    The pictures are gone in any case.
    """
    root = str(store.layout.root)
    try:
        done = await store.workers.run(wipe_at, root, SECONDS)
        if not done.left:
            return
        stopped = "fsmount text removes the others."
        with meter("removing words", sum(done), 0, noun="pictures", stopped=stopped) as progress:
            progress(done.removed, 0)
            while done.left:
                done = await store.workers.run(wipe_at, root, SECONDS)
                progress(done.removed, 0)
    except TextLocked:
        warn("another fsmount reads the text of this store now; it will remove the words, too")
    except (FsmountError, OSError) as error:
        warn(f"the words of what was removed may still be in the store: {error}")
