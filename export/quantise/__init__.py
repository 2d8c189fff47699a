"""Quantisation: which products run on eight bits, by which scales, and how far the picture departs for it.

``formats`` says what INT8 and FP8 are, ``sites`` which nodes can run on them and which block each belongs to,
``statistics`` and ``sections`` look at every activation once without keeping any, ``thresholds`` makes scales of that,
``calibrate`` puts these together, and ``mix`` finds the fastest mixture within a bound. The rewrites themselves are
``passes/quantise.py`` and ``passes/smooth.py``.

What does the work elsewhere, and why not more of it:

- ONNX Runtime's ``quantization.calibrate`` finds the entropy and percentile thresholds. Its calibrators are not used as
  a whole: they fetch every activation of a frame at once (4 GB at full size) and grow their histograms without bound.
- ONNX Runtime's ``quantize_static`` and NVIDIA's ModelOpt (0.47, whose ONNX path patches and calls it, entropy and
  largest value alone) take a float32 graph into memory several times over and decide themselves what becomes FP16.
  Ours has its FP32 islands by then, and its weights stay on disk.
- ModelOpt's PyTorch calibrators have an MSE threshold. It is fifteen lines; the package brings a dozen others.
"""
