"""Trials: long runs against real servers that show whether Lantern can be relied on.

They use the application only as its users do, by Gunicorn and HTTP, and what starts, watches and
asks servers in `benchmarks`. `python -m trials.rolling_restart`, `trials.soak`, `trials.fuzz` and
`trials.audit` each print what they saw, and exit with 1 when something was not as promised.
"""
