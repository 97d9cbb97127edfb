"""Photo albums: a folder of photos as one video and one XML; lossy, and said so."""
