"""What a worker and the application leave for each other in a WSGI environ: the keys of it.

They are the whole of what the two have to know of each other; an application may ignore them all.
"""

REFUSAL = "app.worker.refusal"
"""The `Refusal` that an application is asked to word; see `KeepAliveWorker.asks_application`."""
OVERDUE = "app.worker.overdue"
"""How many seconds a request has waited, or would, that is longer than it may."""
HELD = "app.worker.held"
"""Set by an application that makes its answer bit by bit: how many bytes of memory that takes until
the end. They are counted with what the connection itself holds."""
