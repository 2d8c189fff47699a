"""Tiny base models and checkpoints in every real format, and the goldens of the published code, for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeturbo.benchmarks import synthetic

GOLDEN = Path(__file__).resolve().parent / "golden"
GOLDEN_BASE = GOLDEN / "base"


class Tiny:
    """Writes each file once, when it is first asked for, under ``folder``. Nobody may change what it returns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def base(self) -> Path:
        """A diffusers folder with random weights: 8 and 16 channels, opened in a moment."""
        folder = self._folder / "base"
        if not folder.exists():
            synthetic.write_base(folder, synthetic.TINY)
        return folder

    def cyclegan(self, **options: Any) -> Path:
        """A CycleGAN-Turbo checkpoint; ``options`` are those of ``synthetic.write_cyclegan``."""
        return self._checkpoint("cyclegan", synthetic.write_cyclegan, options)

    def pix2pix(self, **options: Any) -> Path:
        """A pix2pix-Turbo checkpoint; ``options`` are those of ``synthetic.write_pix2pix``."""
        return self._checkpoint("pix2pix", synthetic.write_pix2pix, options)

    def _checkpoint(self, family: str, write: Callable[..., None], options: dict[str, Any]) -> Path:
        name = "_".join([family, *(f"{key}-{value}" for key, value in sorted(options.items()))])
        path = self._folder / f"{name}.pkl"
        if not path.exists():
            write(self.base, path, **options)
        return path
