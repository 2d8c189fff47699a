"""What a build is asked for, and what is refused before a builder's process starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgeturbo.engines import _build_job, device
from edgeturbo.engines._build_job import Job, parse
from edgeturbo.engines._build_script import vendor_line
from edgeturbo.engines.build import (
    BuildProgress,
    BuildRequest,
    build_plan,
    plan_folder,
    refuse_too_little_memory,
    resolve_targets,
    write_script,
)
from edgeturbo.engines.errors import DeviceError, MissingComponentError, UsageError

SHA256 = "5e" * 32
TERABYTE = 1 << 40


@pytest.fixture
def request_(tmp_path: Path) -> BuildRequest:
    onnx = tmp_path / "bundle" / "generator.onnx"
    onnx.parent.mkdir()
    onnx.write_bytes(b"a generator")
    plan = onnx.parent / "engines" / "new" / "engine.plan"
    return BuildRequest("tensorrt-rtx", onnx, plan, ("sm_89",), SHA256)


def grow(onnx: Path, size: int) -> None:
    """A file of that size that takes no space."""
    with onnx.with_name(f"{onnx.name}.data").open("wb") as stream:
        stream.truncate(size)


def test_too_little_memory_is_refused_with_the_numbers(request_: BuildRequest) -> None:
    grow(request_.onnx, TERABYTE)
    needed = round((TERABYTE + len(b"a generator")) * 3.4)
    with pytest.raises(DeviceError) as raised:
        build_plan(request_)
    said = str(raised.value)
    assert f"about {needed:,} bytes, 3.4 times the generator's {TERABYTE + 11:,}" in said
    memory = device.memory()
    assert memory is not None
    assert f"this machine has {memory.total:,} bytes" in said
    for way in ("systemctl isolate multi-user.target", "swap file", "--force-memory", "another device of the same SM"):
        assert way in said
    assert {path.name for path in request_.onnx.parent.iterdir()} == {"generator.onnx", "generator.onnx.data"}


def test_memory_is_not_refused_where_it_should_not_be(request_: BuildRequest) -> None:
    refuse_too_little_memory(request_)
    grow(request_.onnx, TERABYTE)
    refuse_too_little_memory(replace(request_, ignore_memory=True))
    refuse_too_little_memory(replace(request_, backend="openvino"))
    with pytest.raises(DeviceError):
        refuse_too_little_memory(replace(request_, backend="tensorrt"))


def test_the_line_is_drawn_at_what_is_available(request_: BuildRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    grow(request_.onnx, 1_800_000_000 - 11)
    for available, fits in ((6_120_000_000, True), (6_119_999_999, False)):
        monkeypatch.setattr(device, "memory", lambda free=available: device.HostMemory(8 << 30, free, 64 << 30))
        if fits:
            refuse_too_little_memory(request_)
        else:
            with pytest.raises(DeviceError, match="too little memory"):
                refuse_too_little_memory(request_)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"targets": ()}, "a build needs a target"),
        ({"backend": "openvino", "targets": ()}, "a build needs a target"),
        ({"tactic_memory_bytes": 1 << 30}, "tries no kernels: it has no use for a limit for kernels"),
        ({"timing_cache": Path("timings")}, "tries no kernels: it has no use for a timing cache"),
        ({"tactic_memory_bytes": 0}, "more than 0"),
        ({"backend": "coreml"}, "no builder for the backend 'coreml'"),
    ],
)
def test_what_cannot_be_meant_is_refused(request_: BuildRequest, changes: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError) as raised:
        build_plan(replace(request_, **changes))
    assert says in str(raised.value)
    assert not (request_.onnx.parent / "engines").exists()


def test_tensorrt_needs_the_device(request_: BuildRequest) -> None:
    if device.gpu() is not None:
        pytest.skip("there is a GPU here")
    with pytest.raises(MissingComponentError, match="on the device that runs it, and cannot here") as raised:
        resolve_targets("tensorrt", ())
    assert "copy the bundle to the device" in str(raised.value)
    with pytest.raises(MissingComponentError):
        build_plan(replace(request_, backend="tensorrt", targets=("sm_87",)))


def test_targets_by_backend() -> None:
    assert resolve_targets("tensorrt-rtx", ("sm_89", "sm_120")) == ("sm_89", "sm_120")
    assert resolve_targets("openvino", ("cpu",)) == ("cpu",)
    with pytest.raises(UsageError, match="turbo-build BUNDLE --engine tensorrt"):
        resolve_targets("tensorrt-rtx", ("sm_87",))


def test_a_plan_has_a_folder_of_its_own() -> None:
    assert plan_folder("tensorrt", "10.3.0", ("sm_87",)) == "engines/tensorrt-10.3.0-sm_87"
    assert plan_folder("tensorrt-rtx", "1.7.1.116", ("sm_89", "sm_120")) == (
        "engines/tensorrt-rtx-1.7.1.116-sm_89+sm_120"
    )


def test_a_plan_of_a_lowered_copy_is_named_in_its_bundle(request_: BuildRequest, tmp_path: Path) -> None:
    assert request_.plan_name == "engines/new/engine.plan"
    lowered = replace(request_, onnx=tmp_path / "elsewhere" / "generator.onnx")
    assert lowered.plan_name == "engine.plan"
    assert replace(lowered, plan_root=request_.onnx.parent).plan_name == "engines/new/engine.plan"


def test_options_of_a_request(request_: BuildRequest) -> None:
    assert request_.options == {}
    full = replace(request_, workspace_bytes=1, tactic_memory_bytes=2, optimization_level=0, hints={"streams": "1"})
    assert full.options == {
        "workspace_bytes": "1",
        "tactic_memory_bytes": "2",
        "optimization_level": "0",
        "streams": "1",
    }
    assert replace(request_, timing_cache=Path("t"), fp32_islands=("a",)).options == {}
    assert replace(request_, backend="openvino", precision="bf16").options == {"precision": "bf16"}


@pytest.mark.parametrize("there", [set(), {"engines"}, {"engines", "engines/new"}])
def test_an_interrupted_build_takes_its_new_folders_away(request_: BuildRequest, there: set[str]) -> None:
    def interrupt(_: BuildProgress) -> None:
        raise KeyboardInterrupt

    pytest.importorskip("tensorrt_rtx", reason="the builder must start to be interrupted")
    root = request_.onnx.parent
    for name in sorted(there):
        (root / name).mkdir()
    with pytest.raises(KeyboardInterrupt):
        build_plan(request_, interrupt)
    assert {path.relative_to(root).as_posix() for path in root.rglob("*")} == {"generator.onnx"} | there


def test_a_job_travels_as_flags() -> None:
    job = Job(
        backend="openvino",
        onnx=Path("a folder/generator.onnx"),
        plan=Path("engine.plan"),
        targets=("sm_89", "sm_120"),
        workspace_bytes=1,
        tactic_memory_bytes=2,
        optimization_level=0,
        timing_cache=Path("old"),
        new_timing_cache=Path("new"),
        precision="fp32",
        fp32_islands=("x0/Add_1", "x0/Mul, too"),
        hints={"streams": "1", "odd": "a=b"},
    )
    assert parse([word for pair in _build_job.flags(job) for word in pair]) == job
    small = Job("tensorrt-rtx", Path("g"), Path("p"), ("sm_89",))
    assert parse([word for pair in _build_job.flags(small) for word in pair]) == small


def test_a_builder_is_told_only_what_it_has_a_use_for(request_: BuildRequest) -> None:
    request_.plan.parent.mkdir(parents=True)
    full = replace(request_, precision="bf16", fp32_islands=("x0/Add_1",), plan_root=request_.onnx.parent)
    texts = {}
    for backend, version in (("tensorrt-rtx", "1.7.1.116"), ("openvino", "2026.4.1"), ("tensorrt", "8.6.1")):
        write_script(replace(full, backend=backend), version)
        texts[backend] = (request_.plan.parent / "reproduce.sh").read_text()
    assert "precision" not in texts["tensorrt-rtx"]
    assert "--precision bf16" in texts["openvino"]
    assert [backend for backend, text in texts.items() if "--fp32-island x0/Add_1" in text] == ["tensorrt"]
    assert all("--onnx ../../generator.onnx" in text for text in texts.values()), "it is no lowered copy"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--onnx"], "--onnx stands alone"),
        (["--checkpoint", "x"], "no flag --checkpoint"),
        (["--backend", "tensorrt", "--onnx", "x"], "a build needs --plan, --target"),
    ],
)
def test_flags_that_cannot_be_meant(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse(words)


def test_the_rtx_tools_line() -> None:
    job = Job("tensorrt-rtx", Path("g.onnx"), Path("p"), ("sm_89", "sm_120"), workspace_bytes=3 << 29)
    assert vendor_line(job, "1.7.1.116")[1].split() == [
        "tensorrt_rtx",
        "--onnx=g.onnx",
        "--saveEngine=reproduced.plan",
        "--computeCapabilities=89,120",
        "--noTF32",
        "--memPoolSize=workspace:1536",
        "--skipInference",
    ]
    assert vendor_line(replace(job, backend="openvino"), "2026.4.1") == []
