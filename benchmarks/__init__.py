"""The benchmarks: what Lantern costs, beside the same model served by three FastAPI programs.

``make bench`` runs them all; ``python -m benchmarks --help`` tells how to run a part. They measure
Lantern from outside, as a client and as ``/proc`` see it, and import nothing of it but the writer
of checkpoints.
"""
