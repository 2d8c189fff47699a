"""Checkpoint to generator to ONNX to bundle: the only folder that knows diffusers, peft and transformers."""
