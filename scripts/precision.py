#!/usr/bin/env python3
"""How often do bf16 and f32 give the same answer, and what does accuracy lose?

    scripts/precision.py DATA MODEL.margay [MODEL.margay ...]

DATA has one folder per class under `val/`, or `{task}` where the name of a model's folder begins with the task and a hyphen:
`scripts/precision.py tasks/{task} out/wildlife-*/specialist.margay out/vehicles-*/specialist.margay`.
"""

import collections
import csv
import pathlib
import subprocess
import sys
import tempfile

MARGAY = pathlib.Path(__file__).resolve().parent.parent / "target/release/margay"


def answers(model, photos, precision):
    """Label by photo."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "labels.csv"
        command = [MARGAY, "--quiet", "predict", model, photos, "--precision", precision, "-o", path]
        subprocess.run(command, check=True)
        with path.open() as file:
            return {row["path"]: row["label"] for row in csv.DictReader(file) if row["label"]}


def main():
    data, models = sys.argv[1], sys.argv[2:]
    sums = collections.Counter()
    print(f"{'photos':>6} {'same':>8} {'f32 top-1':>9} {'bf16 top-1':>10}  model")
    for model in models:
        task = pathlib.Path(model).parent.name.split("-")[0]
        photos = pathlib.Path(data.replace("{task}", task)) / "val"
        exact, rounded = answers(model, photos, "f32"), answers(model, photos, "bf16")
        right = lambda told: sum(pathlib.Path(path).parent.name == label for path, label in told.items())
        same = sum(rounded[path] == label for path, label in exact.items())
        count = len(exact)
        sums.update(photos=count, same=same, f32=right(exact), bf16=right(rounded), models=1)
        print(f"{count:6} {same / count:8.2%} {right(exact) / count:9.2%} {right(rounded) / count:10.2%}  {model}")
    count = sums["photos"]
    print(f"{count:6} {sums['same'] / count:8.2%} {sums['f32'] / count:9.2%} {sums['bf16'] / count:10.2%}  all {sums['models']}")


if __name__ == "__main__":
    main()
