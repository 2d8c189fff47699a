"""Import the runtime under Python 3.10, JetPack 6's, where such an interpreter is found; say so where none is.

Run as a script by ``make test``: it makes a virtual environment with the base dependencies alone, installs the package
there as a user would, checks that no training framework came along, and imports every module of cli,
engines and runtime.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CHECK = """
import importlib, pathlib, sys
from importlib import metadata
import edgeturbo
root = pathlib.Path(edgeturbo.__file__).parent
names = []
for floor in ("cli", "engines", "runtime"):
    modules = [path.relative_to(root).with_suffix("").parts for path in (root / floor).rglob("*.py")]
    names += [".".join(("edgeturbo", *parts)) for parts in modules if parts[-1] != "__init__"]
for name in names:
    importlib.import_module(name)
installed = {found.metadata["Name"].lower() for found in metadata.distributions()}
foreign = installed & {"torch", "diffusers", "transformers", "onnx"}
assert not foreign, foreign
print(f"Python {sys.version.split()[0]}: {len(names)} modules of the runtime imported, no training framework installed")
"""


def find_python() -> str | None:
    """An interpreter of Python 3.10 that runs: on the path, or one of pyenv's."""
    candidates = [shutil.which("python3.10"), *map(str, Path.home().glob(".pyenv/versions/3.10*/bin/python3.10"))]
    for candidate in filter(None, candidates):
        if subprocess.run([candidate, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def main() -> None:
    python = find_python()
    if python is None:
        sys.stdout.write("Python 3.10: not found here; the runtime was not imported under it\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, str(ROOT)], check=True)
        subprocess.run([f"{folder}/bin/python", "-c", CHECK], check=True, cwd=folder)


if __name__ == "__main__":
    main()
