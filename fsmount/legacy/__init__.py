"""Folders of screenshots stored as PNGs and differences: ``png, jxl, jxl, ..., png, jxl, ...``.

The method of the blog post "Losslessly Compressing 25000 Images": a picture of the same shape as
the one before it in time, which differs from it in fewer than 100,000 samples, is replaced by
``<same stem>.jxl``. That file holds the samples' difference modulo 256 as lossless JPEG XL. fsmount
reads such folders; :mod:`fsmount.legacy.writing` makes the differences for an export.
"""
