"""What a generator's activations are, over calibration frames: one pass for channels, one for histograms."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ...engines.errors import UsageError
from .formats import Format
from .sections import BUDGET, visit
from .sites import sites
from .statistics import ChannelMaxima, Histogram
from .thresholds import DEFAULT_PERCENTILE, Method, thresholds

if TYPE_CHECKING:
    import onnx_ir as ir

Feeds = Callable[[], Iterable[Mapping[str, NDArray[Any]]]]  # called once for each pass over the frames


@dataclass(frozen=True)
class Calibration:
    """``histograms`` of the activations by their names, over ``frames`` runs of the graph."""

    frames: int
    histograms: dict[str, Histogram]

    def thresholds(self, method: Method, form: Format, percentile: float = DEFAULT_PERCENTILE) -> dict[str, float]:
        """As ``thresholds.thresholds``."""
        return thresholds(self.histograms, method, form, percentile)


def calibrate(model: ir.Model, beside: Path, feeds: Feeds, names: Collection[str], budget: int = BUDGET) -> Calibration:
    """Histograms of the activations of the sites called ``names``; ``model`` was loaded from ``beside``.

    Raises UsageError when there is no frame, RangeError for an activation that is not finite.
    """
    chosen = set(names)
    found = {str(site.activation.name) for site in sites(model.graph) if site.name in chosen}
    histograms = {name: Histogram(name) for name in sorted(found)}
    frames = visit(model, beside, feeds(), found, lambda name, values: histograms[name].add(values), budget)
    return Calibration(_counted(frames), histograms)


def channel_maxima(
    model: ir.Model, beside: Path, feeds: Feeds, names: Collection[str], budget: int = BUDGET
) -> dict[str, ChannelMaxima]:
    """The largest magnitude in each channel of the activations called ``names``, [..., channels]. Raises UsageError."""
    maxima = {name: ChannelMaxima(name) for name in sorted(set(names))}
    _counted(visit(model, beside, feeds(), set(names), lambda name, values: maxima[name].add(values), budget))
    return maxima


def _counted(frames: int) -> int:
    if frames == 0:
        raise UsageError("there is no frame to calibrate on", expected="1 or more", hint="--calibrate DIR")
    return frames
