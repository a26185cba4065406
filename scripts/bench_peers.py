#!/usr/bin/env python3
"""Times other inference engines beside margay and writes the tables of docs/performance.md.

    make bench-peers                                      every network, one core, batch 1
    make bench-peers PEERS_ARGS="--models resnet50 --batch 16 --core 0 --no-write"

Engines are installed into .peers (ONNX Runtime, OpenVINO) and .peers-deepsparse (DeepSparse 1.8.0, whose licence
allows evaluation) unless --python and --deepsparse name interpreters that have them. Each network is measured by one
`margay bench --against` with all engines in turns on the same core.
"""

import argparse
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARGAY = ROOT / "target/release/margay"
NETWORKS = ROOT / "target/release/examples/networks"
DOCUMENT = ROOT / "docs/performance.md"
WORK = ROOT / "target/bench-peers"

PACKAGES = ["onnxruntime==1.31.1", "openvino==2026.4.1", "onnx", "numpy"]
DEEPSPARSE = ["deepsparse==1.8.0", "numpy<2", "setuptools<81"]

GRID = [("resnet50", "0.95"), ("resnet50", "0.9"), ("deit_s", "0.9"), ("convnext_t", "0.9"), ("vit_b", "0.9")]
ENGINES = ["libtorch", "onnxruntime", "openvino", "openvino-bf16", "openvino-int8", "deepsparse"]
TITLES = {"resnet50": "ResNet-50", "deit_s": "DeiT-S", "convnext_t": "ConvNeXt-T", "vit_b": "ViT-B/16"}


def interpreter(folder, packages):
    """The Python of a virtual environment that has the packages."""
    python = ROOT / folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", ROOT / folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def measure(model, sparsity, precision, args):
    """One run of `margay bench` with every engine."""
    file = WORK / f"{model}-{sparsity}.margay"
    if not file.exists():
        command = [NETWORKS, "--model", model, "--sparsity", sparsity, "--write", file]
        subprocess.run(command, check=True)
    against = ",".join(
        engine if engine == "libtorch" else f"{engine}={args.deepsparse if engine == 'deepsparse' else args.python}"
        for engine in args.engines
    )
    command = [MARGAY, "--threads", str(args.threads), "bench", file, "--batch", str(args.batch)]
    command += ["--runs", str(args.runs), "--precision", precision, "--against", against, "--json"]
    command = ["taskset", "-c", args.core, *command]
    print(f"{model} at {sparsity}, {precision}", file=sys.stderr)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def table(rows, args):
    """Milliseconds, and ratios with intervals."""
    lines = [
        f"| network | stored in | margay ms | dense ms | {' | '.join(args.engines)} |",
        "| --- | --- | --- | --- |" + " --- |" * len(args.engines),
    ]
    for model, sparsity, precision, told in rows:
        ours, dense = told["latency_ms"]["sparse"]["median"], told["latency_ms"]["dense"]["median"]
        cells = [cell(standing) for standing in told["against"]]
        name = f"{TITLES[model]} {float(sparsity):.0%}".replace("%", " %")
        lines.append(f"| {name} | {precision} | {ours:.1f} | {dense:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(standing):
    """`ms: ratio (interval)`, or why there is none."""
    if standing["error"]:
        return "–"
    low, high = standing["ratio"]["interval"]
    mark = " ≠" if standing["agrees"] is False else ""
    return f"{standing['latency_ms']['median']:.1f}: **{standing['ratio']['median']:.2f}** ({low:.2f}–{high:.2f}){mark}"


def splice(name, text):
    """Puts a table between its marks in the document."""
    start, end = f"<!-- peers: {name} -->", f"<!-- end peers: {name} -->"
    document = DOCUMENT.read_text()
    if start not in document or end not in document:
        sys.exit(f"{DOCUMENT} has no marks {start} and {end}")
    before, rest = document.split(start, 1)
    DOCUMENT.write_text(f"{before}{start}\n\n{text}\n\n{end}{rest.split(end, 1)[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", help="of the grid only these")
    parser.add_argument("--engines", nargs="*", default=ENGINES)
    parser.add_argument("--precisions", nargs="*", default=["bf16", "f32"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--core", default="1", help="cores for taskset, such as 0 or 0,1")
    parser.add_argument("--python", help="a Python with onnxruntime, openvino and onnx")
    parser.add_argument("--deepsparse", help="a Python with deepsparse")
    parser.add_argument("--no-write", action="store_true", help="leave docs/performance.md alone")
    args = parser.parse_args()
    args.python = args.python or interpreter(".peers", PACKAGES)
    args.deepsparse = args.deepsparse or interpreter(".peers-deepsparse", DEEPSPARSE)
    WORK.mkdir(parents=True, exist_ok=True)
    rows = []
    for model, sparsity in GRID:
        if args.models and model not in args.models:
            continue
        for precision in args.precisions:
            told = measure(model, sparsity, precision, args)
            rows.append((model, sparsity, precision, told))
            (WORK / f"{model}-{sparsity}-{precision}-b{args.batch}-t{args.threads}.json").write_text(json.dumps(told))
    text = table(rows, args)
    print(text)
    if not args.no_write:
        splice(f"batch {args.batch}, threads {args.threads}", text)


if __name__ == "__main__":
    main()
