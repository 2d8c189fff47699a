"""The one step's constants, and the schedules that one closed-form step cannot express."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from edgeturbo.engines.errors import BaseModelError
from edgeturbo.export.base import BaseModel
from edgeturbo.export.scheduler import TIMESTEP, load_scheduler, one_step
from tiny import GOLDEN_BASE


@pytest.fixture
def scheduled(tmp_path):
    """A base whose scheduler's JSON has ``changes``; None takes a key out."""

    def make(**changes):
        shutil.copytree(GOLDEN_BASE / "scheduler", tmp_path / "scheduler")
        path = tmp_path / "scheduler" / "scheduler_config.json"
        config = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
        return BaseModel("base", tmp_path, "revision")

    return make


def test_sd_turbos_constants(golden_base):
    step = one_step(golden_base)
    assert step.latent == pytest.approx(14.648819, abs=2e-5)
    assert step.noise == pytest.approx(-14.614647, abs=2e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_constants_are_the_schedulers_own_step(golden_base, seed):
    random = torch.Generator().manual_seed(seed)
    z, eps = (torch.randn(1, 4, 8, 8, generator=random) for _ in range(2))
    published = load_scheduler(golden_base).step(eps, torch.tensor([TIMESTEP]), z, return_dict=True).prev_sample
    step = one_step(golden_base)
    # Relative to its size: float32 leaves 1e-6 of a value of about 15.
    assert torch.allclose(step.latent * z + step.noise * eps, published, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("key", "value", "got"),
    [
        ("prediction_type", "v_prediction", "'v_prediction'"),
        ("clip_sample", True, "True"),
        ("clip_sample", None, "True"),  # DDPMScheduler's own default, as in the published code
        ("thresholding", True, "True"),
        ("timestep_spacing", "leading", "'leading'"),
        ("num_train_timesteps", 500, "500"),
    ],
)
def test_another_schedule_is_refused_by_the_key_that_differs(scheduled, key, value, got):
    with pytest.raises(BaseModelError, match="not the single-step schedule") as caught:
        one_step(scheduled(**{key: value}))
    assert caught.value.expected.startswith(f"{key} = ")
    assert caught.value.got == f"{key} = {got}"


def test_other_noise_levels_give_other_constants(scheduled, golden_base):
    assert one_step(scheduled(beta_end=0.013)).latent > one_step(golden_base).latent + 1


def test_a_scheduler_that_is_no_json_is_refused(scheduled):
    base = scheduled()
    base.scheduler_config.write_text("{")
    with pytest.raises(BaseModelError, match=r"scheduler_config\.json cannot be read"):
        one_step(base)
