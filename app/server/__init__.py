"""Gunicorn as Lantern runs it: its configuration, and the server of ``lantern serve``."""
