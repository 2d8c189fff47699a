"""A CUDA driver library that knows one GPU and nothing else, compiled here: the real one needs a GPU.

It shows that the library is asked as its documentation says; only a GPU shows that NVIDIA's answers so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = """
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return flags == 0 ? INIT : 1; }
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_NO_DEVICE"; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40; return ordinal; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, NAME, length); return device != 40; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? MAJOR : attribute == 76 ? MINOR : -1;
  return device != 40;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)MEMORY; return device != 40; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
"""


def compile_driver(
    folder: Path, name: str = "Orin", sm: str = "87", memory: int = 7_990_000_000, init: int = 0
) -> Path:
    """Put ``libcuda.so.1`` into ``folder``, for ``LD_LIBRARY_PATH``. Skips without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or os.name == "nt":
        pytest.skip("no C compiler for the stand-in of the CUDA driver")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "driver.c"
    source.write_text(_SOURCE)
    values = {"NAME": f'"{name}"', "MAJOR": sm[:-1], "MINOR": sm[-1], "MEMORY": f"{memory}L", "INIT": init}
    defines = [f"-D{key}={value}" for key, value in values.items()]
    subprocess.run([compiler, "-shared", "-fPIC", *defines, "-o", folder / "libcuda.so.1", source], check=True)
    return folder
