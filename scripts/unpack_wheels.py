"""Unpack the native part of Python wheels, checking every file against the wheel's own list.

    unpack_wheels.py requires WHEEL                 print the CUDA packages that torch's wheel asks for, one a line
    unpack_wheels.py unpack {cpu,cuda} INTO WHEEL…  unpack the libraries and headers that libtorch needs
    unpack_wheels.py verify DIR                     compare every unpacked file with the lists kept at unpacking

Wheels are zip files, and RECORD in each holds the sha256 of every member. We read them ourselves, rather than
through `pip install --target`, for three reasons: the user's pip settings (user, prefix, target) can't redirect it,
what libtorch doesn't need stays out (Python sources, and for CPU the 500 MB of CUDA kernels), and every byte is
checked on its way to the disk.
"""

import base64
import csv
import hashlib
import io
import re
import sys
import zipfile
import zlib
from pathlib import Path

CHUNK = 1 << 20
# libtorch_cpu.so and libc10.so need nothing of these; libtorch_python.so is of use to Python only.
CUDA_ONLY = re.compile(r"torch/lib/lib(torch_cuda.*|c10_cuda|caffe2_nvrtc|torch_nvshmem|torch)\.so$")
PYTHON_ONLY = re.compile(r"torch/lib/libtorch_python\.(so|dylib)$")


def wanted(name: str, profile: str) -> bool:
    """Whether a member of a wheel is part of libtorch for this profile."""
    if re.search(r"\.dist-info/(licenses/.*|LICENSE.*|METADATA)$", name):
        return True
    if name.startswith("torch/"):
        if PYTHON_ONLY.match(name) or (profile == "cpu" and CUDA_ONLY.match(name)):
            return False
        return name.startswith(("torch/lib/", "torch/include/"))
    # NVIDIA's wheels: shared libraries and headers. Their static libraries (.a) are large and never linked here.
    return "/lib/" in name and ".so" in name or "/include/" in name


def sha256(stream, sink=None) -> str:
    """The digest as RECORD writes it; what is read also goes to sink, if there is one."""
    digest = hashlib.sha256()
    while block := stream.read(CHUNK):
        digest.update(block)
        if sink is not None:
            sink.write(block)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def read_record(wheel: zipfile.ZipFile) -> dict[str, str]:
    """RECORD as {member: sha256}."""
    name = next(n for n in wheel.namelist() if n.endswith(".dist-info/RECORD"))
    rows = csv.reader(io.StringIO(wheel.read(name).decode()))
    return {row[0]: row[1].removeprefix("sha256=") for row in rows if row and row[1]}


def unpack(path: Path, into: Path, profile: str) -> None:
    with zipfile.ZipFile(path) as wheel:
        record = read_record(wheel)
        kept = []
        for member in wheel.infolist():
            name = member.filename
            if member.is_dir() or not wanted(name, profile):
                continue
            if name not in record:
                raise SystemExit(f"error: {path.name} does not list its own file {name}")
            target = into / name
            if not target.resolve().is_relative_to(into.resolve()):
                raise SystemExit(f"error: {path.name} holds a path that leads outside: {name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with wheel.open(member) as source, target.open("wb") as sink:
                found = sha256(source, sink)
            if found != record[name]:
                raise SystemExit(f"error: {path.name}: {name} does not match its sha256")
            kept.append((record[name], name))
    lists = into / "lists"
    lists.mkdir(exist_ok=True)
    (lists / f"{path.stem}.txt").write_text("".join(f"{digest} {name}\n" for digest, name in kept))


def verify(root: Path) -> None:
    lists = sorted((root / "lists").glob("*.txt"))
    if not lists:
        raise SystemExit(f"error: {root} has no lists to compare with")
    bad = []
    for file in lists:
        for line in file.read_text().splitlines():
            digest, name = line.split(" ", 1)
            try:
                with (root / name).open("rb") as stream:
                    if sha256(stream) != digest:
                        bad.append(name)
            except OSError:
                bad.append(name)
    if bad:
        raise SystemExit("error: damaged: " + ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if bad[5:] else ""))


def requires(path: Path) -> None:
    """The CUDA libraries among torch's requirements; triton, sympy and the like serve Python only."""
    with zipfile.ZipFile(path) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        for line in wheel.read(name).decode().splitlines():
            match = re.match(r"Requires-Dist: ((?:nvidia-|cuda-toolkit)[^;]*)", line)
            if match:
                print(match.group(1).strip())


def main(arguments: list[str]) -> None:
    # No match statement: Debian 11 has Python 3.9.
    command, *rest = arguments or [""]
    if command == "requires" and len(rest) == 1:
        requires(Path(rest[0]))
    elif command == "unpack" and len(rest) > 2 and rest[0] in ("cpu", "cuda"):
        profile, into, *wheels = rest
        for wheel in wheels:
            try:
                unpack(Path(wheel), Path(into), profile)
            except (zipfile.BadZipFile, zlib.error, EOFError) as problem:
                raise SystemExit(f"error: {wheel} is damaged: {problem}") from None
    elif command == "verify" and len(rest) == 1:
        verify(Path(rest[0]))
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
