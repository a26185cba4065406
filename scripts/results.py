#!/usr/bin/env python3
"""Runs the grid of docs/results.md and prints its tables. Needs a built margay and a folder of tasks.

    scripts/results.py DATA OUT [--model FILE] [--solvers alps,sparsegpt] [--allocations erk] [--tables]

DATA holds `labels.json` with the class names of the checkpoint, `tasks/{wildlife,vehicles}`, and
`resnet18.pth`, which is the checkpoint unless --model names another. Each cell is one `margay compress` into
OUT; cells that are there already are not run again, so a killed sweep goes on.
"""

import argparse
import json
import math
import statistics
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TASKS = ["wildlife", "vehicles"]
FOLDS = [20, 10]
# Cells of which three seeds are run, on the first task.
HEADLINE = [("alps", "erk", 20), ("alps", "uniform", 10)]
# What was compared then: neither correction nor Fisher weights, a shorter finetune of whole photos.
SETTINGS = ["--correction", 0, "--fisher", 0, "--epochs", 20, "--crop", 1]
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, two-sided, by number of seeds


def cells(args):
    """(task, solver, allocation, fold, seed), each once: the cells with three seeds first."""
    wanted = [(s, a, f) for s in args.solvers for a in args.allocations for f in FOLDS]
    headline = [(TASKS[0], *cell, seed) for seed in range(args.seeds) for cell in HEADLINE if cell in wanted]
    return list(dict.fromkeys(headline + [(task, *cell, 0) for task in TASKS for cell in wanted]))


def folder(out, cell):
    return out / "-".join(map(str, cell))


def run(args, cell):
    task, solver, allocation, fold, seed = cell
    target = folder(args.out, cell)
    if (target / "run.json").exists():
        return
    command = [args.margay, "compress", "--quiet", "--no-progress", "--model", args.model]
    # Checkpoints of `margay train` store their own class names, in an order of their own.
    command += [] if args.own_labels else ["--labels", args.data / "labels.json"]
    command += ["--data", args.data / "tasks" / task, "--shots", 16]
    command += ["--solver", solver, "--allocation", allocation, "--compression", f"{fold}x", "--seed", seed]
    command += SETTINGS
    command += ["--recovery", "none"] if args.one_shot else []
    command += ["--threads", args.threads, "--out", target]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    print("-".join(map(str, cell)), "ok" if done.returncode == 0 else done.stderr, flush=True)


def figure(records, key):
    """Mean in per cent; with several seeds ± the half width of the 95 % interval of the mean."""
    values = [100 * r[key]["top1"] for r in records]
    if len(values) < 2:
        return f"{values[0]:.1f}"
    half = T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    return f"{statistics.mean(values):.1f} ± {half:.1f}"


def tables(args):
    by_cell = {}
    for cell in cells(args):
        path = folder(args.out, cell) / "run.json"
        if path.exists():
            by_cell.setdefault(cell[:4], []).append(json.loads(path.read_text()))
    for task in TASKS:
        print(f"\n### {task}\n")
        print("| solver | allocation | fold | seeds | dense | one-shot | finetuned | multiply-adds |")
        print("|---|---|---|---|---|---|---|---|")
        for (where, solver, allocation, fold), records in sorted(by_cell.items()):
            if where == task:
                macs = records[0]["macs"]
                share = f"{100 * macs['sparse'] / macs['dense']:.0f} %"
                top1 = " | ".join(figure(records, k) for k in ["dense", "oneshot"])
                finetuned = 'schedule = "none"' not in records[0]["recipe"]
                top1 += f" | {figure(records, 'specialist') if finetuned else '–'}"
                print(f"| {solver} | {allocation} | {fold}× | {len(records)} | {top1} | {share} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    names = lambda text: text.split(",")
    parser.add_argument("--model", type=Path, help="checkpoint; default: DATA/resnet18.pth")
    parser.add_argument("--own-labels", action="store_true", help="the checkpoint stores its class names")
    parser.add_argument("--solvers", type=names, default=["alps", "sparsegpt", "wanda", "magnitude"])
    parser.add_argument("--allocations", type=names, default=["erk", "uniform"])
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the headline cells")
    parser.add_argument("--margay", default="target/release/margay")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one-shot", action="store_true", help="do not finetune the cells that are not there yet")
    parser.add_argument("--tables", action="store_true", help="run nothing, print the tables of what is there")
    args = parser.parse_args()
    args.model = args.model or args.data / "resnet18.pth"
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.tables:
        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(lambda cell: run(args, cell), cells(args)))
    tables(args)


if __name__ == "__main__":
    main()
