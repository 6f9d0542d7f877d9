"""Lantern's own protocol: samples and predictions in JSON, by name."""
