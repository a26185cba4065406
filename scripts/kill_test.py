#!/usr/bin/env python3
"""Kills margay at random moments and looks at what is left.

    scripts/kill_test.py [--margay PROGRAM] [--kills 32] [--seed 0] [--only NAME,...] [--parts kill,disk,...] [--keep FOLDER]

Each of compress, predict, adapt, train and experiment is run on a task of seconds that is drawn here, and then:

    kill       SIGKILL at a random moment; every other time in the last fifth, where results take their place, every
               eighth time as soon as something changes at the goal. Every other run replaces an earlier result (--force).
    signal     SIGINT, SIGTERM and SIGHUP at random moments
    disk       a disk that is full after 0, 1, ... 9 tenths of what the command needs
    meanwhile  a folder, a file or a link appears at the goal while the command runs
    twice      the same command is started while it runs

After each, files of others beside the goal must be what they were, the goal must be absent, the earlier result or the
whole new one, and the same command must give the same bytes and leave nothing else behind. Needs Python only. A disk of
limited size is a tmpfs where one can be mounted (root), else a limit on the size of files (RLIMIT_FSIZE).
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What the clock or the machine says differs from run to run.
VARYING = {"run.json", "report.html"}
TIMES = ("seconds", "shared_seconds", "peak_rss_bytes", "latency_ms")
PARTIAL = ".margay-partial"
SIDE = 32
PARTS = ("kill", "signal", "disk", "meanwhile", "twice")
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def photo(path, draw, hue):
    """A noisy photo of one hue, as BMP."""
    pixels = bytes(max(0, min(255, hue[channel] + draw.randrange(-60, 60))) for _ in range(SIDE * SIDE) for channel in range(3))
    header = struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, 54)
    path.write_bytes(header + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 0, 0, 0, 0) + pixels)


def draw_photos(root, per_class):
    draw = random.Random(1)
    for split, count in (("train", per_class), ("val", per_class)):
        for name, hue in (("fox", (40, 90, 200)), ("hare", (150, 150, 110)), ("lynx", (90, 140, 160))):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                photo(folder / f"{number:03}.bmp", draw, hue)


class Task:
    """A command, the goal of its output and how its bytes are read."""

    def __init__(self, name, goal, arguments, force=True, old=()):
        self.name, self.goal, self.arguments, self.force, self.old = name, goal, arguments, force, list(old)

    def command(self, bench, folder, force=False, old=False):
        more = (["--force"] if force else []) + (self.old if old else [])
        return [bench.margay, "--threads", "1", *[a.replace("@", str(bench.base)) for a in self.arguments], *more,
                "--out", str(folder / self.goal)]


def tasks():
    photos = ["--data", "@/photos", "--device", "cpu"]
    start = ["--model", "@/dense.safetensors"]
    return [
        Task("compress", "out",
             ["compress", *start, *photos, "--solver", "magnitude", "--allocation", "uniform", "--sparsity", "0.8",
              "--epochs", "1", "--recalibrate", "off", "--shots", "8"], old=["--seed", "7"]),
        Task("predict", "labels.csv",
             ["predict", "@/base/specialist.margay", "@/many"], old=["--top", "2"]),
        Task("adapt", "out",
             ["adapt", "@/base/specialist.margay", *photos, "--epochs", "1", "--shots", "8"], old=["--seed", "7"]),
        Task("train", "model.safetensors",
             ["train", "--arch", "resnet18", "--width", "8", "--image-size", str(SIDE), "--epochs", "1", *photos],
             old=["--seed", "7"]),
        Task("experiment", "out", ["experiment", "@/try.toml", "--data", "@", "--device", "cpu"], force=False),
    ]


EXPERIMENT = """
[experiment]
name = "try"
reference = "none"
[checkpoints.dense]
model = "dense.safetensors"
[tasks.photos]
data = "photos"
[recipe.shots]
per-class = 8
[recipe.prune]
solver = "magnitude"
[recipe.recovery]
epochs = 1
recalibrate = "off"
[[sweep]]
checkpoint = "dense"
task = "photos"
adapter = ["none", "full"]
seed = [0, 1]
"""


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [without_times(inner) for inner in value]
    return value


def content(path):
    """What is the same in every run."""
    if path.name.startswith("runs") and path.suffix == ".jsonl":
        # The last line may be torn.
        lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        return json.dumps([without_times(line) for line in lines], sort_keys=True).encode()
    return path.read_bytes()


def state(path):
    """Names and contents below a path; nothing where there is none."""
    if not os.path.lexists(path):
        return None
    if path.is_symlink():
        return {"": "link to " + os.readlink(path)}
    if path.is_file():
        return {"": hashlib.sha256(content(path)).hexdigest()}
    found = {}
    for file in sorted(path.rglob("*")):
        key = str(file.relative_to(path))
        if file.is_symlink():
            found[key] = "link to " + os.readlink(file)
        elif file.is_dir():
            found[key] = "folder"
        elif file.name in VARYING:
            found[key] = "there"
        else:
            found[key] = hashlib.sha256(content(file)).hexdigest()
    return found


class Wrong(Exception):
    pass


def must(condition, what):
    if not condition:
        raise Wrong(what)


class Bench:
    """A folder with what the tasks start from, and how they run."""

    def __init__(self, margay, root, seed):
        self.margay, self.root, self.seed = str(Path(margay).resolve()), root, seed
        self.base = root / "base"
        self.base.mkdir()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("MARGAY_")}
        self.environment["MARGAY_CACHE_DIR"] = str(root / "cache")
        draw_photos(self.base / "photos", 12)
        # A command without training needs many to be met at work.
        for number in range(16):
            shutil.copytree(self.base / "photos", self.base / "many" / str(number))
        (self.base / "try.toml").write_text(EXPERIMENT)
        train, compress = tasks()[3], tasks()[0]
        self.well(train.command(self, self.base)[:-1] + [str(self.base / "dense.safetensors")])
        self.well(compress.command(self, self.base)[:-1] + [str(self.base / "base")])

    def start(self, command, **more):
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                text=True, errors="replace", cwd=self.root, **more)

    def run(self, command, **more):
        process = self.start(command, **more)
        said = process.communicate()[1]
        return process.returncode, said

    def well(self, command):
        code, said = self.run(command)
        must(code == 0, f"exit {code}: {' '.join(command)}\n{said}")
        return said


class Scene:
    """A folder with files of others beside the goal of a task."""

    def __init__(self, bench, task, folder):
        self.bench, self.task, self.folder = bench, task, folder
        self.goal = folder / task.goal
        (folder / "notes").mkdir()
        (folder / "notes" / "field.txt").write_text("theirs")
        (folder / "notes.txt").write_text("theirs")
        # Names of older versions and of other goals: no concern of this one.
        for name in (f".{task.goal}.1.tmp", f".{task.goal}.7.tmp", f".other.aaaaaaaa{PARTIAL}"):
            (folder / name).mkdir()
            (folder / name / "stale").write_text("stale")
        self.others = {path.name for path in folder.iterdir()}
        self.before = self.of_others()

    def of_others(self):
        return {name: state(self.folder / name) for name in sorted(self.others)}

    def check_others(self):
        must(self.of_others() == self.before, "files of others have changed")

    def command(self, force=False, old=False):
        return self.task.command(self.bench, self.folder, force and self.task.force, old)

    def beside(self):
        """Names that are neither the goal nor of others."""
        return sorted({path.name for path in self.folder.iterdir()} - self.others - {self.task.goal})

    def check_end(self, expected):
        self.check_others()
        must(state(self.goal) == expected, f"other bytes: {difference(state(self.goal), expected)}")
        must(self.beside() == [], f"left behind: {self.beside()}")


def difference(got, expected):
    if got is None or expected is None:
        return f"{got and sorted(got)} for {expected and sorted(expected)}"
    return sorted(key for key in got.keys() | expected.keys() if got.get(key) != expected.get(key))


class Reference:
    """What a task gives, an earlier result of it, and how long it takes."""

    def __init__(self, bench, task):
        self.folder = bench.root / f"reference-{task.name}"
        self.folder.mkdir()
        command = task.command(bench, self.folder)
        started = time.monotonic()
        bench.well(command)
        self.first = time.monotonic() - started
        self.new = state(self.folder / task.goal)
        self.size = disk_use(self.folder / task.goal)
        times = []
        for _ in range(2):
            remove(self.folder / task.goal)
            started = time.monotonic()
            bench.well(command)
            times.append(time.monotonic() - started)
            must(state(self.folder / task.goal) == self.new, f"{task.name} gives other bytes each time")
        self.seconds = min(times)
        self.old_at = None
        if task.force:
            self.old_at = self.folder / "old"
            self.old_at.mkdir()
            bench.well(task.command(bench, self.old_at, old=True))
            self.old = state(self.old_at / task.goal)
            must(self.old != self.new, f"the earlier result of {task.name} is no other one")

    def put_old(self, scene):
        source = self.old_at / scene.task.goal
        shutil.copytree(source, scene.goal) if source.is_dir() else shutil.copy(source, scene.goal)


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def disk_use(path):
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in files)


def identity(path):
    try:
        status = os.lstat(path)
        return status.st_ino, status.st_size
    except FileNotFoundError:
        return None


def kill_at_change(process, goal):
    """Kills as soon as something else stands at the goal, or in the journal."""
    before = identity(goal)
    while process.poll() is None and identity(goal) == before:
        time.sleep(0.0002)


def kills(bench, task, reference, draw, count, tally):
    for number in range(count):
        with place(bench, f"kill-{task.name}-{number}") as folder:
            scene = Scene(bench, task, folder)
            force = task.force and number % 2 == 1
            if force:
                reference.put_old(scene)
            process = bench.start(scene.command(force))
            if number % 8 == 6 + (number // 8) % 2:
                kill_at_change(process, scene.goal / "runs.jsonl" if task.name == "experiment" else scene.goal)
            else:
                late = number % 4 in (1, 2)
                time.sleep(reference.seconds * (draw.uniform(0.8, 1.05) if late else draw.uniform(0.0, 1.0)))
            process.kill()
            process.communicate()
            left = state(scene.goal)
            dead = process.returncode == -signal.SIGKILL
            tally["killed" if dead else "finished first"] += 1
            scene.check_others()
            check_left(task, reference, left, force)
            partial = [name for name in scene.beside() if name.endswith(PARTIAL)]
            must(scene.beside() == partial, f"left behind: {scene.beside()}")
            tally["leftovers"] += len(partial)
            tally["result in place"] += left == reference.new
            if task.name == "experiment" or left != reference.new:
                said = bench.well(scene.command(force))
                must(all(name in said for name in partial), f"leftovers {partial} are not named:\n{said}")
            elif partial:
                # The result is complete; the next run of the same goal clears the rest.
                bench.well(scene.command(task.force))
            scene.check_end(reference.new)


def check_left(task, reference, left, force):
    if task.name == "experiment":
        return
    allowed = [reference.new, reference.old if force else None]
    must(left in allowed, f"neither absent, old nor new: {difference(left, reference.new)}")


def signals(bench, task, reference, draw, _count, tally):
    for number, which in enumerate(2 * list(CODES)):
        with place(bench, f"signal-{task.name}-{number}") as folder:
            scene = Scene(bench, task, folder)
            force = task.force and number % 2 == 1
            if force:
                reference.put_old(scene)
            process = bench.start(scene.command(force))
            time.sleep(reference.seconds * draw.uniform(0.1, 1.0))
            process.send_signal(which)
            process.communicate()
            # While libraries are loaded there is no handler yet, and no output either.
            codes = {0: "finished first", CODES[which]: "stopped", -which: "before the start"}
            must(process.returncode in codes, f"exit {process.returncode} after {which.name}")
            tally[codes[process.returncode]] += 1
            left = state(scene.goal)
            scene.check_others()
            check_left(task, reference, left, force)
            must(scene.beside() == [], f"left behind: {scene.beside()}")
            if task.name == "experiment" or left != reference.new:
                bench.well(scene.command(force))
            scene.check_end(reference.new)


def disks(bench, task, reference, _draw, _count, tally):
    for tenth in range(10):
        force = task.force and tenth % 2 == 1
        folder = bench.root / f"disk-{task.name}-{tenth}"
        folder.mkdir()
        mounted = bench.mounts and mount(folder)
        try:
            scene = Scene(bench, task, folder)
            if force:
                reference.put_old(scene)
            room = reference.size * tenth // 10
            if mounted:
                fill(folder / "ballast", room)
                code, said = bench.run(scene.command(force))
                (folder / "ballast").unlink()
            else:
                code, said = bench.run(scene.command(force), preexec_fn=lambda: limit(room))
            tally["full" if code else "fitted"] += 1
            left = state(scene.goal)
            scene.check_others()
            must(code in (0, 5), f"exit {code}:\n{said}")
            must(code == 0 or "error:" in said, said)
            must(scene.beside() == [], f"left behind: {scene.beside()}")
            if task.name != "experiment":
                must(left == (reference.new if code == 0 else reference.old if force else None),
                     f"exit {code}, but {difference(left, reference.new)}")
            if task.name == "experiment" or code:
                bench.well(scene.command(force))
            scene.check_end(reference.new)
        finally:
            if mounted:
                subprocess.run(["umount", folder], check=True)
            shutil.rmtree(folder)


def mount(folder):
    return subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "kill-test", folder],
                          stderr=subprocess.DEVNULL).returncode == 0


def fill(path, room):
    """Leaves so many bytes free."""
    free = os.statvfs(path.parent)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - room))


def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def meanwhile(bench, task, reference, _draw, _count, tally):
    if task.name == "experiment":
        return
    for kind in ("folder", "file", "link"):
        with place(bench, f"meanwhile-{task.name}-{kind}") as folder:
            scene = Scene(bench, task, folder)
            process = stopped_at_work(bench, scene)
            if kind == "folder":
                scene.goal.mkdir()
                (scene.goal / "notes.txt").write_text("x")
            elif kind == "file":
                scene.goal.write_text("x")
            else:
                scene.goal.symlink_to("notes")
            theirs = state(scene.goal)
            process.send_signal(signal.SIGCONT)
            said = process.communicate()[1]
            must(process.returncode == 5, f"exit {process.returncode}: {said}")
            must(state(scene.goal) == theirs, "what appeared is gone")
            scene.check_others()
            second = scene.goal.with_name(f"{scene.goal.stem}-2{scene.goal.suffix}")
            must(scene.beside() == [second.name], f"beside: {scene.beside()}")
            must(state(second) == reference.new, "the result that was kept is another one")
            must(str(second) in said and str(scene.goal) in said, f"not told: {said}")
            tally["kept"] += 1


def stopped_at_work(bench, scene):
    """A run that has begun its output and has not finished it, stopped."""
    journal = scene.goal / "runs.jsonl"
    for _ in range(20):
        process = bench.start(scene.command())
        while process.poll() is None and not scene.beside() and not journal.exists():
            time.sleep(0.0005)
        process.send_signal(signal.SIGSTOP)
        if process.poll() is None and (scene.beside() or journal.exists()):
            return process
        process.send_signal(signal.SIGCONT)
        process.communicate()
        remove(scene.goal)
    raise Wrong("it could not be met at work")


def twice(bench, task, reference, _draw, _count, tally):
    with place(bench, f"twice-{task.name}") as folder:
        scene = Scene(bench, task, folder)
        process = stopped_at_work(bench, scene)
        code, said = bench.run(scene.command())
        process.send_signal(signal.SIGCONT)
        must(process.wait() == 0, f"the first one failed: {process.stderr.read()}")
        must(code == 5 and "another" in said, f"exit {code}: {said}")
        scene.check_end(reference.new)
        tally["refused"] += 1


class place:
    """A folder for one try."""

    def __init__(self, bench, name):
        self.folder = bench.root / name

    def __enter__(self):
        self.folder.mkdir()
        return self.folder

    def __exit__(self, kind, _value, _trace):
        # What went wrong stays to be looked at.
        if kind is None:
            shutil.rmtree(self.folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--margay", default="target/release/margay")
    parser.add_argument("--kills", type=int, default=32, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(task.name for task in tasks()))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--keep", type=Path, help="do everything in this new folder and keep it")
    args = parser.parse_args()
    root = args.keep or Path(tempfile.mkdtemp(prefix="margay-kill-"))
    root = root.resolve()
    root.mkdir(exist_ok=True)
    bench = Bench(args.margay, root, args.seed)
    probe = root / "probe"
    probe.mkdir()
    bench.mounts = mount(probe)
    if bench.mounts:
        subprocess.run(["umount", probe], check=True)
    print("full disks:", "a tmpfs" if bench.mounts else "a limit on the size of files (RLIMIT_FSIZE)")
    print(f"{'command':<11} {'part':<10} {'seconds':>7}  outcome", flush=True)
    parts = dict(zip(PARTS, (kills, signals, disks, meanwhile, twice)))
    wrong = 0
    for task in (task for task in tasks() if task.name in args.only.split(",")):
        reference = Reference(bench, task)
        for part in args.parts.split(","):
            tally, started = Tally(), time.monotonic()
            try:
                draw = random.Random(f"{args.seed} {task.name} {part}")
                parts[part](bench, task, reference, draw, args.kills, tally)
                outcome = str(tally) or "does not apply"
            except Wrong as error:
                wrong += 1
                outcome = f"WRONG after {tally}: {error}"
            print(f"{task.name:<11} {part:<10} {time.monotonic() - started:>7.1f}  {outcome}", flush=True)
    if wrong:
        sys.exit(f"{wrong} went wrong; see {root}")
    if not args.keep:
        shutil.rmtree(root)


class Tally(dict):
    def __missing__(self, _key):
        return 0

    def __str__(self):
        return ", ".join(f"{count} {name}" for name, count in self.items() if count)


if __name__ == "__main__":
    main()
