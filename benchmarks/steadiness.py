"""Was the machine quiet enough for its figures to mean something? Said in sentences, beside the figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .latency import Latency, Ratio, ratio

# What the same work measured twice in turns may differ by, before the difference is the machine's doing.
_SAME = 0.02
# Above these, one run says little of the next: the median distance from the median, and how it and the median moved.
_MAD_SHARE, _MAD_GROWTH, _DRIFT = 0.10, 2.0, 0.05
_FEW = 8


@dataclass(frozen=True)
class Steadiness:
    """``same``: one row measured twice in the same rounds, the first time over the second (an A/A check).
    ``warnings``: sentences; none means that the machine was quiet.
    """

    same: Ratio
    warnings: tuple[str, ...] = ()


def same_work_floor(steadiness: Steadiness) -> float:
    """How far apart the same work measured twice was, as a share: so much runs may differ beyond their intervals."""
    return abs(steadiness.same.value - 1.0)


def judge(first: Latency, again: Latency, busy: str | None = None) -> Steadiness:
    """Whether ``first`` and ``again``, the same call measured in turns, agree and stayed as they were.

    ``busy``: ``Environment.busy``.
    """
    same = ratio(first, again)
    warnings = [busy] if busy else []
    if (same.low > 1.0 or same.high < 1.0) and abs(same.value - 1.0) > _SAME:
        warnings.append(
            f"the same work measured twice in turns differs by {abs(same.value - 1):.1%} "
            f"(ratio {same.value:.3f}, 95 % interval {same.low:.3f} to {same.high:.3f})"
        )
    for samples in (first, again):
        said = _unsteady(samples)
        if said:
            warnings.append(said)
            break
    return Steadiness(same, tuple(warnings))


def _unsteady(latency: Latency) -> str | None:
    if latency.mad_ms > _MAD_SHARE * latency.p50_ms:
        share = latency.mad_ms / latency.p50_ms
        return f"half of the runs are more than {share:.0%} away from their median: the machine is not steady"
    if latency.n < 2 * _FEW:
        return None
    early, late = (_of(part) for part in np.array_split(np.asarray(latency.samples_ms), 2))
    moved = late[0] / early[0] - 1
    if abs(moved) > _DRIFT:
        return f"the second half of the runs took {moved:+.0%} of time against the first: clocks or load changed"
    if late[1] > max(_MAD_GROWTH * early[1], _DRIFT * late[0]):
        return "the spread of the runs grew while they were measured: somebody else began to use this machine"
    return None


def _of(samples: np.ndarray) -> tuple[float, float]:
    """Median and median distance from it."""
    median = float(np.median(samples))
    return median, float(np.median(np.abs(samples - median)))
