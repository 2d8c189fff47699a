"""From a generator on disk to a quantised one in its place: calibrate, smooth, search if asked to, rewrite, save."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from ..probe import probing
from ..saving import save_over
from ..trace import UNQUANTISED
from .calibrate import Feeds, calibrate, channel_maxima
from .formats import FORMATS, INT8, Format
from .mix import Search, search
from .sites import block_of, share_of_convolutions, sites
from .thresholds import DEFAULT_METHODS, DEFAULT_PERCENTILE, Method

if TYPE_CHECKING:
    import onnx_ir as ir

Quantisation = Literal["int8", "fp8", "int8-weights", "mixed:int8", "mixed:fp8"]
QUANTISATIONS: tuple[Quantisation, ...] = get_args(Quantisation)

DEFAULT_MIN_PSNR = 35.0  # dB; what Apple's converter of Stable Diffusion asks of each network (torch2coreml)

# The milliseconds that a generator's graph is predicted to take. Shapes and types count; weights need have no values.
Predict = Callable[["ir.Model"], float]


@dataclass(frozen=True)
class QuantiseOptions:
    """``method`` and ``percentile`` make the activations' scales, None the best for the format (``DEFAULT_METHODS``);
    ``smooth`` is SmoothQuant's a, None for none.

    ``min_psnr``: for the mixed ones, in dB against the graph before.
    """

    precision: Quantisation
    method: Method | None = None
    percentile: float = DEFAULT_PERCENTILE
    smooth: float | None = 0.5
    min_psnr: float = DEFAULT_MIN_PSNR

    @property
    def form(self) -> Format:
        return FORMATS.get(self.precision.rpartition(":")[2], INT8)

    @property
    def weights_only(self) -> bool:
        return self.precision == "int8-weights"

    @property
    def mixed(self) -> bool:
        return self.precision.startswith("mixed:")


@dataclass(frozen=True)
class Scales:
    """All that calibration found: ``thresholds`` of activations, ``maxima`` of the smoothed inputs' channels."""

    form: Format
    thresholds: Mapping[str, float] | None
    maxima: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    strength: float | None = None


@dataclass(frozen=True)
class Quantised:
    """What was done: ``products`` of ``of`` quantised, ``share`` of the convolutions' arithmetic among them, 0 to 1.

    ``frames``: those calibrated on. ``blocks``: where they are. ``search``: for mixed precision.
    """

    precision: Quantisation
    products: int
    of: int
    share: float
    frames: int
    blocks: tuple[str, ...]
    search: Search | None = None


def quantise_file(
    onnx: Path, options: QuantiseOptions, feeds: Feeds, predict: Predict | None = None, judged: Feeds | None = None
) -> Quantised:
    """Quantise the generator ``onnx``, in FP16 or FP32, in place; its weights lie beside it as ``<name>.data``.

    ``feeds()`` gives the calibration frames, anew at each call; it is not called for ``int8-weights``. For the mixed
    precisions ``predict`` says how fast a graph is, and ``judged()`` gives the frames that its PSNR is measured on.
    Raises UsageError without frames, RangeError, ParityError when no mixture keeps the bound. The files change at the
    end, both or none.
    """
    import onnx_ir as ir

    model = ir.load(onnx)
    all_sites = sites(model.graph)
    names = tuple(site.name for site in all_sites if site.fits(options.form))
    frames, scales = (0, Scales(options.form, None)) if options.weights_only else find_scales(
        onnx, options, feeds, names)  # fmt: skip
    found = None
    if options.mixed:
        if predict is None or judged is None:
            raise UsageError("mixed precision needs a device to be fast on and frames to be judged by")
        found = find_mixture(onnx, names, scales, options, predict, judged)
        names = tuple(name for name in names if block_of(name) in found.chosen.blocks)
    rewrite(model, names, scales)
    done = Quantised(
        options.precision, len(names), len(all_sites), share_of_convolutions(ir.load(onnx).graph, names), frames,
        tuple(dict.fromkeys(map(block_of, names))), found,
    )  # fmt: skip
    save_over(model, onnx)
    return done


def find_scales(onnx: Path, options: QuantiseOptions, feeds: Feeds, names: Collection[str]) -> tuple[int, Scales]:
    """How many frames there were, and the scales of the products called ``names``. Two runs of each frame, or one."""
    import onnx_ir as ir

    from ..passes.smooth import smoothable

    model = ir.load(onnx)
    inputs = [str(value.name) for value in smoothable(model.graph, names)] if options.smooth is not None else []
    maxima: dict[str, NDArray[np.float32]] = {}
    if inputs:
        seen = channel_maxima(model, onnx, feeds, inputs)
        maxima = {name: each.largest for name, each in seen.items() if each.largest is not None}
        _smooth(model, names, maxima, options.smooth)
    calibration = calibrate(model, onnx, feeds, names)
    method = options.method or DEFAULT_METHODS[options.form.name]
    thresholds = calibration.thresholds(method, options.form, options.percentile)
    return calibration.frames, Scales(options.form, thresholds, maxima, options.smooth)


def rewrite(model: ir.Model, names: Collection[str], scales: Scales, *, stored: bool = True) -> None:
    """Smooth and quantise the products called ``names``. ``stored`` as in ``passes.quantise.Quantise``."""
    from ..passes.quantise import Quantise

    if scales.maxima:
        _smooth(model, names, scales.maxima, scales.strength)
    Quantise(scales.form, frozenset(names), scales.thresholds, stored)(model)


def find_mixture(
    onnx: Path, names: Collection[str], scales: Scales, options: QuantiseOptions, predict: Predict, judged: Feeds
) -> Search:
    """Which blocks of the products called ``names`` to quantise. Raises ParityError.

    Runs each judged frame once as it is, once for every block, and at most six times more.
    """
    import onnx_ir as ir

    chosen = frozenset(names)
    faithful = _pictures(onnx, judged, frozenset(), scales)

    def error(blocks: frozenset[str]) -> float:
        pictures = _pictures(onnx, judged, _within(chosen, blocks), scales)
        # The pictures reach from -1 to 1: half as large they are in [0, 1].
        return max(float(np.mean(np.square((a - b) / 2))) for a, b in zip(faithful, pictures, strict=True))

    def milliseconds(blocks: frozenset[str]) -> float:
        model = ir.load(onnx)
        if blocks:
            rewrite(model, _within(chosen, blocks), scales)
        return predict(model)

    base = milliseconds(frozenset())
    saved = {block: base - milliseconds(frozenset({block})) for block in dict.fromkeys(map(block_of, names))}
    return search(base, saved, error, options.min_psnr)


def _within(names: Collection[str], blocks: Collection[str]) -> frozenset[str]:
    return frozenset(name for name in names if block_of(name) in blocks)


def _pictures(onnx: Path, judged: Feeds, names: frozenset[str], scales: Scales) -> list[NDArray[np.float32]]:
    """What the generator makes of each judged feed with the products called ``names`` quantised, before truncation."""
    import onnx_ir as ir

    model = ir.load(onnx)
    if names:
        rewrite(model, names, scales, stored=False)
    model.graph.outputs[:] = [output for node in model.graph for output in node.outputs if output.name == UNQUANTISED]
    with probing(model, onnx) as engine:
        return [np.asarray(engine.run(dict(feed))[UNQUANTISED], np.float32) for feed in judged()]


def _smooth(
    model: ir.Model, names: Collection[str], maxima: Mapping[str, NDArray[np.float32]], strength: float | None
) -> None:
    from ..passes.smooth import STRENGTH, Smooth

    Smooth(frozenset(names), maxima, STRENGTH if strength is None else strength)(model)
