"""Mixed precision: which blocks to quantise, so that the picture keeps a bound and the engine gets fastest.

Each block is quantised by itself and its error in the picture is measured. Errors of different blocks are nearly
uncorrelated, so that their squares add up; what a block saves is a difference of two predicted times. The best sets
are then those of a knapsack, all of which G. Nemhauser and Z. Ullmann's dynamic programme finds at once ("Discrete
dynamic programming and capital allocation", Management Science 15(9), 1969): the Pareto front of error and time.
A set is only taken after its picture was measured, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ...engines.errors import ParityError
from ...engines.parity import decibels

# Errors within this of each other count as equal in the front: it keeps it short, and no measurement is finer.
_RESOLUTION_DB = 0.02
_MOST_TRIES = 6

# ``error(blocks)``: quantise these, run the frames, return the mean squared error of the worst frame in [0, 1].
Measure = Callable[[frozenset[str]], float]

State = tuple[float, float, frozenset[str]]  # the errors' sum, the milliseconds saved, the blocks


@dataclass(frozen=True)
class Block:
    """A block by itself: the error it brings when it alone is quantised, and the milliseconds it then saves.

    ``error``: mean squared, of pictures in [0, 1]; ``psnr_db`` is the same in dB. ``saved_ms`` may be below zero.
    """

    name: str
    error: float
    saved_ms: float

    @property
    def psnr_db(self) -> float:
        return decibels(self.error)


@dataclass(frozen=True)
class Mixture:
    """``blocks``, quantised: predicted milliseconds and PSNR; the measured PSNR where it was measured."""

    blocks: frozenset[str]
    ms: float
    predicted_db: float
    measured_db: float | None = None


@dataclass(frozen=True)
class Search:
    """What a search found: the mixture to take, the front it is of (slowest first), and each block by itself.

    ``measurements`` is how many sets of blocks were measured, the single ones among them; each took a run for every
    frame.
    """

    chosen: Mixture
    front: tuple[Mixture, ...]
    blocks: tuple[Block, ...]
    measurements: int


def search(base_ms: float, saved_ms: Mapping[str, float], measure: Measure, min_psnr: float) -> Search:
    """The fastest mixture of the blocks in ``saved_ms`` whose measured PSNR is at least ``min_psnr`` dB.

    ``base_ms``: predicted for no block quantised. Measures every block once and at most six mixtures. Raises
    ParityError when not one mixture that saves time keeps the bound.
    """
    blocks = tuple(Block(name, measure(frozenset({name})), saved) for name, saved in saved_ms.items())
    mixtures = front(base_ms, blocks)
    tried: dict[frozenset[str], Mixture] = {}
    wanted = min_psnr
    for _ in range(_MOST_TRIES):
        candidate = _fastest(mixtures, wanted, tried)
        if candidate is None:
            break
        measured = decibels(measure(candidate.blocks))
        tried[candidate.blocks] = replace(candidate, measured_db=measured)
        # What the sum of errors missed by here, it misses by nearly the same a little further along the front.
        wanted = min_psnr + candidate.predicted_db - measured
    kept = [mixture for mixture in tried.values() if (mixture.measured_db or -math.inf) >= min_psnr]
    if not kept:
        raise _out_of_reach(blocks, min_psnr)
    return Search(
        min(kept, key=lambda mixture: mixture.ms),
        tuple(tried.get(mixture.blocks, mixture) for mixture in mixtures),
        blocks,
        len(blocks) + len(tried),
    )


def front(base_ms: float, blocks: Collection[Block]) -> tuple[Mixture, ...]:
    """The mixtures that no other beats in both error and time, slowest and most faithful first.

    The first has no block quantised. A block that saves nothing is in none.
    """
    best: list[State] = [(0.0, 0.0, frozenset())]
    for block in blocks:
        if block.saved_ms > 0:
            best = _undominated([*best, *((e + block.error, s + block.saved_ms, n | {block.name}) for e, s, n in best)])
    return tuple(Mixture(names, base_ms - saved, decibels(error)) for error, saved, names in best)


def _undominated(states: Collection[State]) -> list[State]:
    """By rising error, those that save more than all before; of those within the resolution, the last."""
    kept: dict[float, State] = {}
    most = -math.inf
    for state in sorted(states, key=lambda state: (state[0], -state[1])):
        if state[1] > most:
            most = state[1]
            kept[_step(state[0])] = state
    return list(kept.values())


def _step(error: float) -> float:
    """Which step of the resolution an error is on; none but no error at all is on the first."""
    return math.floor(decibels(error) / _RESOLUTION_DB) if error > 0 else math.inf


def _fastest(mixtures: Sequence[Mixture], wanted: float, tried: Collection[frozenset[str]]) -> Mixture | None:
    """The fastest that is predicted to keep ``wanted``, unless it was tried; none that quantises nothing."""
    fit = [mixture for mixture in mixtures if mixture.predicted_db >= wanted and mixture.blocks]
    best = min(fit, key=lambda mixture: mixture.ms, default=None)
    return None if best is None or best.blocks in tried else best


def _out_of_reach(blocks: Sequence[Block], min_psnr: float) -> ParityError:
    gentle = max((block for block in blocks if block.saved_ms > 0), key=lambda block: block.psnr_db, default=None)
    got = "no block saves time" if gentle is None else f"{gentle.psnr_db:.1f} dB with {gentle.name} alone"
    return ParityError(
        "no mixture that is faster keeps the bound",
        expected=f"PSNR of at least {min_psnr:g} dB", got=got, hint="--precision fp16, or a lower --min-psnr",
    )  # fmt: skip
