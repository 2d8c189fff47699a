from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from edgeturbo.engines import reuse
from edgeturbo.engines.device import Gpu
from edgeturbo.engines.manifest import BuiltOn, EngineEntry
from edgeturbo.engines.reuse import Here, here, reusable

SHA = "5e" * 32
ORIN = Gpu("Orin", "sm_87", "540.4.0", 8 << 30)
ADA = Gpu("NVIDIA GeForce RTX 4090", "sm_89", "570.86.10", 24 << 30)
VERSIONS = {"tensorrt": "10.3.0", "tensorrt-rtx": "1.7.1.116", "openvino": "2026.4.1"}
ON_ORIN = Here(VERSIONS, ORIN, "Cortex-A78AE")
ON_ADA = Here(VERSIONS, ADA, "a desktop CPU")
ON_CPU = Here(VERSIONS, None, "a desktop CPU", "no NVIDIA driver (libcuda.so.1 cannot be loaded)")


def plan(backend: str = "tensorrt", targets: tuple[str, ...] = ("sm_87",), **changes) -> EngineEntry:
    on = BuiltOn("Orin", "sm_87", "540.4.0") if backend == "tensorrt" else None
    entry = EngineEntry(backend, VERSIONS[backend], targets, "engines/x/engine.plan", SHA, {}, (), (), on)
    return replace(entry, **changes)


RTX = plan("tensorrt-rtx", ("sm_89", "sm_120"))
OPENVINO = plan("openvino", ("cpu",), options={"cpu": "a desktop CPU", "precision": "fp32"})


def test_a_plan_runs_where_it_was_built() -> None:
    assert reusable(plan(), SHA, ON_ORIN) == (
        True,
        "built with TensorRT 10.3.0 for sm_87 (Orin), which is what is here",
    )


def test_both_sides_are_named() -> None:
    thor = Here({**VERSIONS, "tensorrt": "10.16.2"}, Gpu("Thor", "sm_110", "580.00", 128 << 30))
    assert reusable(plan(), SHA, thor) == (
        False,
        "built with TensorRT 10.3.0 for sm_87 (Orin); here is TensorRT 10.16.2 on sm_110 (Thor)",
    )


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (replace(ON_ORIN, versions={"tensorrt": "10.3.0.30"}), "here is TensorRT 10.3.0.30 on sm_87"),
        (replace(ON_ORIN, gpu=replace(ORIN, sm="sm_89")), "on sm_89 (Orin)"),
        (replace(ON_ORIN, gpu=replace(ORIN, name="Orin NX")), "on sm_87 (Orin NX)"),
        (replace(ON_ORIN, versions={"tensorrt": None}), "here TensorRT is not installed"),
        (replace(ON_ORIN, versions={}), "here TensorRT is not installed"),
        (ON_CPU, "here is no NVIDIA driver (libcuda.so.1 cannot be loaded)"),
    ],
)
def test_tensorrt_wants_its_version_architecture_and_gpu(machine: Here, says: str) -> None:
    fits, reason = reusable(plan(), SHA, machine)
    assert not fits
    assert reason.startswith("built with TensorRT 10.3.0 for sm_87 (Orin); ")
    assert says in reason


def test_the_driver_is_mentioned_and_does_not_decide() -> None:
    fits, reason = reusable(plan(), SHA, replace(ON_ORIN, gpu=replace(ORIN, driver="540.5.0")))
    assert fits
    assert "540.4.0, here 540.5.0" in reason


def test_a_plan_that_does_not_say_its_gpu_is_built_again() -> None:
    fits, reason = reusable(plan(built_on=None), SHA, ON_ORIN)
    assert not fits
    assert "does not say on which GPU" in reason


def test_tensorrt_rtx_wants_its_version_and_a_target() -> None:
    assert reusable(RTX, SHA, ON_ADA) == (
        True,
        "built with TensorRT for RTX 1.7.1.116 for sm_89, sm_120, which is what is here",
    )
    same_release = replace(ON_ADA, versions={"tensorrt-rtx": "1.7.1.200"})
    assert reusable(RTX, SHA, same_release)[0], "as tensorrt_rtx.check_plan"
    other_gpu = replace(ADA, name="NVIDIA RTX 4000 SFF Ada", driver="600.00")
    assert reusable(replace(RTX, built_on=BuiltOn("A", "sm_89", "1")), SHA, replace(ON_ADA, gpu=other_gpu))[0]
    for machine in (replace(ON_ADA, versions={"tensorrt-rtx": "1.7.2.1"}), replace(ON_ADA, gpu=ORIN), ON_CPU):
        assert not reusable(RTX, SHA, machine)[0]


def test_openvino_wants_its_version_and_cpu() -> None:
    assert reusable(OPENVINO, SHA, ON_CPU) == (
        True,
        "built with OpenVINO 2026.4.1 on a desktop CPU, which is what is here",
    )
    assert reusable(OPENVINO, SHA, replace(ON_CPU, cpu="another")) == (
        False,
        "built with OpenVINO 2026.4.1 on a desktop CPU; here is OpenVINO 2026.4.1 on another",
    )
    assert not reusable(OPENVINO, SHA, replace(ON_CPU, versions={"openvino": "2026.5.0"}))[0]
    assert reusable(replace(OPENVINO, options={}), SHA, replace(ON_CPU, cpu="another"))[0], "bound to no CPU"


def test_another_generator_or_other_options() -> None:
    assert reusable(plan(), "ab" * 32, ON_ORIN) == (
        False,
        "built from another generator: 5e5e5e5e5e5e..., here abababababab...",
    )
    level = {"optimization_level": "5"}
    assert reusable(plan(options=level), SHA, ON_ORIN)[0], "options that nobody asks about do not count"
    assert reusable(plan(options=level), SHA, ON_ORIN, level)[0]
    assert reusable(plan(options=level), SHA, ON_ORIN, {}) == (
        False,
        "built with optimization_level=5; asked for is the builder's own options",
    )
    assert reusable(OPENVINO, SHA, ON_CPU, {"precision": "fp32"})[0], "the CPU is no option that is asked for"
    assert not reusable(OPENVINO, SHA, ON_CPU, {"precision": "bf16"})[0]


def test_an_unknown_backend() -> None:
    assert reusable(plan(backend="tensorrt", targets=()), SHA, ON_ORIN)[0]
    assert reusable(replace(plan(), backend="coreml"), SHA, ON_ORIN) == (
        False,
        "built by coreml, which this version does not know",
    )


def test_this_machine() -> None:
    machine = here()
    assert set(machine.versions) == {"tensorrt", "tensorrt-rtx", "openvino"}
    assert machine.cpu
    assert machine.gpu is not None or "NVIDIA" in machine.no_gpu
    rtx = pytest.importorskip("tensorrt_rtx", reason="compares the version that is installed")
    assert machine.versions["tensorrt-rtx"] == rtx.__version__


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # Python's own way to say that it cannot be imported
    reuse._version.cache_clear()
    assert here().versions["tensorrt"] is None
    reuse._version.cache_clear()


def test_openvino_as_its_plans_name_it() -> None:
    pytest.importorskip("openvino", reason="compares the version that is installed")
    from edgeturbo.engines.openvino import version

    assert here().versions["openvino"] == version()
