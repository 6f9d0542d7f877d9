"""Packing a user's own model: from a file, a description and samples to a bundle.

`file.pack_file` is the way in; `description` and `samples` read what a user writes about a model,
`program` and `graph` what the model is. Nothing here is imported where models are served.
"""
