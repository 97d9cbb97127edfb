"""What puts a store right: after a crash (startup), on request (repair), and what finds damage.

:mod:`startup` runs each time a store is opened for writing. :mod:`check` reports damage and
changes nothing. :mod:`repair` mends damage in three steps: :mod:`scan` reads facts, :mod:`merge`
plans from them, :mod:`write` performs the plan. :mod:`consistency` asks whether rows of the index
are missing before anything is deleted because of it.
"""
