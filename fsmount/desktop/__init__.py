"""fsmount for file managers: thumbnails of the pictures of a mounted store."""
