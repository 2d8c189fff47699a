"""What a stage works with: the options, and where its findings go, one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .options import CheckOptions
from .record import Row, StageRecord


@dataclass
class Context:
    """``save`` is called with the record after every finding, so that an ended stage keeps what it had."""

    options: CheckOptions
    record: StageRecord
    save: Callable[[StageRecord], None]
    _figures: dict[str, float] = field(default_factory=dict)

    def common(self, name: str) -> None:
        self._update(replace(self.record, common=name))

    def row(self, row: Row) -> None:
        self._update(replace(self.record, rows=(*self.record.rows, row)))

    def figure(self, name: str, value: float) -> None:
        """A number by a name that carries its unit, e.g. ``build_s``."""
        self._figures[name] = value
        self._update(replace(self.record, figures=dict(self._figures)))

    def note(self, text: str) -> None:
        self._update(replace(self.record, notes=(*self.record.notes, text)))

    def _update(self, record: StageRecord) -> None:
        self.record = record
        self.save(record)
