"""ONNX graphs: what is read from one, and what is added so that it can be served."""
