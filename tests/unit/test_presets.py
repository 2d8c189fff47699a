from __future__ import annotations

import pytest
from edgeturbo.engines.device import Gpu, Jetson
from edgeturbo.engines.errors import UsageError
from edgeturbo.engines.presets import PRESETS, preset, preset_for

MIB, GIB = 1 << 20, 1 << 30
# What a board of so many GB has left when its firmware has taken its share.
BOARDS = {8: 7802384 * 1024, 16: int(15.3 * GIB), 32: int(30 * GIB), 64: int(61.4 * GIB), 128: int(122.8 * GIB)}


def gpu(name: str) -> Gpu:
    return Gpu(name, "sm_89", "570", 24 * GIB)


@pytest.mark.parametrize("board", [8, 16, 32, 64])
def test_numbers_of_orin_follow_its_memory(board: int) -> None:
    found = preset("jetson-orin", BOARDS[board])
    assert found.workspace_bytes is not None
    assert found.tactic_memory_bytes is not None
    assert 900 * MIB < found.workspace_bytes <= 4 * GIB
    assert found.workspace_bytes < found.tactic_memory_bytes
    assert found.tactic_memory_bytes < 0.75 * BOARDS[board], "less than the builder takes of itself"
    assert found.tactic_memory_bytes >= 4.9 * GIB, "or the weights alone leave no room to try a kernel"
    assert found.optimization_level == 3
    assert found.workspace_bytes % MIB == 0


def test_numbers_grow_with_the_memory() -> None:
    found = [preset("jetson-orin", BOARDS[board]) for board in (8, 16, 32, 64)]
    for numbers in ([p.workspace_bytes for p in found], [p.tactic_memory_bytes for p in found]):
        assert numbers == sorted(numbers)
        assert numbers[0] < numbers[2]
    smallest = found[0]
    assert smallest.workspace_bytes == 952 * MIB, "an eighth of 7.4 GiB"
    assert smallest.tactic_memory_bytes == 5079 * MIB, "two thirds of 7.4 GiB"
    thor = preset("jetson-thor", BOARDS[128])
    assert thor.workspace_bytes == 8 * GIB
    assert thor.tactic_memory_bytes == 16 * GIB


def test_desktop_and_server() -> None:
    desktop, server = preset("desktop", 24 * GIB), preset("server", 80 * GIB)
    assert (desktop.workspace_bytes, desktop.tactic_memory_bytes, desktop.optimization_level) == (12 * GIB, None, 3)
    assert (server.workspace_bytes, server.tactic_memory_bytes, server.optimization_level) == (None, None, 5)


def test_a_backend_gets_what_it_has_a_use_for() -> None:
    orin = preset("jetson-orin", BOARDS[8])
    assert orin.for_backend("tensorrt") == orin
    for backend in ("tensorrt-rtx", "openvino"):
        bare = orin.for_backend(backend)
        assert (bare.workspace_bytes, bare.tactic_memory_bytes, bare.optimization_level) == (None, None, None)


@pytest.mark.parametrize(
    ("model", "name", "expected"),
    [
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "Orin", "jetson-orin"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "NVIDIA Thor", "jetson-thor"),
        ("NVIDIA Jetson AGX Xavier Developer Kit", "Xavier", "jetson-orin"),
        (None, "NVIDIA GeForce RTX 5090", "desktop"),
        (None, "NVIDIA RTX 6000 Ada Generation", "desktop"),
        (None, "NVIDIA H100 80GB HBM3", "server"),
        (None, "NVIDIA L4", "server"),
    ],
)
def test_the_preset_of_a_machine(model: str | None, name: str, expected: str) -> None:
    assert preset_for(Jetson(model, None, None, None) if model else None, gpu(name)) == expected


def test_every_preset_can_be_had_on_this_machine() -> None:
    assert preset_for(None, None) == "desktop"
    for name in PRESETS:
        assert preset(name).reason


def test_an_unknown_preset() -> None:
    with pytest.raises(UsageError, match="no preset 'jetson-nano'") as raised:
        preset("jetson-nano")
    assert "jetson-orin, jetson-thor, desktop, server" in str(raised.value)
