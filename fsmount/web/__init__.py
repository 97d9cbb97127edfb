"""A page on this machine that shows a store: days, moments, search, habits, storage and albums.

Nothing here changes a store. `safety` decides who may ask, `serving` runs the server, `routes`
gives each address its answer. The other modules make the answers: `table` knows when each picture
was taken, `activity` counts, `days` lists, `pictures` renders.
"""
