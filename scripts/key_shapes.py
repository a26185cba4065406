"""Writes the names and shapes of real models' tensors, for the tests of src/models.

    python scripts/key_shapes.py tests/golden/shapes          the few that the tests read
    python scripts/key_shapes.py --all FOLDER                  every variant, for a longer check

Needs torch, torchvision, timm and transformers. Models are built on the meta device, so no weight is
drawn or fetched. A file holds a line of JSON (source, expected architecture, classes, number of parameters,
entries of config.json that matter) and then a line per tensor: key and extents.
"""

import argparse
import json
import os
import pathlib
import tempfile

import timm
import torch
import torchvision
import transformers

FACTS = (
    "architecture global_pool num_attention_heads layer_norm_eps hidden_act norm_eps act_layer"
    " downsample_in_bottleneck downsample_in_first_stage"
).split()


def counted(model):
    return sum(p.numel() for p in model.parameters())


def from_timm(name, **args):
    model = timm.create_model(name, **args)
    facts = {"architecture": name, **{k: v for k, v in args.items() if k == "global_pool"}}
    return model.state_dict(), facts, counted(model)


def from_torchvision(name, **args):
    model = getattr(torchvision.models, name)(**args)
    return model.state_dict(), {}, counted(model)


def from_transformers(kind, head="ForImageClassification", as_modules=False, **config):
    """Keys as save_pretrained writes them, or as the modules are named."""
    config = getattr(transformers, f"{kind}Config")(**config)
    model = getattr(transformers, f"{kind}{head}")(config)
    state = model.state_dict()
    if not as_modules:
        with tempfile.TemporaryDirectory() as folder, torch.device("cpu"):
            getattr(transformers, f"{kind}{head}")(config).save_pretrained(folder)
            state = read_header(pathlib.Path(folder, "model.safetensors"))
    return state, config.to_dict(), counted(model)


def read_header(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {key: tensor["shape"] for key, tensor in header.items() if key != "__metadata__"}


def renamed(state, pairs):
    """The same tensors under the names of an original release."""
    out = {}
    for key, tensor in state.items():
        for old, new in pairs:
            key = key.replace(old, new)
        out[key] = tensor
    return out
