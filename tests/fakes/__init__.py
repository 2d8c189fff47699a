"""Simulated CUDA and TensorRT, for what can be known without a GPU; see each module for what it shows and cannot."""
