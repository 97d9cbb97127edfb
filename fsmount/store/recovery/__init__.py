"""Recovery after a crash (startup), search for damage (check), and repair on request.

:mod:`startup` runs each time a store is opened for writing. :mod:`check` reports damage and
changes nothing. :mod:`repair` mends damage in three steps: :mod:`scan` reads facts, :mod:`merge`
plans from them, :mod:`write` performs the plan. :mod:`consistency` finds out whether rows of the
index are missing, before a file without a row is deleted.
"""
