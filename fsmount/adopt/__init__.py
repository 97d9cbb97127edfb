"""Adopting a folder: a folder of pictures becomes the mount of a store while programs write to it.

The steps, in :mod:`fsmount.adopt.adopt`:

1. *Copy.* The files of the folder are imported into a new store, in passes, until little is new.
   The folder stays as it is. A file that a program may still be writing is left for later.
2. *Mount.* The store is mounted over the folder, on top of its files. One system call does this: at
   each moment the folder shows its files, and never looks empty.
3. *Collect.* What programs wrote below the mount (to files that they had opened before, or since
   the last pass) is copied into the mount, until nothing more comes.
4. *Move.* The files below the mount are moved to the folder `NAME.adopt/originals` beside it.
5. *Delete*, only if asked: each original is deleted after the store was read and compared with it.

The folder `NAME.adopt` also holds the state, which tells a later run where to go on.
"""
