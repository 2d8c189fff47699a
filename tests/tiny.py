"""Tiny base models and checkpoints in every real format, and the goldens of the published code, for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeturbo.benchmarks import synthetic
from shared import locked

GOLDEN = Path(__file__).resolve().parent / "golden"
GOLDEN_BASE = GOLDEN / "base"


class Tiny:
    """Writes each file once, when it is first asked for, under ``folder``. Nobody may change what it returns.

    Several processes may have one on the same folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def base(self) -> Path:
        """A diffusers folder with random weights: 8 and 16 channels, opened in a moment."""
        return self._written(self._folder / "base", lambda folder: synthetic.write_base(folder, synthetic.TINY))

    def cyclegan(self, **options: Any) -> Path:
        """A CycleGAN-Turbo checkpoint; ``options`` are those of ``synthetic.write_cyclegan``."""
        return self._checkpoint("cyclegan", synthetic.write_cyclegan, options)

    def pix2pix(self, **options: Any) -> Path:
        """A pix2pix-Turbo checkpoint; ``options`` are those of ``synthetic.write_pix2pix``."""
        return self._checkpoint("pix2pix", synthetic.write_pix2pix, options)

    def _checkpoint(self, family: str, write: Callable[..., None], options: dict[str, Any]) -> Path:
        name = "_".join([family, *(f"{key}-{value}" for key, value in sorted(options.items()))])
        base = self.base
        return self._written(self._folder / f"{name}.pkl", lambda path: write(base, path, **options))

    def _written(self, path: Path, write: Callable[[Path], None]) -> Path:
        with locked(self._folder / "lock"):
            if not path.exists():
                write(path)
        return path
