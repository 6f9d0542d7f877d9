"""What TorchServe's users have, in it, in its peers and in Lantern."""
