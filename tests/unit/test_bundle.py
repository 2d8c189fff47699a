"""The bundle as a format under attack, and writing that leaves nothing half-made."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgeturbo.engines.bundle import MANIFEST, ONNX, ONNX_DATA, Bundle, add_files, refuse_existing, staging
from edgeturbo.engines.errors import BundleError, DiskFullError, InputError, OutputExistsError, UsageError
from edgeturbo.engines.files import replacing, sha256_of
from edgeturbo.engines.manifest import (
    SCHEMA_VERSION,
    EngineEntry,
    FileEntry,
    Manifest,
    Parity,
    RangeEntry,
    RangeLedger,
    Repair,
)


def edited(bundle: Bundle, edit) -> Path:
    """Change the manifest as an attacker or an accident would, and return the bundle's folder."""
    path = bundle.root / MANIFEST
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return bundle.root


def entry(plan: str = "engine.plan", backend: str = "tensorrt-rtx") -> EngineEntry:
    return EngineEntry(backend, "1.7.1", ("ampere",), plan, "00", {"level": "3"}, ("deserialised",), ("parity",))


def left_beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p != path)


# Reading


def test_a_sealed_bundle_opens_and_every_file_verifies(make_bundle):
    bundle = make_bundle()
    assert set(bundle.manifest.files) == {ONNX, ONNX_DATA}
    assert bundle.onnx() == bundle.root / ONNX
    assert bundle.manifest.schema_version == SCHEMA_VERSION


def test_a_full_manifest_survives_being_written(make_bundle):
    full = dataclasses.replace(
        make_bundle().manifest,
        files={"goldens/a.png": FileEntry("00", 1)},
        engines=(entry(),),
        fp32_islands=("/vae/mid",),
        parity=Parity("pytorch 2.9, fp32", 2, 0.001, None, 1.0, 43.2, 0.99),
        range_ledger=RangeLedger(
            65504.0,
            2,
            10,
            20,
            (RangeEntry("/x", "unet", 3.5),),
            (),
            2.0,
            "bundled",
            (RangeEntry("/x", "unet", 3.5),),
            (Repair("rescale", "overflow", "/x", "unet", 7e4, 32752.0, -2, ("/n",), 1, 0, 0.0),),
        ),
    )
    assert Manifest.from_json(full.to_json()) == full


def test_a_ledger_from_before_there_were_repairs_can_be_read(make_bundle):
    old = RangeLedger(65504.0, 2, 10, 20, (RangeEntry("/x", "unet", 3.5),), ())
    data = json.loads(dataclasses.replace(make_bundle().manifest, range_ledger=old).to_json())
    for name in ("margin", "source", "by_stage", "repairs"):
        del data["range_ledger"][name]
    assert Manifest.from_json(json.dumps(data)).range_ledger == old


@pytest.mark.parametrize("inside", ["", ONNX, MANIFEST, "engine.plan", "engines/rtx-1-ampere/engine.plan"])
def test_a_bundle_is_found_from_its_folder_or_any_file_in_it(make_bundle, inside):
    root = make_bundle().root
    (root / "engines/rtx-1-ampere").mkdir(parents=True)
    for plan in ("engine.plan", "engines/rtx-1-ampere/engine.plan"):
        (root / plan).touch()
    assert Bundle.open(root / inside).root == root


def test_a_plan_without_a_manifest_and_a_missing_path_are_refused(tmp_path):
    (tmp_path / "engine.plan").touch()
    with pytest.raises(BundleError, match="beside or above"):
        Bundle.open(tmp_path / "engine.plan")
    with pytest.raises(BundleError, match="in it"):
        Bundle.open(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        Bundle.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [ONNX, ONNX_DATA])
def test_a_changed_byte_is_noticed(make_bundle, name):
    bundle = make_bundle()
    data = bytearray((bundle.root / name).read_bytes())
    data[-1] ^= 1
    (bundle.root / name).write_bytes(data)
    assert bundle.file(name).is_file()  # the size still fits: only the hash tells
    with pytest.raises(BundleError, match="was changed after the export"):
        bundle.onnx()


@pytest.mark.parametrize("name", [ONNX, ONNX_DATA])
def test_a_truncated_file_is_noticed_by_its_size(make_bundle, name):
    bundle = make_bundle()
    (bundle.root / name).write_bytes((bundle.root / name).read_bytes()[:-1])
    with pytest.raises(BundleError, match="cut short"):
        bundle.file(name)
    with pytest.raises(BundleError, match="cut short"):
        bundle.onnx()


