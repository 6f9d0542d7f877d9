"""Programs of torch: read without running their code, and exported as ONNX graphs."""
