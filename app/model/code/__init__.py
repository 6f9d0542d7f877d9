"""The owner's own steps: code of a bundle, which runs only where the settings allow it.

The manifest names a handler and its files; `load_handler` executes it from the bytes that were
verified. Nothing here knows HTTP.
"""
