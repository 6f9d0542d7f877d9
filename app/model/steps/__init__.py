"""Steps: data that says how a sample's bytes become the tensors that a network takes."""
