"""Files that are no checkpoints, damaged ones and hostile ones: refused with a typed error, and never run."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from edgeturbo.engines.errors import CheckpointError, UnsafePickleError
from edgeturbo.export.checkpoints import read_checkpoint
from safetensors.torch import save_file


class Hostile:
    """Writes a file when it is unpickled by a loader that runs what a pickle asks for."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return (Path.write_text, (self.sentinel, "this ran"))


def torch_zip(path, content):
    torch.save(content, path)


def torch_legacy(path, content):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_pickle(protocol):
    return lambda path, content: path.write_bytes(pickle.dumps(content, protocol))


@pytest.mark.parametrize(
    "save", [torch_zip, torch_legacy, *(plain_pickle(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1))]
)
def test_a_pickle_that_asks_to_run_code_is_refused_without_running_it(save, tmp_path):
    sentinel, path = tmp_path / "sentinel", tmp_path / "day2night.pkl"
    save(path, {"sd_encoder": Hostile(sentinel)})
    with pytest.raises(UnsafePickleError, match="it was not loaded") as caught:
        read_checkpoint(path)
    assert caught.value.exit_code == 3
    assert not sentinel.exists()
    # torch's own message says how to load the file all the same; ours must not pass that on.
    assert "weights_only" not in str(caught.value)
    assert "safe_globals" not in str(caught.value)
    if save in (torch_zip, torch_legacy):
        assert "GLOBAL getattr" in caught.value.got
    # The file does what it is made for: a loader without the guard would have run it.
    if save not in (torch_zip, torch_legacy):
        pickle.loads(path.read_bytes())  # noqa: S301 -- this test's own pickle
        assert sentinel.exists()


@pytest.mark.parametrize("kept", [0.0005, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_called_damaged_and_not_unsafe(tiny, kept, tmp_path):
    whole = tiny.pix2pix().read_bytes()
    path = tmp_path / "cut.pkl"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(CheckpointError, match="damaged, cut short or of another format") as caught:
        read_checkpoint(path)
    assert not isinstance(caught.value, UnsafePickleError)
    assert f"{path.stat().st_size:,} bytes" in caught.value.got


@pytest.mark.parametrize(
    "content", [np.random.default_rng(0).bytes(5000), b"<!DOCTYPE html>" * 40, b"not found\n", b"\x00" * 512]
)
def test_bytes_that_are_no_checkpoint_are_called_so(content, tmp_path):
    path = tmp_path / "noise.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="of another format") as caught:
        read_checkpoint(path)
    assert not isinstance(caught.value, UnsafePickleError)
    assert "weights_only" not in str(caught.value)


def test_empty_missing_and_folder_are_told_apart(tmp_path):
    (tmp_path / "empty.pkl").touch()
    with pytest.raises(CheckpointError, match="is empty"):
        read_checkpoint(tmp_path / "empty.pkl")
    for name in ("missing.pkl", "."):
        with pytest.raises(CheckpointError, match="is not a file"):
            read_checkpoint(tmp_path / name)


def test_a_safetensors_lora_is_refused_as_what_it_is(tmp_path):
    save_file({"lora_unet_down.lora_up.weight": torch.zeros(2, 2)}, tmp_path / "style.safetensors")
    with pytest.raises(CheckpointError, match="is a safetensors file: a plain LoRA"):
        read_checkpoint(tmp_path / "style.safetensors")


@pytest.mark.parametrize(
    ("content", "kind"), [(torch.zeros(3), "Tensor"), ([1, 2], "list"), ({1: 2}, "dict"), (None, "NoneType")]
)
def test_a_torch_file_of_something_else_is_refused(content, kind, tmp_path):
    torch.save(content, tmp_path / "other.pkl")
    with pytest.raises(CheckpointError, match="is not a checkpoint") as caught:
        read_checkpoint(tmp_path / "other.pkl")
    assert caught.value.got == f"a saved {kind}"


@pytest.mark.parametrize("save", [torch_zip, torch_legacy])
def test_a_file_damaged_anywhere_is_read_or_refused_and_nothing_else(tiny, save, tmp_path):
    whole, path = tmp_path / "whole.pkl", tmp_path / "damaged.pkl"
    save(whole, torch.load(tiny.pix2pix(), weights_only=True))
    content, random = whole.read_bytes(), np.random.default_rng(7)
    outcomes, messages = set(), []
    for trial in range(40):
        # Most of a file is weights, whose bits may be anything; what is parsed lies at its two ends.
        reach = min(60_000, len(content))
        place = int(random.integers(reach))
        place = place if random.integers(2) else len(content) - 1 - place
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged if trial % 5 else damaged[:place])
        try:
            outcomes.add(read_checkpoint(path).family)
        except CheckpointError as error:
            outcomes.add(type(error).__name__)
            messages.append(str(error))
    assert "CheckpointError" in outcomes, "no damage was noticed: the places are badly chosen"
    assert not [message for message in messages if "weights_only" in message]
    assert "pix2pix-turbo" in outcomes, "all damage was noticed: the places are badly chosen"
