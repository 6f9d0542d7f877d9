"""What a model is: features, manifest, bundle, runtimes, batching, cache.

Nothing in this package knows of HTTP, Flask or marshmallow, and importing it imports no torch.
"""
