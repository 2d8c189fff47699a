"""Finds the powers of two that bring every tensor within its bounds and change as little as can be.

Each class of tensors has an exponent with bounds: the upper one leaves room to FP16's largest number, the lower one
keeps what is in it out of the subnormals. Sums of exponents, those of weights among them, have bounds, too. All start
at 0. One class at a time is moved as far as it must be; sums that this breaks move one of their other classes, tried
one after the other. No bound is ever given up: what cannot be settled so is left to the FP32 islands.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

_MOST_TRIES = 20_000  # of one search; a chain of a dozen residual blocks takes some hundred


@dataclass(frozen=True)
class Rule:
    """``low`` <= the sum of factor times exponent over ``terms``, (class, factor), <= ``high``."""

    terms: tuple[tuple[int, int], ...]
    low: int
    high: int


class Solver:
    """``low`` and ``high`` bound the exponent of each class, class 0 being the one that stays 0."""

    def __init__(self, low: list[int], high: list[int], rules: list[Rule]) -> None:
        self.exponents = [0] * len(low)
        self._low, self._high = low, high
        self._rules = rules
        self._of: dict[int, list[Rule]] = defaultdict(list)
        for rule in rules:
            for index, _ in rule.terms:
                self._of[index].append(rule)
        self._tries = 0

    def settle(self, index: int) -> bool:
        """Bring a class within its bounds, and all that depends on it; False, and nothing changed, where that fails."""
        low, high = self._low[index], self._high[index]
        target = min(max(self.exponents[index], low), high)
        if index == 0 or low > high:
            return index == 0 and low <= 0 <= high
        return self._adopt({index: target}, list(self._of[index]))

    def keep(self, rule: Rule) -> bool:
        """Bring a sum within its bounds; False, and nothing changed, where that fails."""
        return self._adopt({}, [rule])

    def _adopt(self, changed: dict[int, int], open_rules: list[Rule]) -> bool:
        self._tries = 0
        found = self._search(changed, open_rules)
        for index, exponent in (found or {}).items():
            self.exponents[index] = exponent
        return found is not None

    def _search(self, changed: dict[int, int], open_rules: list[Rule]) -> dict[int, int] | None:
        self._tries += 1
        broken = next((rule for rule in open_rules if not rule.low <= self._sum(rule, changed) <= rule.high), None)
        if broken is None:
            return changed
        if self._tries > _MOST_TRIES:
            return None
        moves = [
            (index, exponent)
            for index, factor in broken.terms
            if index and index not in changed
            for exponent in [self._needed(broken, index, factor, changed)]
            if exponent is not None and self._low[index] <= exponent <= self._high[index]
        ]
        for index, exponent in sorted(moves, key=lambda move: (abs(move[1] - self.exponents[move[0]]), move)):
            known = set(map(id, open_rules))
            more = [rule for rule in self._of[index] if id(rule) not in known]
            found = self._search({**changed, index: exponent}, [*open_rules, *more])
            if found is not None:
                return found
        return None

    def _sum(self, rule: Rule, changed: dict[int, int]) -> int:
        return sum(factor * changed.get(index, self.exponents[index]) for index, factor in rule.terms)

    def _needed(self, rule: Rule, index: int, factor: int, changed: dict[int, int]) -> int | None:
        """The exponent nearest to the class's own that mends the rule."""
        own = self.exponents[index]
        others = self._sum(rule, {**changed, index: 0})
        reached = others + factor * own
        distance = rule.low - reached if reached < rule.low else rule.high - reached
        steps = -(-abs(distance) // abs(factor)) * (1 if distance * factor > 0 else -1)
        mended = others + factor * (own + steps)
        return own + steps if rule.low <= mended <= rule.high else None
