"""The engine RapidOCR (extra `ocr`): neural networks that come with its package.

It reads Chinese, Japanese and English at once. It takes three to ten times the processor time of
tesseract. Nothing is downloaded: the models of its package are named here.
"""

from __future__ import annotations

import importlib.metadata
import logging
from typing import Any

from fsmount.errors import NoEngine
from fsmount.text.engines import Picture, ReadWord
from fsmount.text.results import Rectangle


class RapidOcr:
    """See :class:`Engine`."""

    def __init__(self) -> None:
        """Raises :class:`NoEngine` if the package is not installed."""
        try:
            from rapidocr import RapidOCR

            version = importlib.metadata.version("rapidocr")
            importlib.metadata.version("onnxruntime")
        except ImportError as error:
            raise NoEngine(
                "rapidocr is not installed: pip install 'fsmount[ocr]'"
                " (in a checkout: contrib/install ocr)"
            ) from error
        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        self.name = f"rapidocr {version}"
        self._reader: Any = RapidOCR(
            params={
                # One thread: the process is to disturb nobody.
                "EngineConfig.onnxruntime.intra_op_num_threads": 1,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "Global.use_cls": False,
                "Global.log_level": "error",
            }
        )

    def read(self, picture: Picture) -> list[ReadWord]:
        """See :meth:`Engine.read`. Raises :class:`NoEngine`."""
        try:
            # It takes colours in the order of OpenCV.
            found = self._reader(picture[..., ::-1], return_word_box=True)
        except Exception as error:
            # onnxruntime raises errors of its own.
            raise NoEngine(f"rapidocr failed ({error})") from error
        words = []
        for line in found.word_results or ():
            for text, score, box in line:
                if text.strip():
                    words.append(ReadWord(text.strip(), _around(box), 100.0 * float(score)))
        return words

    def close(self) -> None:
        """See :meth:`Engine.close`."""
        self._reader = None


def _around(corners: Any) -> Rectangle:
    """Return the rectangle around four corners (x, y)."""
    across = [round(float(x)) for x, _ in corners]
    down = [round(float(y)) for _, y in corners]
    x, y = min(across), min(down)
    return Rectangle(x, y, max(1, max(across) - x), max(1, max(down) - y))
