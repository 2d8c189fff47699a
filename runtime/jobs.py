"""From what a user typed to a list of pictures to read and pictures to write, checked before any work begins."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..engines.errors import ImageError, OutputExistsError, UsageError
from ..engines.files import writing_to
from .image import READABLE_SUFFIXES, WRITABLE_SUFFIXES, refuse_unwritable_suffix

OUTPUT_MARK = ".edgeturbo"
_OUTPUT_SUFFIX = OUTPUT_MARK + ".png"

# An error message names so many paths and counts the others.
_NAMED = 3


@dataclass(frozen=True)
class Job:
    source: Path
    target: Path


def jobs_of(source: Path | str, output: Path | str | None, *, force: bool) -> tuple[Job, ...]:
    """The pictures that ``source`` means and where each one's translation goes; makes the folder of the outputs.

    Raises ImageError when ``source`` does not exist, UsageError and OutputExistsError as ``translate_files``.
    """
    sources = pictures_of(source)
    one_picture = names_one_picture(source)
    jobs = tuple(
        Job(path, target) for path, target in zip(sources, _targets(sources, output, one_picture), strict=True)
    )
    _refuse_collisions(jobs)
    _refuse_inputs_as_outputs(jobs)
    for job in jobs:
        _refuse_unwritable(job.target)
    if not force:
        _refuse_existing(jobs)
    for folder in {job.target.parent for job in jobs}:
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
    return jobs


def pictures_of(source: Path | str) -> list[Path]:
    """The pictures that ``source``, a path, a folder or a pattern, means, in order of their paths.

    Raises ImageError when there are none or they cannot be listed.
    """
    with _reading(source):
        return _sources(source)


def names_one_picture(source: Path | str) -> bool:
    """Whether ``source`` is one path, and not a folder or a pattern that may stand for several."""
    path = Path(source)
    return path.exists() and not path.is_dir()


@contextmanager
def _reading(source: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ImageError(f"cannot read {source}: {error.strerror}", hint="look at its permissions") from error


def _sources(source: Path | str) -> list[Path]:
    """An existing path is taken literally, so a file may be named ``a[1].png``; else it is a pattern."""
    path = Path(source)
    if names_one_picture(source):
        return [path]
    if path.is_dir():
        return _pictures_among(path.iterdir(), f"in {path}")
    if glob.has_magic(str(source)):
        return _pictures_among(map(Path, glob.glob(str(source), recursive=True)), f"that match {source}")  # noqa: PTH207
    raise ImageError(f"{path} does not exist", expected="a picture, a folder of pictures or a pattern like 'in/*.png'")


def _pictures_among(paths: Iterable[Path], where: str) -> list[Path]:
    """Sorted, without the outputs of an earlier run beside its inputs."""
    pictures = sorted(path for path in paths if _is_picture(path))
    if not pictures:
        raise UsageError(f"there are no pictures {where}", expected=", ".join(READABLE_SUFFIXES))
    return pictures


def _is_picture(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(READABLE_SUFFIXES) and not name.endswith(_OUTPUT_SUFFIX) and path.is_file()


def _targets(sources: list[Path], output: Path | str | None, one_picture: bool) -> list[Path]:
    if output is None:
        return [source.with_name(source.stem + _OUTPUT_SUFFIX) for source in sources]
    path = Path(output)
    if _is_folder(output, one_picture):
        return [path / f"{source.stem}.png" for source in sources]
    if len(sources) > 1:
        raise UsageError(
            f"{len(sources)} pictures cannot go to one file, {path}", expected="a folder", hint=f"name it {path.stem}/"
        )
    refuse_unwritable_suffix(path)
    return [path]


def _is_folder(output: Path | str, one_picture: bool) -> bool:
    """A trailing slash always means a folder. For one picture a suffix means a file; for several, a picture's does."""
    path = Path(output)
    if path.is_dir() or str(output).endswith(("/", os.sep)):
        return True
    return not path.suffix if one_picture else path.suffix.lower() not in WRITABLE_SUFFIXES


def _refuse_collisions(jobs: tuple[Job, ...]) -> None:
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.target in taken:
            raise UsageError(
                f"{taken[job.target]} and {job.source} would both be written to {job.target}",
                hint="rename one of them, or translate them one at a time",
            )
        taken[job.target] = job.source


def _refuse_inputs_as_outputs(jobs: tuple[Job, ...]) -> None:
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        if job.target.resolve() in sources:
            raise UsageError(
                f"{job.target} is an input, and inputs are never overwritten",
                hint="choose another output folder or name",
            )


def _refuse_unwritable(target: Path) -> None:
    with writing_to(target):
        is_folder = target.is_dir()
        obstacle = next((parent for parent in target.parents if parent.exists() and not parent.is_dir()), None)
    if is_folder:
        raise UsageError(f"{target} is a folder, and a picture has to be written there", hint="choose another output")
    if obstacle is not None:
        raise UsageError(f"{target} cannot be written: {obstacle} is not a folder", hint="choose another output")


def _refuse_existing(jobs: tuple[Job, ...]) -> None:
    existing = [str(job.target) for job in jobs if job.target.exists() or job.target.is_symlink()]
    if existing:
        others = f" and {len(existing) - _NAMED} more" if len(existing) > _NAMED else ""
        raise OutputExistsError(
            f"{', '.join(existing[:_NAMED])}{others} exist{'s' if len(existing) == 1 else ''}",
            hint="add --force to replace, or choose another output",
        )
