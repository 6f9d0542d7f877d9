"""Packing a user's model: from a file, a description and samples to a bundle.

`file.pack_file` is the entry point; `description` and `samples` read what a user writes about a
model, `program` and `graph` the model itself. Nothing here is imported where models are served.
"""
