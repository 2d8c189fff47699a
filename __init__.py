"""edgeturbo: one-step image-translation checkpoints as frame-in, frame-out engines.

``Translator``, ``Bundle`` and ``export_bundle`` are loaded on first use: importing the package imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .engines.bundle import Bundle
    from .export.session import export_bundle
    from .runtime.translator import Translator

_LAZY = {"Bundle": ".engines.bundle", "Translator": ".runtime.translator", "export_bundle": ".export.session"}

__all__ = ["Bundle", "Translator", "__version__", "export_bundle"]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'edgeturbo' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name], __name__), name)
