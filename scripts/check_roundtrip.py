#!/usr/bin/env python3
"""Loads the checkpoint that `margay compress` wrote into torchvision and compares it with the runtime.

    pip install torch==2.11.0 torchvision==0.26.0 safetensors pillow
    scripts/check_roundtrip.py OUT VAL [--margay target/release/margay]

OUT is the folder of a run, VAL a folder per class. Photos are decoded by Pillow and handed to both sides as PNG,
so that JPEG decoders, which differ in the last bit, play no part. Exits with 1 if an answer differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--margay", default="target/release/margay")
    args = parser.parse_args()
    record = json.loads((args.out / "run.json").read_text())
    labels = [c["label"] for c in record["specialist"]["classes"]]
    model = getattr(torchvision.models, record["model"]["architecture"])(num_classes=len(labels))
    model.load_state_dict(load_file(args.out / "model.safetensors"), strict=True)
    model.eval()
    height, width = record["model"]["input"]
    with tempfile.TemporaryDirectory() as folder:
        theirs, truth = {}, {}
        for number, path in enumerate(sorted(args.val.glob("*/*"))):
            image = Image.open(path).convert("RGB").resize((width, height), Image.BILINEAR)
            png = Path(folder) / f"{number:05}.png"
            image.save(png)
            x = (np.asarray(image, dtype=np.float64) / 255 - MEAN) / STD
            x = torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float32))
            with torch.no_grad():
                theirs[png.name] = labels[int(model(x)[0].argmax())]
            truth[png.name] = path.parent.name
        command = [args.margay, "predict", str(args.out / "specialist.margay"), folder, "--json", "--quiet"]
        answers = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows = answers if isinstance(answers, list) else answers["predictions"]
        ours = {Path(row["path"]).name: row["label"] for row in rows}
    different = [name for name in theirs if theirs[name] != ours[name]]
    right = [sum(side[name] == truth[name] for name in truth) for side in (theirs, ours)]
    print(f"torchvision {right[0]} of {len(truth)}, runtime {right[1]} of {len(truth)}, {len(different)} answers differ")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
