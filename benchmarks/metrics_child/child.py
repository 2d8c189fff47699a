"""The child: runs under the interpreter of ``--metric-python`` as a file, and imports nothing of this package.

It says one JSON object a line on stdout; the libraries' own words go to stderr:

- ``{"event": "progress", "measure", "done", "of"}``
- ``{"event": "measured", "measure", "series": {pair: [a figure per frame, or one for a set]}, "versions"}``
- ``{"event": "not_run", "measure", "reason"}``
- ``{"event": "done"}`` at the end.

A pair is ``reference-engine``, ``input-engine``, ``input-reference``, ``target-engine`` or ``target-reference``.

The pictures are PNG files in ``PICTURES/{input,reference,engine,target}``; ``input`` and ``target`` may be absent.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

Say = Callable[..., None]
Series = dict[str, list[float]]

# What a broken or incompatible library, a damaged file of weights or a full memory raises.
_FAILURES = (
    ImportError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    MemoryError,
    metadata.PackageNotFoundError,
)


class NotMeasurableError(Exception):
    """These pictures do not define the measure; the text says why."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--measures", required=True, help="names separated by commas")
    options = parser.parse_args()
    with _protocol() as stream:

        def say(event: str, **fields: Any) -> None:
            stream.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")
            stream.flush()

        for measure in options.measures.split(","):
            _run(measure, options.weights, options.pictures, say)
        say("done")


def _run(measure: str, weights: Path, pictures: Path, say: Say) -> None:
    try:
        series = _MEASURES[measure](weights, pictures, say)
        versions = {name: metadata.version(name) for name in _PACKAGES[measure]}
    except NotMeasurableError as error:
        say("not_run", measure=measure, reason=f"not defined: {error}")
    except _FAILURES as error:
        kind = "needs a package" if isinstance(error, ImportError) else f"failed ({type(error).__name__})"
        say("not_run", measure=measure, reason=f"not run: {measure} {kind}: {error}")
    else:
        if all(math.isfinite(figure) for figures in series.values() for figure in figures):
            say("measured", measure=measure, series=series, versions=versions)
        else:
            say("not_run", measure=measure, reason=f"not run: {measure} gave a figure that is not finite")


