"""What was asked for, and where things lie."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..synthetic import SD_TURBO, TINY, Architecture

Device = Literal["cuda", "cpu"]
ModelSize = Literal["full", "tiny"]

# The published driving checkpoints' own caption; the paper's networks run at 512x512.
PROMPT, DIRECTION = "driving in the night", "a2b"
_PIXELS = {"full": 512, "tiny": 64}


@dataclass(frozen=True)
class CheckOptions:
    """``work`` holds weights, bundles and plans (15 GB for ``full``); ``results`` the JSON files.

    ``runs`` are measured after ``warmup``; a stage is ended after ``limit_s`` seconds.
    """

    work: Path
    results: Path
    model: ModelSize = "full"
    device: Device = "cuda"
    runs: int = 100
    warmup: int = 10
    limit_s: float = 480.0

    def to_json(self) -> str:
        return json.dumps({name: str(v) if isinstance(v, Path) else v for name, v in asdict(self).items()})

    @classmethod
    def from_json(cls, text: str) -> CheckOptions:
        data: dict[str, Any] = json.loads(text)
        paths = {field.name for field in fields(cls) if field.type == "Path"}
        given: dict[str, Any] = {name: Path(value) if name in paths else value for name, value in data.items()}
        return cls(**given)

    @property
    def pixels(self) -> int:
        """Width and height of the model."""
        return _PIXELS[self.model]

    @property
    def architecture(self) -> Architecture:
        return SD_TURBO if self.model == "full" else TINY

    @property
    def lora_rank(self) -> int:
        """Of the UNet's adapters: the published CycleGAN-Turbo checkpoints have 128."""
        return 128 if self.model == "full" else 8

    @property
    def base(self) -> Path:
        return self.work / "base"

    @property
    def checkpoint(self) -> Path:
        return self.work / "cyclegan.pkl"

    @property
    def bundle(self) -> Path:
        return self.work / "bundle"

    @property
    def reference(self) -> Path:
        """A frame and what the unmerged FP32 PyTorch model makes of it."""
        return self.work / "reference.npz"

    @property
    def three(self) -> Path:
        """The folder of the three separate networks."""
        return self.work / "three"
