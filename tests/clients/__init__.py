"""Clients that others wrote, unchanged, against a real service; `make test-clients` runs them."""
