"""Frames in, frames out: pictures now, cameras next. No torch, no onnx."""
