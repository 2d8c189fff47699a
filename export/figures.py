"""How the export writes figures down for people."""

from __future__ import annotations


def figure(number: float) -> str:
    """Three digits, or all of a large number with commas between thousands."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
