"""Which measures with weights there are, which files each needs, and why one cannot run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ...engines.errors import UsageError
from ...engines.files import sha256_of

NO_WEIGHTS = "not run: no weights"


@dataclass(frozen=True)
class Weighted:
    """A measure that needs weights: its ``title`` and ``unit``, the ``file`` in the weights' folder and its ``source``.

    ``sha256`` is the beginning of the file's digest where its publisher states one, else empty.
    """

    title: str
    unit: str
    file: str
    source: str
    sha256: str = ""


# The measures of the CycleGAN-Turbo paper (arXiv 2403.12036, section 4), and LPIPS. The files are the vendors' own,
# under the vendors' names. torchvision puts the beginning of the digest into its names.
WEIGHTED = {
    "lpips": Weighted(
        "LPIPS (AlexNet)",
        "1",
        "alexnet-owt-7be5be79.pth",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "7be5be79",
    ),
    "clean_fid": Weighted(
        "Clean-FID",
        "1",
        "inception-2015-12-05.pt",
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    ),
    "dino_struct": Weighted(
        "DINO-Struct-Dist x100",
        "1e-2",
        "dino_vitbase8_pretrain.pth",
        "https://dl.fbaipublicfiles.com/dino/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
    ),
}


def metrics_available(weights: Path | None, python: Path | None = None) -> dict[str, str | None]:
    """For each measure of ``WEIGHTED``, None when it can be tried, else a reason that begins with ``not run:``.

    ``weights``: the user's folder with the files that ``WEIGHTED`` names; nothing is downloaded. ``python``: the
    interpreter of the environment that has ``edgeturbo[metrics]``; nothing is installed or imported here, so the child
    may still find a package missing. Raises UsageError for a folder or an interpreter that is not there.
    """
    if weights is None:
        return dict.fromkeys(WEIGHTED, f"{NO_WEIGHTS}: give the folder that has them as --metric-weights")
    if not weights.is_dir():
        raise UsageError("the folder of weights is not there", expected="a folder", got=str(weights))
    if python is not None and not os.access(python, os.X_OK):
        raise UsageError("the interpreter for the measures is not there", expected="a program", got=str(python))
    return {name: _missing(weights / one.file, one) or _no_python(python) for name, one in WEIGHTED.items()}


def _missing(path: Path, one: Weighted) -> str | None:
    if not path.is_file():
        return f"{NO_WEIGHTS}: {path.name} is not in {path.parent}; its publisher has it at {one.source}"
    if one.sha256 and not sha256_of(path).startswith(one.sha256):
        return f"not run: {path} is not the published file: its SHA-256 does not begin with {one.sha256}"
    return None


def _no_python(python: Path | None) -> str | None:
    if python is not None:
        return None
    return (
        "not run: no environment for it; python -m venv metrics && metrics/bin/pip install 'edgeturbo[metrics]', "
        "then --metric-python metrics/bin/python"
    )
