"""Rewrites of the generator's graph: each one noun, with what it requires of the graph and what it ensures.

They are onnx-ir passes, so ``requires`` and ``ensures`` are checked on every run. Order: Specialise, those that
``--passes`` chooses (``choice.py``), ExactNorm for FP32, StageNames, Half for FP16 (``export/precision.py`` chooses its
islands). Shadow serves the ledger.
"""
