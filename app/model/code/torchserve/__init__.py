"""What handlers of TorchServe archives know, for those that were packed from one.

It follows the names and behaviour of TorchServe 0.12; nothing of TorchServe is needed. The modules
are importable as ``ts`` by such a handler alone.
"""
