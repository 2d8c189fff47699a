"""What executes a network: the bundle format, one contract, one module per backend, the builders. No torch, no onnx."""
