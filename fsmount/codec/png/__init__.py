"""PNG files: chunks, scanlines, filters and samples."""
