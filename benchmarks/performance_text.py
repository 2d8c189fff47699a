"""Figures as the Markdown of the pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_NAMED = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "numpy", "pillow", "av")


@dataclass(frozen=True)
class Block:
    """``lines`` are paragraphs and tables in Markdown; ``charts``, SVG by file name, stand behind the first."""

    lines: tuple[str, ...]
    charts: dict[str, str] = field(default_factory=dict)


def missing(command: str) -> Block:
    return Block((f"Not measured yet: `{command}`.",))


def where(environment: Mapping[str, Any]) -> str:
    """The machine in a sentence, and in bold what its load does to the figures."""
    memory = environment.get("memory_bytes")
    parts = [f"{environment['cpu']}, {environment['cores']} cores"]
    parts += [f"{memory / 1e9:.0f} GB"] if memory else []
    parts += [f"{environment['system']}, Python {environment['python']}"]
    packages = environment.get("packages", {})
    parts += [f"{name} {packages[name]}" for name in _NAMED if name in packages]
    commit, before, after = (environment.get(key) for key in ("commit", "load_before", "load_after"))
    if commit:
        parts.append(f"commit {commit[:10]}{' with files changed' if environment.get('dirty') else ''}")
    if before is None:
        parts.append("load average not recorded")
    else:
        parts.append(f"load average {before:g} before" + (f", {after:g} after" if after is not None else ""))
    busy = environment.get("busy")
    warning = f" **Read with care: {busy}.**" if busy else ""
    return f"*Measured on: {'; '.join(parts)}.*{warning}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