@contextmanager
def _protocol() -> Iterator[TextIO]:
    """The real stdout for our lines; whatever a library prints there goes to stderr."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as stream:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        yield stream


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png")) if folder.is_dir() else []


def _pairs(pictures: Path, *names: str) -> list[tuple[str, Path, Path]]:
    """Frame by frame, (pair, first file, second file) of those folders that are there."""
    return [
        (name, one, other)
        for name in names
        for one, other in zip(*(_files(pictures / part) for part in name.split("-")), strict=False)
    ]


def lpips(weights: Path, pictures: Path, say: Say) -> Series:
    """LPIPS 0.1 with AlexNet, at the pictures' own size: 0 for equal pictures; per frame.

    Source: R. Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018. The
    linear heads are in the lpips package, the backbone is torchvision's file.
    """
    torch = importlib.import_module("torch")
    network = importlib.import_module("lpips").LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = torch.load(weights / "alexnet-owt-7be5be79.pth", map_location="cpu", weights_only=True)
    # The package cuts torchvision's "features.N" into slices and keeps N as the layers' names.
    own = {key: state[f"features.{key.split('.', 1)[1]}"] for key in network.net.state_dict()}
    network.net.load_state_dict(own)
    series: Series = {"reference-engine": []}
    pairs = _pairs(pictures, "reference-engine")
    with torch.inference_mode():
        for done, (_, reference, engine) in enumerate(pairs, 1):
            figure = network(_tensor(reference), _tensor(engine), normalize=True)
            series["reference-engine"].append(float(figure))
            say("progress", measure="lpips", done=done, of=len(pairs))
    return series


def clean_fid(weights: Path, pictures: Path, say: Say) -> Series:
    """The Frechet distance of Inception features with antialiased resizing; one figure for each pair of sets.

    Against ``target``, real pictures of the domain, it is the paper's measure. It falls as the sets grow: figures of
    sets of different sizes do not compare. Needs two pictures in each set to have a covariance at all.

    Source: G. Parmar, R. Zhang, J.-Y. Zhu, "On aliased resizing and surprising subtleties in GAN evaluation",
    CVPR 2022.
    """
    sets = {name: [str(path) for path in _files(pictures / name)] for name in ("reference", "engine", "target")}
    sets = {name: files for name, files in sets.items() if files}
    if min(map(len, sets.values())) < 2:
        raise NotMeasurableError("a set of pictures needs two or more")
    torch = importlib.import_module("torch")
    fid = importlib.import_module("cleanfid.fid")
    network = importlib.import_module("cleanfid.inception_torchscript").InceptionV3W(str(weights), download=False)
    features = {}
    for done, (name, files) in enumerate(sets.items(), 1):
        features[name] = fid.get_files_features(
            files, model=network, num_workers=0, batch_size=8, device=torch.device("cpu"), mode="clean", verbose=False
        )
        say("progress", measure="clean_fid", done=done, of=len(sets))
    pairs = (("reference", "engine"), ("target", "engine"), ("target", "reference"))
    return {
        f"{one}-{other}": [float(fid.fid_from_feats(features[one], features[other]))]
        for one, other in pairs
        if one in features and other in features
    }


def dino_struct(weights: Path, pictures: Path, say: Say) -> Series:
    """100 times the structure distance of DINO ViT-B/8 keys, layer 11 of 0 to 11; per frame.

    ``input-engine`` is the paper's measure: how far the structure moved from the frame. The smaller side is resized to
    224 pixels. DINO's weights run in timm's network of the same shape, which interpolates the positions of pictures
    that are not square in its own way: there, figures may differ a little from the paper's code.

    Source: N. Tumanyan et al., "Splicing ViT features for semantic appearance transfer", CVPR 2022, equations 2 and 5.
    """
    torch, timm = importlib.import_module("torch"), importlib.import_module("timm")
    transforms = importlib.import_module("torchvision.transforms")
    # ImageNet's mean and deviation, with which DINO was trained.
    prepare = transforms.Compose(
        [
            transforms.Resize(224),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    network = timm.create_model("vit_base_patch8_224", pretrained=False, num_classes=0, dynamic_img_size=True).eval()
    path = weights / "dino_vitbase8_pretrain.pth"
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    caught: list[Any] = []
    network.blocks[11].attn.qkv.register_forward_hook(lambda _module, _inputs, output: caught.append(output))

    def keys(picture: Path) -> Any:
        caught.clear()
        network(prepare(_picture(picture))[None])
        return keys_of(caught[0][0].numpy())

    series: Series = {}
    pairs = _pairs(pictures, "reference-engine", "input-engine", "input-reference")
    with torch.inference_mode():
        for done, (name, one, other) in enumerate(pairs, 1):
            series.setdefault(name, []).append(100.0 * structure_distance(keys(one), keys(other)))
            say("progress", measure="dino_struct", done=done, of=len(pairs))
    return series


def keys_of(qkv: Any) -> Any:
    """The keys ``[tokens, width]`` of all heads side by side, from queries, keys and values ``[tokens, 3 * width]``."""
    width = qkv.shape[1] // 3
    return qkv[:, width : 2 * width]


def structure_distance(keys: Any, others: Any) -> float:
    """The mean squared difference of the cosine self-similarities of two pictures' keys, ``[tokens, width]`` each.

    Source: as ``dino_struct``; the norms' product is at least 1e-8, as in the CycleGAN-Turbo authors' dino_struct.py.
    """
    one, other = _self_similarity(keys), _self_similarity(others)
    return float(((one - other) ** 2).mean())


def _self_similarity(keys: Any) -> Any:
    numpy = importlib.import_module("numpy")
    norms = numpy.linalg.norm(keys, axis=1, keepdims=True)
    return (keys @ keys.T) / numpy.maximum(norms @ norms.T, 1e-8)


def _picture(path: Path) -> Any:
    return importlib.import_module("PIL.Image").open(path).convert("RGB")


def _tensor(path: Path) -> Any:
    """``[1, 3, H, W]`` float32, 0 to 1."""
    numpy, torch = importlib.import_module("numpy"), importlib.import_module("torch")
    return torch.from_numpy(numpy.array(_picture(path))).permute(2, 0, 1)[None].float() / 255.0


_MEASURES: dict[str, Callable[[Path, Path, Say], Series]] = {
    "lpips": lpips,
    "clean_fid": clean_fid,
    "dino_struct": dino_struct,
}
_PACKAGES = {
    "lpips": ("lpips", "torch", "torchvision"),
    "clean_fid": ("clean-fid", "torch"),
    "dino_struct": ("timm", "torch", "torchvision"),
}

if __name__ == "__main__":
    main()
