"""The published checkpoints, known by file name: what their names imply and the files do not say.

Source: ``CycleGAN_Turbo.__init__`` and ``inference_paired.py`` of GaParmar/img2img-turbo at 86f5414. The paired
checkpoints have no prompt of their own: the published script asks its user for one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...engines.manifest import InputPrep


@dataclass(frozen=True)
class Released:
    family: str
    direction: str | None = None
    prompt: str | None = None
    input_prep: InputPrep = "raw"


RELEASED: dict[str, Released] = {
    "day2night": Released("cyclegan-turbo", "a2b", "driving in the night"),
    "night2day": Released("cyclegan-turbo", "b2a", "driving in the day"),
    "clear2rainy": Released("cyclegan-turbo", "a2b", "driving in heavy rain"),
    "rainy2clear": Released("cyclegan-turbo", "b2a", "driving in the day"),
    "edge_to_image_loras": Released("pix2pix-turbo", input_prep="canny"),
    "sketch_to_image_stochastic_lora": Released("pix2pix-turbo", input_prep="sketch"),
    # The checkpoint that this repository trains and ships.
    "day2night_demo": Released("cyclegan-turbo", "a2b", "driving in the night"),
}


def released(path: Path, family: str) -> Released | None:
    """What is known of ``path`` by its name, if it is of the family that the name promises."""
    known = RELEASED.get(path.stem)
    return known if known and known.family == family else None
