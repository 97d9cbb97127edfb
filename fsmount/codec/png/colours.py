"""Samples of any PNG as RGBA of 8 bits, to be looked at or compared."""

from __future__ import annotations

import numpy as np

from fsmount.codec.png.samples import Frame, SampleLayout


def rgba(frame: Frame, layout: SampleLayout, head: bytes) -> Frame:
    """Convert a frame with all channels to RGBA of 8 bits: uint8 (height, width, 4).

    `head` contains the chunks before the first IDAT. PLTE in it gives the colours of a palette
    picture. Raises ValueError if a palette picture has no PLTE.
    """
    out = np.full((*frame.shape[:2], 4), 255, np.uint8)
    if layout.bit_depth == 16:
        frame = (frame >> np.uint16(8)).astype(np.uint8)
    if layout.colour_type == 3:
        at = head.index(b"PLTE")
        table = np.zeros((256, 3), np.uint8)
        colours = np.frombuffer(
            head[at + 4 :][: int.from_bytes(head[at - 4 : at], "big")], np.uint8
        )
        table[: len(colours) // 3] = colours.reshape(-1, 3)
        out[..., :3] = table[frame[..., 0]]
        return out
    if layout.bit_depth < 8:
        frame = frame * np.uint8(255 // layout.maximum)
    channels = frame.shape[2]
    out[..., :3] = frame[..., :1] if channels < 3 else frame[..., :3]
    if layout.has_alpha:
        out[..., 3] = frame[..., -1]
    return out
