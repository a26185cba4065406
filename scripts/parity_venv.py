#!/usr/bin/env python3
"""Prints the path of a Python that has the libraries of scripts/parity-requirements.txt.

That is the one this runs on, if it has them; otherwise one in .parity/venv (1.7 GB), which is made on first use.
Needs Linux on x86-64, venv, gcc and binutils; no GPU: empty shells replace what torch loads of CUDA.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "scripts" / "parity-requirements.txt"
VENV = ROOT / ".parity" / "venv"
# What torch is linked with, and what the unversioned names of each begin with.
CUDA = {
    "libcublas.so.13": "cublas",
    "libcublasLt.so.13": "cublasLt",
    "libcudnn.so.9": "cudnn",
    "libcufft.so.12": "cufft",
    "libcufile.so.0": "cuFile",
    "libcurand.so.10": "curand",
    "libcusolver.so.12": "cusolver",
    "libcusparse.so.12": "cusparse",
    "libcusparseLt.so.0": "cusparseLt",
    "libnccl.so.2": "nccl",
    "libnvshmem_host.so.3": "nvshmem",
}


def say(text):
    print(f"parity: {text}", file=sys.stderr, flush=True)


def call(*command):
    # pip's talk goes to stderr: stdout is the answer.
    if subprocess.call([str(part) for part in command], stdout=sys.stderr) != 0:
        say(f"error: {' '.join(map(str, command))} failed")
        sys.exit(5)


def wanted():
    lines = REQUIREMENTS.read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def suits_itself():
    """Whether this interpreter has the four libraries in the versions asked for."""
    try:
        four = ("torch", "torchvision", "timm", "transformers")
        return all(importlib.metadata.version(name).split("+")[0] == wanted()[name] for name in four)
    except importlib.metadata.PackageNotFoundError:
        return False


def undefined(library):
    """`(name, version)` of all that a library takes from others."""
    listing = subprocess.run(["readelf", "--dyn-syms", "--wide", library], capture_output=True, text=True, check=True)
    for match in re.finditer(r" UND (\w+)(?:@(\S+))?", listing.stdout):
        yield match[1], match[2]


def owner(name, version):
    """The library of CUDA that has a name; most have their file name for a version."""
    if version in CUDA:
        return version
    if version in (None, "NVSHMEM"):
        fitting = [file for file, prefix in CUDA.items() if name.startswith(prefix)]
        return max(fitting, key=lambda file: len(CUDA[file]), default=None)
    return None


def make_shells(libraries):
    """Writes libraries beside torch's own that define all that it asks of CUDA, and do nothing."""
    needed = {file: {} for file in CUDA}
    for library in libraries.glob("*.so"):
        for name, version in undefined(library):
            file = owner(name, version)
            if file:
                needed[file].setdefault(version, set()).add(name)
    for file, versions in needed.items():
        names = sorted(set().union(*versions.values())) if versions else []
        source = "".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in names)
        script = "".join(
            f"{version} {{ global: {' '.join(f'{name};' for name in sorted(members))} }};\n"
            for version, members in versions.items()
            if version
        )
        (libraries / "shell.map").write_text(script)
        command = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", "-x", "c", "-", f"-Wl,-soname,{file}"]
        command += [f"-Wl,--version-script={libraries / 'shell.map'}"] if script else []
        subprocess.run([*command, "-o", str(libraries / file)], input=source, text=True, check=True)
    (libraries / "shell.map").unlink()


def make_venv():
    stamp = VENV / "ready"
    if stamp.exists() and stamp.read_text() == REQUIREMENTS.read_text():
        return
    say(f"making {VENV} (a download of 0.6 GB)")
    shutil.rmtree(VENV, ignore_errors=True)
    call(sys.executable, "-m", "venv", VENV)
    pip = [VENV / "bin" / "python", "-m", "pip", "--disable-pip-version-check"]
    options = ["--quiet", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--retries", "20"]
    call(*pip, "install", *options, "--requirement", REQUIREMENTS)
    make_shells(next(VENV.glob("lib/python*/site-packages/torch/lib")))
    call(VENV / "bin" / "python", "-c", "import timm, torch, torchvision, transformers")
    stamp.write_text(REQUIREMENTS.read_text())


if __name__ == "__main__":
    if suits_itself():
        print(sys.executable)
    else:
        make_venv()
        print(VENV / "bin" / "python")
