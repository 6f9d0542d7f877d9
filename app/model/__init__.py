"""The model and its life: bundles, networks, runtimes and the service that owns them.

Nothing in this package knows of HTTP, Flask or marshmallow, and importing it imports no torch.
"""
