"""A bundled miniature day-to-night model and photographs, to try the whole chain without downloading anything."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def demo_checkpoint() -> Path:
    """The bundled CycleGAN-Turbo checkpoint (day to night a2b, night to day b2a)."""
    return _HERE / "day2night_demo.pkl"


def demo_base() -> Path:
    """The bundled base model, a diffusers folder standing for stabilityai/sd-turbo."""
    return _HERE / "base"


def demo_frames() -> tuple[Path, ...]:
    """The bundled daytime photographs, `day.jpg` first."""
    return tuple(sorted((_HERE / "frames").glob("*.jpg"), key=lambda frame: (frame.name != "day.jpg", frame.name)))


__all__ = ["demo_base", "demo_checkpoint", "demo_frames"]
