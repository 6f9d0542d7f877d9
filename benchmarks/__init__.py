"""The benchmarks: what Lantern costs, beside the same model served by others.

``make bench`` runs them all, ``make bench-check`` says what fell back since the last committed
results, and ``python -m benchmarks --help`` tells how to run a part. They measure Lantern from
outside, as a client, ``/proc`` and valgrind see it. The one exception is `benchmarks.stripped`,
which takes away features that no setting turns off.
"""
