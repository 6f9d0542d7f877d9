"""Archives of other servers, as bundles.

`container` unpacks one within bounds, `torchserve` reads what TorchServe's says, and `packing`
makes a bundle of it. Nothing in one runs before the owner allows it.
"""
