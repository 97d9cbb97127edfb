"""Deflate streams that fsmount makes again bit for bit."""
