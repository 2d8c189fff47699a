"""A bundle: the folder that an export writes and everything else reads. Specified in ``docs/bundle.md``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from .errors import BundleError, InputError, OutputExistsError
from .files import replacing, replacing_folder, sha256_of, writing_to
from .manifest import EngineEntry, FileEntry, Manifest

MANIFEST = "manifest.json"
ONNX = "generator.onnx"
ONNX_DATA = "generator.onnx.data"
PLAN = "engine.plan"
GOLDENS = "goldens"
BUILD_LOG = "build.log"
BUILD_SCRIPT = "reproduce.sh"

# A plan of a further target lies at engines/<backend>-<version>-<target>/engine.plan, two folders below its manifest.
_LEVELS_ABOVE_A_PLAN = 3


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its manifest. Files are checked when they are asked for."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path | str) -> Bundle:
        """The bundle at ``path``: its folder, its manifest, or any file in it (a plan finds its manifest above).

        Raises InputError when there is none, BundleError when it cannot be used.
        """
        path = Path(path)
        try:
            if not path.exists():
                raise InputError(f"{path} does not exist", hint="turbo-export --ckpt day2night.pkl --out day2night")
            root = _root_of(path)
            text = (root / MANIFEST).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"cannot read the bundle at {path}: {error}") from error
        return cls(root, Manifest.from_json(text, str(root / MANIFEST)))

    def file(self, name: str) -> Path:
        """Where the bundle's file ``name`` lies, after its path and size, not its content, were checked."""
        path = self._path(name)
        entry = self.manifest.files[name]
        if not path.is_file():
            raise BundleError(f"{self.root} lacks {name}, which its manifest names", hint="export the bundle again")
        if path.stat().st_size != entry.bytes:
            raise BundleError(
                f"{path} is damaged or was cut short",
                expected=f"{entry.bytes:,} bytes",
                got=f"{path.stat().st_size:,} bytes",
                hint="copy or export the bundle again",
            )
        return path

    def verified(self, name: str) -> Path:
        """As ``file``, and its SHA-256 is the manifest's. Reads the whole file (about a second a gigabyte)."""
        path = self.file(name)
        expected, got = self.manifest.files[name].sha256, sha256_of(path)
        if got != expected:
            raise BundleError(
                f"{path} was changed after the export",
                expected=f"sha256 {expected}",
                got=f"sha256 {got}",
                hint="copy or export the bundle again",
            )
        return path

    def onnx(self) -> Path:
        """The generator's ONNX file, verified together with its external data."""
        self.verified(ONNX_DATA)
        return self.verified(ONNX)

    def engine(self, plan: Path) -> EngineEntry:
        """The manifest's entry for ``plan``. Raises BundleError when the manifest does not know it."""
        for entry in self.manifest.engines:
            if (self.root / entry.plan).resolve() == plan.resolve():
                return entry
        raise BundleError(
            f"{plan} is not among the plans of {self.root / MANIFEST}",
            expected=", ".join(entry.plan for entry in self.manifest.engines) or "no plan at all",
            hint=f"turbo-inspect {self.root}",
        )

    def _path(self, name: str) -> Path:
        if name not in self.manifest.files:
            raise BundleError(f"{self.root / MANIFEST} names no file {name}", hint=f"turbo-inspect {self.root}")
        _refuse_escape(name, self.root)
        return self.root / name


def _root_of(path: Path) -> Path:
    if path.is_dir():
        candidates = [path]
    else:
        absolute = path.absolute()
        candidates = list(absolute.parents)[:_LEVELS_ABOVE_A_PLAN]
    for candidate in candidates:
        if (candidate / MANIFEST).is_file():
            return candidate
    raise BundleError(
        f"{path} has no {MANIFEST} {'in it' if path.is_dir() else 'beside or above it'}",
        expected="a bundle's folder, or a plan inside one",
        hint="turbo-export --ckpt day2night.pkl --out day2night",
    )


def _refuse_escape(name: str, root: Path) -> None:
    """A name in a manifest is data from elsewhere: it must stay in the folder, also through symbolic links."""
    pure = PurePosixPath(name)
    plain = (
        not pure.is_absolute() and ".." not in pure.parts and "\\" not in name and ":" not in name and "\0" not in name
    )
    if not plain or not (root / name).resolve().is_relative_to(root.resolve()):
        raise BundleError(
            f"{root / MANIFEST} names a path outside the bundle", got=name, hint="do not trust this bundle"
        )


@dataclass
class StagedBundle:
    """A bundle being written: fill ``root``, then ``seal`` it with its manifest."""

    root: Path

    def seal(self, manifest: Manifest) -> Bundle:
        """Hash every file in the folder into ``manifest`` and write it, last."""
        names = sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())
        sealed = replace(manifest, files={name: entry_of(self.root / name) for name in names if name != MANIFEST})
        _write_manifest(self.root, sealed)
        return Bundle(self.root, sealed)


@contextmanager
def staging(out: Path, *, force: bool) -> Iterator[StagedBundle]:
    """A folder beside ``out`` to write a bundle into. It becomes ``out`` when the block succeeds and else vanishes.

    Raises OutputExistsError for an existing ``out`` without ``force``, and with it for anything but a bundle.
    """
    refuse_existing(out, force=force)
    with replacing_folder(out) as root:
        yield StagedBundle(root)


def refuse_existing(out: Path, *, force: bool) -> None:
    """Raise OutputExistsError unless a bundle may be written to ``out``. Cheap: call it before the long work."""
    with writing_to(out):
        exists = out.exists() or out.is_symlink()
        empty_folder = out.is_dir() and not any(out.iterdir())
    if not exists or empty_folder:
        return
    if not (out / MANIFEST).is_file():
        raise OutputExistsError(
            f"{out} exists and is not a bundle", hint="choose another --out; --force replaces only bundles"
        )
    if not force:
        raise OutputExistsError(f"{out} exists", hint="add --force to replace it, or choose another --out")


def add_files(bundle: Bundle, names: tuple[str, ...], engine: EngineEntry) -> Bundle:
    """Enter files already written into the bundle's folder, and the plan among them, in its manifest (atomically)."""
    files = {**bundle.manifest.files, **{name: entry_of(bundle.root / name) for name in names}}
    engines = (*(entry for entry in bundle.manifest.engines if entry.plan != engine.plan), engine)
    manifest = replace(bundle.manifest, files=files, engines=engines)
    _write_manifest(bundle.root, manifest)
    return Bundle(bundle.root, manifest)


def without_plan(bundle: Bundle, plan: str) -> Bundle:
    """Take a plan, and the files beside it, out of the manifest (atomically); the files themselves stay."""
    if all(entry.plan != plan for entry in bundle.manifest.engines):
        return bundle
    folder = PurePosixPath(plan).parent
    beside = {str(folder / name) for name in (PLAN, BUILD_LOG, BUILD_SCRIPT)}
    manifest = replace(
        bundle.manifest,
        files={name: entry for name, entry in bundle.manifest.files.items() if name not in beside},
        engines=tuple(entry for entry in bundle.manifest.engines if entry.plan != plan),
    )
    _write_manifest(bundle.root, manifest)
    return Bundle(bundle.root, manifest)


def entry_of(path: Path) -> FileEntry:
    return FileEntry(sha256=sha256_of(path), bytes=path.stat().st_size)


def _write_manifest(root: Path, manifest: Manifest) -> None:
    with replacing(root / MANIFEST) as temporary:
        temporary.write_text(manifest.to_json(), encoding="utf-8")
