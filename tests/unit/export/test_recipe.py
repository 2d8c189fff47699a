"""Options, what a released checkpoint's name implies, and the refusals that say what to type instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.manifest import FrameLayout
from edgeturbo.export.checkpoints import read_checkpoint
from edgeturbo.export.checkpoints.released import RELEASED, released
from edgeturbo.export.native import Border
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
        ({"fp16_margin": 0.99}, "--fp16-margin 0.99"),
        ({"fp16_margin": float("nan")}, "--fp16-margin nan"),
        ({"calibrate": Path("frames"), "precision": "fp32"}, "--calibrate measures"),
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


NV12 = {"frame": (1280, 720), "frame_format": "nv12"}


def test_a_cameras_frame_has_its_own_tensors_and_the_networks_keep_their_size(recipe):
    made = recipe("day2night.pkl", width=64, height=128, batch=2, output_format="rgba", **NV12)
    layout = FrameLayout(1280, 720, "nv12", "rgba", "bt601", "limited")
    assert made.shape.layout == layout
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*made.shape.inputs, *made.shape.outputs)] == [
        ("frame", "uint8", (2, 1080, 1280)),
        ("image", "uint8", (2, 720, 1280, 4)),
    ]
    assert made.border == Border(layout, 64, 128, sketch=False)
    assert made.frame_rules.resize == "squash"
    assert recipe("day2night.pkl").border is None


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("rgb", (1, 48, 64, 3)), ("bgr", (1, 48, 64, 3)), ("rgba", (1, 48, 64, 4)), ("nv12", (1, 72, 64)),
        ("yuyv", (1, 48, 64, 2)),
    ],
)  # fmt: skip
def test_every_format_has_its_tensor_and_the_image_takes_it_over(recipe, kind, shape):
    made = recipe("day2night.pkl", frame=(64, 48), frame_format=kind).shape
    assert made.inputs[0].shape == made.outputs[0].shape == shape


def test_the_noises_keep_the_networks_size_and_the_sketch_is_the_graphs(recipe):
    made = recipe(
        "sketch_to_image_stochastic_lora.pkl", "pix2pix", stochastic=True, prompt="a fish", width=64, height=64, **NV12
    )
    assert made.shape.inputs[1].shape == (1, 4, 8, 8)
    assert made.border.sketch


def test_colours_are_meant_as_v4l2s_default_unless_said_otherwise(recipe):
    assert recipe("day2night.pkl", frame=(64, 48)).shape.layout == FrameLayout(64, 48, "rgb", "rgb", "bt601", "limited")
    said = recipe("day2night.pkl", colour_matrix="bt709", colour_range="full", **NV12).shape.layout
    assert (said.matrix, said.range) == ("bt709", "full")


@pytest.mark.parametrize(
    ("frame", "kind", "near"),
    [
        ((1281, 720), "nv12", "1280x720"), ((1280, 721), "nv12", "1280x720"), ((1, 1), "nv12", "2x2"),
        ((641, 481), "yuyv", "640x481"), ((0, 480), "rgb", "1x480"), ((9000, 480), "rgb", "8192x480"),
    ],
)  # fmt: skip
def test_a_frame_that_its_format_cannot_hold_is_refused_with_the_nearest_that_works(frame, kind, near):
    for role in ("frame_format", "output_format"):
        with pytest.raises(UsageError, match=f"does not work for {kind}") as caught:
            refuse_impossible(replace(ANY, frame=frame, **{role: kind}))
        assert caught.value.hint == f"--frame {near}"
    refuse_impossible(replace(ANY, frame=tuple(map(int, near.split("x"))), frame_format=kind))


def test_edges_are_not_found_in_a_graph(recipe):
    for refused in (
        lambda: refuse_impossible(replace(ANY, input_prep="canny", **NV12)),
        lambda: recipe("edge_to_image_loras.pkl", "pix2pix", prompt="a fish", **NV12),
    ):
        with pytest.raises(UsageError, match="no graph finds them") as caught:
            refused()
        assert "leave --frame out" in caught.value.hint
    refuse_impossible(replace(ANY, input_prep="canny"))
    assert recipe("edge_to_image_loras.pkl", "pix2pix", prompt="a fish", input_prep="raw", **NV12).border


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"frame_format": "nv12"}, "--frame-format nv12"), ({"output_format": "rgb"}, "--output-format rgb"),
        ({"colour_matrix": "bt709"}, "--colour-matrix bt709"), ({"colour_range": "full"}, "--colour-range full"),
    ],
)  # fmt: skip
def test_what_says_how_a_frame_is_meant_needs_its_size(change, flag):
    with pytest.raises(UsageError, match=flag) as caught:
        refuse_impossible(replace(ANY, **change))
    assert caught.value.hint == f"--frame 1280x720 {flag}"


def test_a_matrix_for_frames_without_yuv_is_refused():
    with pytest.raises(UsageError, match="are for YUV"):
        refuse_impossible(replace(ANY, frame=(64, 48), colour_range="full"))
    refuse_impossible(replace(ANY, frame=(64, 48), output_format="nv12", colour_range="full"))


def test_further_passes_are_carried_into_the_manifest(recipe, tiny):
    made = recipe("day2night.pkl", passes=("one", "another"))
    assert made.model(read_checkpoint(tiny.cyclegan())).passes == ("one", "another")