@pytest.mark.parametrize("name", [ONNX, ONNX_DATA])
def test_a_missing_file_is_noticed(make_bundle, name):
    bundle = make_bundle()
    (bundle.root / name).unlink()
    with pytest.raises(BundleError, match="lacks"):
        bundle.onnx()


def test_a_file_that_the_manifest_does_not_name_is_refused(make_bundle):
    bundle = make_bundle()
    (bundle.root / "more.bin").touch()
    with pytest.raises(BundleError, match="names no file"):
        bundle.file("more.bin")


@pytest.mark.parametrize(
    "name", ["../secret", "goldens/../../secret", "/etc/hostname", "C:secret", "..\\secret", "a\0b"], ids=repr
)
def test_names_that_leave_the_folder_are_refused(make_bundle, tmp_path, name):
    (tmp_path / "secret").write_bytes(b"x")
    root = edited(make_bundle(), lambda m: m["files"].update({name: {"sha256": "00", "bytes": 1}}))
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(root).file(name)


@pytest.mark.parametrize("how", ["file", "folder"])
def test_symbolic_links_that_leave_the_folder_are_refused(make_bundle, tmp_path, how):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_bytes(b"x")
    bundle = make_bundle()
    if how == "file":
        (bundle.root / "link").symlink_to(tmp_path / "elsewhere/secret")
    else:
        (bundle.root / "folder").symlink_to(tmp_path / "elsewhere")
    name = "link" if how == "file" else "folder/secret"
    digest = sha256_of(tmp_path / "elsewhere/secret")
    root = edited(bundle, lambda m: m["files"].update({name: {"sha256": digest, "bytes": 1}}))
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(root).verified(name)


def test_a_link_inside_the_folder_is_fine(make_bundle):
    bundle = make_bundle()
    (bundle.root / "link").symlink_to(ONNX)
    files = {"link": dataclasses.asdict(bundle.manifest.files[ONNX])}
    assert Bundle.open(edited(bundle, lambda m: m["files"].update(files))).verified("link").is_file()


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, "1", None, 1.5])
def test_other_schema_versions_are_refused(make_bundle, version):
    root = edited(make_bundle(), lambda m: m.update(schema_version=version, later_key=1))
    with pytest.raises(BundleError, match="schema this version cannot read") as caught:
        Bundle.open(root)
    assert caught.value.got == f"schema_version {version}"


