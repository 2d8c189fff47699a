"""The two formats of eight bits that GPUs multiply in, in numpy: what a scale is, and what rounding to it does.

Both are symmetric (zero is zero), as TensorRT demands: "Working with Quantized Types" in NVIDIA's TensorRT 10 and 11
documentation. A quantised value q stands for ``q * scale``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Format:
    """``largest``: the largest magnitude a weight may take. ``lowest``: what QuantizeLinear saturates to below.

    ``kernel``: the most taps of a convolution's window that NVIDIA's kernels of this format take.
    """

    name: str
    largest: float
    lowest: float
    kernel: int

    @property
    def dtype(self) -> np.dtype[Any]:
        import ml_dtypes

        return np.dtype(np.int8 if self.name == "int8" else ml_dtypes.float8_e4m3fn)

    @property
    def onnx_type(self) -> ir.DataType:
        import onnx_ir as ir

        return ir.DataType.INT8 if self.name == "int8" else ir.DataType.FLOAT8E4M3FN


# ONNX, QuantizeLinear: int8 saturates to [-128, 127]. Weights use 127 either way (TensorRT's scale is amax / 127).
INT8 = Format("int8", 127.0, -128.0, kernel=1 << 20)
# E4M3 without infinities: largest finite 448 (P. Micikevicius et al., "FP8 formats for deep learning",
# arXiv:2209.05433, table 1). No kernel for windows above 32 taps: find_nodes_from_convs_to_exclude in ModelOpt.
FP8 = Format("fp8", 448.0, -448.0, kernel=32)
FORMATS = {form.name: form for form in (INT8, FP8)}


def scales_of(largest: NDArray[Any], form: Format, dtype: Any) -> NDArray[Any]:
    """The scales, of ``dtype`` (float16 or float32), at which magnitudes up to ``largest`` do not saturate.

    A scale is rounded up: FP16 has few digits below 6e-5, and a scale that is too small cuts the largest values off.
    Where all is zero the scale is 1: any does, and zero would divide by zero.
    """
    exact = np.where(largest > 0, np.asarray(largest, np.float64) / form.largest, 1.0)
    rounded = exact.astype(dtype)
    up = np.nextafter(rounded, np.asarray(np.inf, dtype))
    return np.asarray(np.where(rounded.astype(np.float64) < exact, up, rounded), dtype=dtype)


def quantised(values: NDArray[Any], scales: NDArray[Any], form: Format) -> NDArray[Any]:
    """ONNX QuantizeLinear, computed in float32: ``values / scales``, rounded to the nearest, ties to even, saturated.

    ``scales`` broadcasts against ``values``. Returns the format's own type.
    """
    ratio = values.astype(np.float32) / scales.astype(np.float32)
    if form.name == "int8":
        ratio = np.rint(ratio)
    return np.clip(ratio, form.lowest, form.largest).astype(form.dtype)


def dequantised(values: NDArray[Any], scales: NDArray[Any]) -> NDArray[np.float32]:
    """ONNX DequantizeLinear: ``values * scales`` in float32."""
    return np.asarray(values.astype(np.float32) * scales.astype(np.float32))
