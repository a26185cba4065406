#!/usr/bin/env python3
"""Loads an adapter of `margay adapt` with Hugging Face's PEFT and compares its answers with margay's.

    margay adapt CHECKPOINT --data DATA --method lora --out OUT        # a dense timm ViT
    scripts/check_peft.py CHECKPOINT OUT PHOTOS --margay target/release/margay --timm vit_tiny_patch16_224 \\
        --args '{"img_size": 64, "patch_size": 8, "depth": 6}'

Needs torch, timm, peft and safetensors. PHOTOS are PNG files of the network's input size, which no decoder rounds.
Head, norms and biases, which PEFT does not carry, are taken from margay_adapter.safetensors.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import timm
import torch
from peft import PeftModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

parser = argparse.ArgumentParser()
parser.add_argument("checkpoint", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("photos", type=Path)
parser.add_argument("--margay", default="target/release/margay")
parser.add_argument("--timm", required=True)
parser.add_argument("--args", type=json.loads, default={})
args = parser.parse_args()

adapter = args.out / "adapter"
state = load_file(args.checkpoint)
with safe_open(adapter / "margay_adapter.safetensors", "pt") as file:
    facts = json.loads(file.metadata()["margay"])
    state |= {key.removeprefix("params."): file.get_tensor(key) for key in file.keys() if key.startswith("params.")}
model = timm.create_model(args.timm, num_classes=len(facts["labels"]), **args.args)
model.load_state_dict(state)
model = PeftModel.from_pretrained(model, adapter).eval()

paths = sorted(args.photos.rglob("*.png"))
command = [args.margay, "-q", "predict", args.out / "specialist.margay", args.photos, "--json", "--top", len(facts["labels"])]
rows = json.loads(subprocess.run(list(map(str, command)), capture_output=True, check=True, text=True).stdout)
mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
worst = 0.0
for row in rows:
    pixels = torch.frombuffer(bytearray(Image.open(row["path"]).convert("RGB").tobytes()), dtype=torch.uint8)
    image = Image.open(row["path"])
    x = ((pixels.view(image.height, image.width, 3) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        theirs = model(x).softmax(1)[0]
    ours = {top["label"]: top["probability"] for top in row["top"]}
    worst = max(worst, max(abs(ours[label] - p.item()) for label, p in zip(facts["labels"], theirs)))
print(f"{len(rows)} photos, {len(paths)} files, largest difference of a probability {worst:.1e}")
sys.exit(worst > 1e-5 or not rows)
