"""Writes names.json: which public names each version of TensorRT's Python bindings knows. Run by hand::

    pip download --no-deps --only-binary :all: --python-version 3.10 --dest wheels tensorrt-bindings==8.6.1
    (the same for tensorrt-cu12-bindings==10.3.0, tensorrt-cu12-bindings==10.13.3.9,
     tensorrt-cu12-bindings==10.16.1.11 and tensorrt-cu13-bindings==11.4.0.106; 1 MB each)
    python tests/tensorrt_api/collect.py wheels/*.whl

8.6.1 stands for JetPack 6.0's 8.6.2, of which there is no wheel. The extension module in a wheel cannot be imported
without NVIDIA's libraries, which no wheel on the index holds, so its names are read from the file: the texts that its
code points to (pybind11 hands every name of a class, method, property, enumerator and keyword to the interpreter as
such a text) and that are identifiers. This tells that a name exists, not in which class.
"""

from __future__ import annotations

import ast
import json
import re
import struct
import sys
import zipfile
from pathlib import Path

TARGET = Path(__file__).with_name("names.json")

# ELF-64 (https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html), little endian, x86-64.
_SECTION_TABLE = struct.Struct("<40xQ10xHHH")  # e_shoff, then e_shentsize, e_shnum, e_shstrndx
_SECTION = struct.Struct("<IIQQQQIIQQ")
_RELOCATION = struct.Struct("<QQq")
_RELATIVE = 8  # R_X86_64_RELATIVE
_CODE, _RELOCATIONS = 1, 4  # SHT_PROGBITS, SHT_RELA
_EXECUTABLE = 4  # SHF_EXECINSTR
# lea REGISTER, [rip + offset]: how position-independent code makes the address of a text.
_LEA = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](?=(....))", re.DOTALL)
_LEA_BYTES = 7
# Public names: what begins with an underscore is pybind11's, and two letters are more often chance than a name.
_NAME = re.compile(rb"([A-Za-z][A-Za-z0-9_]{2,63})\0")
# Texts of this form are pieces of C++ type names.
_MANGLED = re.compile(r"N?S?[A-Z]?[A-Za-z]{0,3}\d+\w*E[A-Za-z]*\Z|.*(?:nvinfer1|pybind11|parser)\d")


def names_in_extension(elf: bytes) -> set[str]:
    """The identifiers that the code or the data of an x86-64 shared library points to."""
    table, entry, count, _ = _SECTION_TABLE.unpack_from(elf)
    sections = [_SECTION.unpack_from(elf, table + index * entry) for index in range(count)]
    targets: set[int] = set()
    for _, kind, flags, address, offset, size, *_ in sections:
        content = elf[offset : offset + size]
        if kind == _CODE and flags & _EXECUTABLE:
            for match in _LEA.finditer(content):
                targets.add(address + match.start() + _LEA_BYTES + int.from_bytes(match[1], "little", signed=True))
        elif kind == _RELOCATIONS:
            targets.update(addend for _, info, addend in _RELOCATION.iter_unpack(content) if info == _RELATIVE)
    names = set()
    for _, kind, flags, address, offset, size, *_ in sections:
        if kind == _CODE and not flags & _EXECUTABLE and address:
            for target in targets:
                match = _NAME.match(elf, offset + target - address) if address <= target < address + size else None
                if match:
                    names.add(match[1].decode())
    return {name for name in names if not _MANGLED.match(name)}


def names_in_python(source: str) -> set[str]:
    """What a module's top level defines, imports or assigns."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def collect(wheel: Path) -> tuple[str, set[str]]:
    """The wheel's version and its names."""
    with zipfile.ZipFile(wheel) as archive:
        (extension,) = [name for name in archive.namelist() if name.endswith("/tensorrt.so")]
        names = names_in_extension(archive.read(extension))
        names |= names_in_python(archive.read("tensorrt_bindings/__init__.py").decode())
    return wheel.name.split("-")[1], names


def main(wheels: list[str]) -> None:
    found = dict(collect(Path(wheel)) for wheel in wheels)
    versions = sorted(found, key=lambda version: [int(part) for part in version.split(".")])
    lines = [
        f"{json.dumps(name)}: {json.dumps(''.join('+' if name in found[version] else '-' for version in versions))}"
        for name in sorted(set().union(*found.values()))
    ]
    text = f'{{"versions": {json.dumps(versions)},\n"names": {{\n' + ",\n".join(lines) + "\n}}\n"
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
