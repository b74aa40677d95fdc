"""Generate ``*_pb2.py`` and ``*_pb2.pyi`` beside every .proto of the project: ``make proto``.

The output is a function of the .proto files and of the generator's version (pinned in the dev extra), so it is
committed, and ``--check`` can tell whether it is what the sources say.

    python scripts/generate_proto.py            write
    python scripts/generate_proto.py --check    write nothing; exit 1 and name what is stale
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("protocols", "atmosphere")


def generate(target: Path) -> list[Path]:
    """Run the compiler over every .proto, output below *target*; returns the relative paths that were written."""
    sources = sorted(path.relative_to(ROOT).as_posix() for room in SOURCES for path in (ROOT / room).rglob("*.proto"))
    # The stub generator (mypy-protobuf) is installed beside this interpreter, which need not be on PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    wellknown = files("grpc_tools") / "_proto"
    status = protoc.main(
        ["protoc", f"-I{ROOT}", f"-I{wellknown}", f"--python_out={target}", f"--mypy_out=quiet:{target}", *sources]
    )
    if status != 0:
        raise SystemExit(f"protoc failed ({status}); its messages are above")
    return sorted(path.relative_to(target) for path in target.rglob("*_pb2.py*"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare with what is there")
    check = parser.parse_args().check
    stale = []
    with tempfile.TemporaryDirectory() as folder:
        for relative in generate(Path(folder)):
            new, present = (Path(folder) / relative).read_bytes(), ROOT / relative
            if present.exists() and present.read_bytes() == new:
                continue
            stale.append(relative)
            if not check:
                present.write_bytes(new)
    for relative in stale:
        print(f"{'stale' if check else 'wrote'} {relative}")
    if check and stale:
        print("run `make proto` and commit the result")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
