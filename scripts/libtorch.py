#!/usr/bin/env python3
"""Brings libtorch of PyTorch 2.11.0 into .libtorch/ of this clone.

Without an NVIDIA GPU only the CPU parts are unpacked (0.45 GB), with one everything (4.7 GB).
An existing LIBTORCH is left alone. Needs python3 with venv; pip is taken from a private venv.
MARGAY_LIBTORCH=cpu or =cuda overrides the detection.
"""

import fnmatch
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / ".libtorch"
STAGE = ROOT / ".libtorch.tmp"
STAMP = "margay-libtorch"
VERSION = "2.11.0"
ATTEMPTS = 5
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (28, 27, 25, 18, 17, 12, 5)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
CPU_LIBS = ["libtorch.so", "libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.*", "libcupti.so.*"]
# Python bindings and headers of other ecosystems, which tch never needs.
NEVER = ["libtorch_python.so", "libshm.so"]


def say(text):
    print(f"libtorch: {text}", file=sys.stderr, flush=True)


def fail(text):
    say(f"error: {text}")
    sys.exit(5)


def wanted_flavour():
    forced = os.environ.get("MARGAY_LIBTORCH")
    if forced in ("cpu", "cuda"):
        return forced
    if forced:
        fail(f"MARGAY_LIBTORCH is `{forced}`, but must be `cpu` or `cuda`")
    gpu = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi")
    return "cuda" if gpu else "cpu"


def have(flavour):
    stamp = TARGET / STAMP
    if not stamp.exists():
        return False
    version, found = stamp.read_text().split()[:2]
    return version == VERSION and found in (flavour, "cuda")


def requirements(flavour):
    common = ROOT / "scripts" / "libtorch-cpu.txt"
    return [common] if flavour == "cpu" else [common, ROOT / "scripts" / "libtorch-cuda.txt"]


def make_pip():
    """A venv of our own, because Debian's python has no usable pip."""
    python = STAGE / "venv" / "bin" / "python"
    if not (STAGE / "venv" / "ready").exists():
        shutil.rmtree(STAGE / "venv", ignore_errors=True)
        say("making a private venv for pip")
        if subprocess.call([sys.executable, "-m", "venv", str(STAGE / "venv")]) != 0:
            fail("python3 -m venv failed; on Debian: apt install python3-venv")
        # pip 25.1 is the first that resumes a broken download.
        subprocess.call([str(python), "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1"])
        (STAGE / "venv" / "ready").touch()
    help_text = subprocess.run([str(python), "-m", "pip", "download", "--help"], capture_output=True, text=True)
    resume = ["--resume-retries", "50"] if "--resume-retries" in help_text.stdout else []
    return [str(python), "-m", "pip", "--disable-pip-version-check"], resume


def download(flavour):
    """Fetches every pinned wheel; pip verifies the sha256 of each. Finished wheels survive a restart."""
    pip, resume = make_pip()
    wheels = STAGE / "wheels"
    wheels.mkdir(exist_ok=True)
    for file in requirements(flavour):
        command = pip + ["download", "--requirement", str(file), "--require-hashes", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version", "311", "--implementation", "cp"]
        for platform in PLATFORMS:
            command += ["--platform", platform]
        command += ["--dest", str(wheels), "--retries", "20", "--timeout", "60"] + resume
        for attempt in range(1, ATTEMPTS + 1):
            say(f"fetching the wheels of {file.name} (attempt {attempt} of {ATTEMPTS})")
            # pip's talk goes to stderr, so that stdout stays free.
            if subprocess.call(command, stdout=sys.stderr) == 0:
                break
            time.sleep(3 * attempt)
        else:
            fail(f"pip could not fetch {file.name}; run this again to go on, or set LIBTORCH to a libtorch {VERSION}")
    return sorted(wheels.glob("*.whl"))


def destination(name, flavour):
    """Where a file of a wheel goes below the tree, or None."""
    parts = name.split("/")
    if name.startswith("torch/include/") and not name.endswith("/"):
        return Path("include", *parts[2:])
    in_torch = name.startswith("torch/lib/") and len(parts) == 3
    in_nvidia = parts[0] == "nvidia" and len(parts) >= 4 and parts[-2] == "lib"
    if not (in_torch or in_nvidia) or ".so" not in parts[-1] or parts[-1] in NEVER:
        return None
    if flavour == "cpu" and not any(fnmatch.fnmatch(parts[-1], p) for p in CPU_LIBS):
        return None
    return Path("lib", parts[-1])


def unpack(wheels, tree, flavour):
    for wheel in wheels:
        say(f"unpacking {wheel.name}")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                goal = destination(member.filename, flavour)
                if goal is None or ".." in goal.parts:
                    continue
                path = tree / goal
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(path, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)


def main():
    given = os.environ.get("LIBTORCH")
    if given and Path(given).resolve() != TARGET:
        say(f"using LIBTORCH={given}")
        return
    flavour = wanted_flavour()
    if have(flavour):
        return
    say(f"PyTorch {VERSION}, {flavour} parts, into {TARGET}")
    try:
        STAGE.mkdir(exist_ok=True)
        wheels = download(flavour)
        tree = STAGE / "tree"
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        unpack(wheels, tree, flavour)
        missing = [n for n in CPU_LIBS if not any(tree.glob(f"lib/{n}"))]
        if missing:
            fail(f"the wheels lack {', '.join(missing)}")
        (tree / STAMP).write_text(f"{VERSION} {flavour}\n")
        shutil.rmtree(TARGET, ignore_errors=True)
        tree.rename(TARGET)
        # The unpacked tree is the cache: the wheels would only double the disk space.
        shutil.rmtree(STAGE, ignore_errors=True)
    except OSError as error:
        fail(str(error))
    say("ready")


if __name__ == "__main__":
    main()