@pytest.mark.parametrize("kept", [0, 1, 0.5, 0.99])
def test_a_truncated_manifest_is_refused(make_bundle, kept):
    path = make_bundle().root / MANIFEST
    text = path.read_text()
    path.write_text(text[: int(len(text) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(BundleError, match="is not JSON"):
        Bundle.open(path.parent)


@pytest.mark.parametrize("content", [b"[]", b"null", b"3", b'"x"'])
def test_json_that_is_no_manifest_is_refused(make_bundle, content):
    root = make_bundle().root
    (root / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match="schema"):
        Bundle.open(root)


def test_a_manifest_that_is_not_text_is_refused(make_bundle):
    root = make_bundle().root
    (root / MANIFEST).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="cannot read"):
        Bundle.open(root)


@pytest.mark.parametrize(
    ("edit", "where"),
    [
        (lambda m: m.update(extra=1), "extra"),
        (lambda m: m["model"].update(extra=1), "model"),
        (lambda m: m["inputs"][0].update(extra=1), r"inputs\[0\]"),
        (lambda m: m.pop("model"), "model"),
        (lambda m: m["model"].pop("width"), "model"),
        (lambda m: m["model"].update(width="64"), "model.width"),
        (lambda m: m["model"].update(width=True), "model.width"),
        (lambda m: m["model"].update(width=64.0), "model.width"),
        (lambda m: m["model"].update(prompt=None), "model.prompt"),
        (lambda m: m["files"][ONNX].update(bytes=None), "files.generator.onnx.bytes"),
        (lambda m: m.update(files=[]), "files"),
        (lambda m: m["inputs"][0].update(shape={}), r"inputs\[0\].shape"),
    ],
)
def test_keys_that_are_unknown_missing_or_mistyped_are_named(make_bundle, edit, where):
    root = edited(make_bundle(), edit)
    with pytest.raises(BundleError, match=f"does not follow its schema: .*{where}"):
        Bundle.open(root)


# Plans


def test_a_plan_is_entered_with_its_hash_and_replaces_its_earlier_entry(make_bundle):
    bundle = make_bundle()
    (bundle.root / "engine.plan").write_bytes(b"one")
    add_files(bundle, ("engine.plan",), entry())
    (bundle.root / "engine.plan").write_bytes(b"another")
    added = add_files(Bundle.open(bundle.root), ("engine.plan",), dataclasses.replace(entry(), version="1.8"))
    reopened = Bundle.open(bundle.root)
    assert reopened.manifest == added.manifest
    assert [e.version for e in reopened.manifest.engines] == ["1.8"]
    assert reopened.verified("engine.plan").read_bytes() == b"another"
    assert reopened.engine(bundle.root / "engine.plan").version == "1.8"
    assert reopened.onnx().is_file()


def test_a_plan_that_the_manifest_does_not_know_is_refused(make_bundle):
    bundle = make_bundle()
    (bundle.root / "other.plan").touch()
    with pytest.raises(BundleError, match="not among the plans"):
        bundle.engine(bundle.root / "other.plan")


# Writing


class WorkError(Exception):
    """Whatever goes wrong between the first file and the manifest."""


def fail_while_staging(out: Path) -> None:
    with staging(out, force=True) as staged:
        (staged.root / ONNX).write_text("half")
        raise WorkError


def test_an_exception_while_staging_leaves_the_earlier_bundle(make_bundle):
    earlier = make_bundle()
    with pytest.raises(WorkError):
        fail_while_staging(earlier.root)
    assert Bundle.open(earlier.root) == earlier
    assert earlier.onnx().is_file()
    assert left_beside(earlier.root) == []


def test_an_exception_while_staging_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(WorkError):
        fail_while_staging(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_new_bundle_takes_the_place_of_the_earlier_one(make_bundle):
    first = make_bundle()
    (first.root / "left-over").touch()
    second = make_bundle(size=(32, 32), force=True)
    assert second.root == first.root
    assert second.manifest.model.width == 32
    assert not (second.root / "left-over").exists()
    assert left_beside(second.root) == []


def test_an_existing_bundle_is_replaced_only_with_force(make_bundle):
    root = make_bundle().root
    with pytest.raises(OutputExistsError, match="exists"):
        refuse_existing(root, force=False)
    refuse_existing(root, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_what_is_not_a_bundle_is_never_replaced(tmp_path, force):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    (tmp_path / "file").touch()
    for name in ("photos", "file"):
        with pytest.raises(OutputExistsError, match="not a bundle"):
            refuse_existing(tmp_path / name, force=force)
    assert (tmp_path / "photos/a.jpg").exists()


def test_an_empty_folder_is_a_fine_place(tmp_path):
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty", force=False)


def test_a_file_in_the_way_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write"), replacing(tmp_path / "file/x.txt"):
        pass


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_written_files_have_the_permissions_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


CHILD = """
import resource, sys
from pathlib import Path
from edgeturbo.engines.errors import DiskFullError
{imports}
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
out = Path(sys.argv[1])
try:
{work}
except DiskFullError as error:
    sys.stdout.write(f"{{type(error).__name__}} {{error.exit_code}} {{error}}")
"""

WRITE_FILE = """
    with replacing(out) as temporary:
        temporary.write_bytes(b"new" * 9999)
"""

WRITE_PICTURE = """
    save_image(np.random.default_rng(0).integers(0, 256, (99, 99, 3), dtype=np.uint8), out)
"""

WRITE_BUNDLE = """
    with staging(out, force=True) as staged:
        (staged.root / "generator.onnx").write_bytes(b"new" * 9999)
"""


def on_a_full_disk(out: Path, imports: str, work: str) -> str:
    """Run ``work`` in a process that may write no file over 4,096 bytes."""
    code = CHILD.format(imports=imports, work=work)
    child = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
    return child.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize(
    ("imports", "work"),
    [
        ("from edgeturbo.engines.files import replacing", WRITE_FILE),
        ("import numpy as np\nfrom edgeturbo.runtime.image import save_image", WRITE_PICTURE),
    ],
    ids=["file", "picture"],
)
def test_a_full_disk_leaves_the_earlier_file(tmp_path, imports, work):
    (tmp_path / "a.png").write_text("earlier")
    said = on_a_full_disk(tmp_path / "a.png", imports, work)
    assert said.startswith(f"{DiskFullError.__name__} 6 no space left to write {tmp_path / 'a.png'}")
    assert (tmp_path / "a.png").read_text() == "earlier"
    assert left_beside(tmp_path / "a.png") == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_leaves_the_earlier_bundle(make_bundle):
    bundle = make_bundle()
    said = on_a_full_disk(bundle.root, "from edgeturbo.engines.bundle import staging", WRITE_BUNDLE)
    assert said.startswith("DiskFullError 6")
    assert Bundle.open(bundle.root).onnx().is_file()
    assert left_beside(bundle.root) == []
