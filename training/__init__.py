"""Training of the example model; ``python -m training.train`` is its front door.

It may import `app.model`, whose network and bundles it makes; nothing of `app` imports it.
"""
