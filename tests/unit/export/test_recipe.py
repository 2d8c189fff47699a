"""Options, what a released checkpoint's name implies, and the refusals that say what to type instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgeturbo.engines.errors import UsageError
from edgeturbo.export.checkpoints import read_checkpoint
from edgeturbo.export.checkpoints.released import RELEASED, released
from edgeturbo.export.recipe import DEFAULT_STRENGTH, ExportOptions, Recipe, recipe_for, refuse_impossible

NIGHT = "driving in the night"
ANY = ExportOptions(Path("any.pkl"), prompt="a prompt", direction="a2b")


@pytest.fixture
def recipe(tiny):
    """``recipe("day2night.pkl", "cyclegan", direction="b2a")``: of a tiny checkpoint under another name."""

    def make(name: str, family: str = "cyclegan", *, stochastic: bool = False, **options: object) -> Recipe:
        path = tiny.cyclegan() if family == "cyclegan" else tiny.pix2pix(stochastic=stochastic)
        return recipe_for(ExportOptions(Path(name), **options), replace(read_checkpoint(path), path=Path(name)))

    return make


@pytest.mark.parametrize(
    ("name", "direction", "prompt"),
    [
        ("day2night", "a2b", NIGHT),
        ("night2day", "b2a", "driving in the day"),
        ("clear2rainy", "a2b", "driving in heavy rain"),
        ("rainy2clear", "b2a", "driving in the day"),
        ("day2night_demo", "a2b", NIGHT),
    ],
)
def test_a_released_unpaired_name_implies_direction_and_prompt(recipe, name, direction, prompt):
    made = recipe(f"somewhere/{name}.pkl")
    assert (made.direction, made.prompt, made.input_prep) == (direction, prompt, "raw")
    assert (made.signed_input, made.frame_rules.resize, made.strength) == (True, "squash", None)


@pytest.mark.parametrize(
    ("name", "stochastic", "prep"),
    [("edge_to_image_loras", False, "canny"), ("sketch_to_image_stochastic_lora", True, "sketch")],
)
def test_a_released_paired_name_implies_how_the_frame_is_prepared_and_still_needs_a_prompt(
    recipe, name, stochastic, prep
):
    made = recipe(f"{name}.pkl", "pix2pix", stochastic=stochastic, prompt="a fish")
    assert (made.direction, made.input_prep, made.signed_input, made.frame_rules.resize) == (
        None, prep, False, "floor8",
    )  # fmt: skip
    assert made.shape.noise is stochastic
    with pytest.raises(UsageError, match="needs a prompt"):
        recipe(f"{name}.pkl", "pix2pix", stochastic=stochastic)


def test_every_released_name_is_tested():
    assert len(RELEASED) == 7


def test_options_go_before_what_the_name_implies(recipe):
    made = recipe("day2night.pkl", prompt="dusk", input_prep="canny")
    assert (made.prompt, made.input_prep) == ("dusk", "canny")
    assert recipe("day2night.pkl", prompt="").prompt == ""  # an empty caption is a caption


def test_an_unknown_name_asks_for_the_direction_and_then_for_the_prompt(recipe):
    with pytest.raises(UsageError, match="holds both directions; say which") as caught:
        recipe("mine.pkl")
    assert '--ckpt mine.pkl --direction a2b --prompt "' in caught.value.hint
    assert "day2night" in caught.value.got
    with pytest.raises(UsageError, match="needs a prompt: the exact caption") as caught:
        recipe("mine.pkl", direction="b2a")
    assert '--ckpt mine.pkl --direction b2a --prompt "' in caught.value.hint
    assert "fixed_prompt_a.txt" in caught.value.expected
    with pytest.raises(UsageError, match="needs a prompt") as caught:
        recipe("mine.pkl", "pix2pix")
    assert "--direction" not in caught.value.hint


def test_the_other_direction_of_a_released_file_needs_a_prompt(recipe):
    with pytest.raises(UsageError, match="needs a prompt"):
        recipe("day2night.pkl", direction="b2a")
    assert recipe("day2night.pkl", direction="b2a", prompt="day").direction == "b2a"
    assert recipe("day2night.pkl", direction="a2b").prompt == NIGHT


def test_a_direction_that_the_family_lacks_is_refused(recipe):
    with pytest.raises(UsageError, match="no direction 'b2b'"):
        recipe("day2night.pkl", direction="b2b")
    with pytest.raises(UsageError, match="no direction 'a2b'"):
        recipe("mine.pkl", "pix2pix", direction="a2b", prompt="a fish")


def test_a_released_name_on_another_family_is_not_trusted(recipe):
    assert released(Path("day2night.pkl"), "pix2pix-turbo") is None
    with pytest.raises(UsageError, match="needs a prompt"):
        recipe("day2night.pkl", "pix2pix")
    assert recipe("day2night.pkl", "pix2pix", prompt="a fish").direction is None
    with pytest.raises(UsageError, match="holds both directions"):
        recipe("edge_to_image_loras.pkl", prompt="a fish")


def test_strength_is_for_stochastic_checkpoints(recipe):
    assert recipe("mine.pkl", "pix2pix", stochastic=True, prompt="a fish").strength == DEFAULT_STRENGTH == 0.4
    assert recipe("mine.pkl", "pix2pix", stochastic=True, prompt="a fish", strength=0.0).strength == 0.0
    with pytest.raises(UsageError, match="--strength is for stochastic checkpoints") as caught:
        recipe("mine.pkl", "pix2pix", prompt="a fish", strength=1.0)
    assert caught.value.hint == "leave --strength out"
    with pytest.raises(UsageError, match="--strength is for stochastic checkpoints"):
        recipe("day2night.pkl", strength=0.4)


def test_noise_inputs_follow_from_the_checkpoint_and_the_posterior(recipe):
    assert [spec.name for spec in recipe("day2night.pkl").shape.inputs] == ["frame"]
    sampled = recipe("mine.pkl", "pix2pix", stochastic=True, prompt="a fish", posterior="sample", width=64, height=128)
    assert [(spec.name, spec.shape) for spec in sampled.shape.inputs] == [
        ("frame", (1, 128, 64, 3)),
        ("noise", (1, 4, 16, 8)),
        ("posterior_noise", (1, 4, 16, 8)),
    ]


@pytest.mark.parametrize(
    ("width", "height", "hint"),
    [(509, 512, "504x512"), (512, 4, "512x8"), (0, 512, "8x512"), (-8, 512, "8x512"), (500, 301, "496x296")],
)
def test_a_size_that_the_vae_cannot_take_is_refused_with_the_nearest_below(width, height, hint):
    with pytest.raises(UsageError, match=f"--size {width}x{height} does not work") as caught:
        refuse_impossible(replace(ANY, width=width, height=height))
    assert caught.value.hint == f"--size {hint}"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"batch": 0}, "--batch 0"),
        ({"batch": -1}, "--batch -1"),
        ({"opset": 17}, "--opset 17"),
        ({"opset": 24}, "--opset 24"),
        ({"parity_frames": 0}, "--parity-frames must be at least 1"),
        ({"strength": -0.01}, "--strength -0.01"),
        ({"strength": 1.01}, "--strength 1.01"),
        ({"strength": float("nan")}, "--strength nan"),
    ],
)
def test_options_that_no_checkpoint_makes_sense_of_are_refused(change, what):
    with pytest.raises(UsageError, match=what) as caught:
        refuse_impossible(replace(ANY, **change))
    assert caught.value.exit_code == 2
    assert caught.value.hint.startswith("--")


@pytest.mark.parametrize(
    "change", [{}, {"width": 8, "height": 16}, {"opset": 18}, {"opset": 23}, {"strength": 0.0}, {"strength": 1.0}]
)
def test_options_at_the_edge_are_taken(change):
    refuse_impossible(replace(ANY, **change))


def test_the_folder_is_named_after_the_checkpoint():
    assert ANY.folder == Path("any")
    assert replace(ANY, out=Path("there")).folder == Path("there")
