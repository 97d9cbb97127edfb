"""Photo albums: a folder of photos as one video and one XML file. Lossy on purpose."""
