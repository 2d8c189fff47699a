"""What long work says while it runs, and how a command passes it on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Event:
    """What happens during long work: a ``stage`` begins, something worth a ``note``, or worth a ``warning``.

    ``fraction`` is how far the current stage is, 0 to 1, or None where that cannot be known.
    """

    kind: Literal["stage", "note", "warning"]
    text: str
    fraction: float | None = None


class Teller(Protocol):
    """Whoever can pass a line on to the user."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


def telling(teller: Teller, show: Callable[[str, float | None], None]) -> Callable[[Event], None]:
    """A listener that shows stages with ``show`` and tells the rest to ``teller``."""

    def hear(event: Event) -> None:
        if event.kind == "stage":
            show(event.text, event.fraction)
        elif event.kind == "warning":
            teller.warn(event.text)
        else:
            teller.note(event.text)

    return hear
