"""Folders of screenshots kept as PNGs and differences: `png, jxl, jxl, …, png, jxl, …`.

The method of the blog post "Losslessly Compressing 25000 Images": a picture that has the shape of
the one before it in time and differs from it in fewer than 100,000 samples is replaced by
`<same stem>.jxl`, the samples' difference modulo 256 as lossless JPEG XL. Only read here.
"""
