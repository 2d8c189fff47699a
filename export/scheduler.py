"""The scheduler's single step, as two constants derived from the base model's own JSON.

One DDPM step from t = 999 to the image predicts x0 = (z - sqrt(1 - a) * eps) / sqrt(a) with a = alphas_cumprod[999]
(Ho et al. 2020, eq. 15; ``DDPMScheduler.step`` with prev_t = -1, whose variance term is sqrt(1e-20) of noise and so
nothing). For SD-Turbo: x0 = 14.648819 z - 14.614647 eps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engines.errors import BaseModelError, first_line
from .base import BaseModel

if TYPE_CHECKING:
    from diffusers import DDPMScheduler

TIMESTEP = 999  # the one step of CycleGAN_Turbo and Pix2Pix_Turbo: self.timesteps = torch.tensor([999])

_REQUIRED: dict[str, object] = {
    "prediction_type": "epsilon",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "thresholding": False,
    "timestep_spacing": "trailing",
}


@dataclass(frozen=True)
class OneStep:
    """x0 = ``latent`` * z + ``noise`` * eps, all three in the UNet's scaled latent space."""

    latent: float
    noise: float


def load_scheduler(base: BaseModel) -> DDPMScheduler:
    """The reference's scheduler, set to one step (``make_1step_sched`` in the published ``model.py``).

    Raises BaseModelError for a schedule that one closed-form step cannot express. Where the base's JSON is silent,
    DDPMScheduler's own defaults count, as they do in the reference.
    """
    from diffusers import DDPMScheduler

    try:
        scheduler = DDPMScheduler.from_pretrained(base.folder, subfolder="scheduler", local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise BaseModelError(f"{base.scheduler_config} cannot be read: {first_line(error)}") from error
    for key, wanted in _REQUIRED.items():
        if scheduler.config[key] != wanted:
            raise BaseModelError(
                f"{base.scheduler_config}: not the single-step schedule that these checkpoints were trained with",
                expected=f"{key} = {wanted!r}",
                got=f"{key} = {scheduler.config[key]!r}",
                hint="--base stabilityai/sd-turbo, or a folder with its scheduler_config.json",
            )
    scheduler.set_timesteps(1)
    return scheduler


def one_step(base: BaseModel) -> OneStep:
    """The step's constants for ``base``. Raises BaseModelError."""
    alpha = load_scheduler(base).alphas_cumprod[TIMESTEP]
    return OneStep(latent=float(alpha**-0.5), noise=float(-((1 - alpha) ** 0.5) / alpha**0.5))
