#!/usr/bin/env python3
"""Writes the small seeds of fuzz/seeds: one folder per target, a few files each.

Checkpoints and photos have theirs in the golden files of the tests.
"""

import json
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS = ROOT / "fuzz" / "seeds"


def node(name, op, inputs, role="body"):
    return {"name": name, "op": op, "inputs": inputs, "role": role}


def conv(inner, out, kernel=3, stride=1, groups=1):
    return {
        "kind": "conv2d", "in_channels": inner, "out_channels": out, "kernel": [kernel, kernel],
        "stride": [stride, stride], "padding": [kernel // 2, kernel // 2], "groups": groups, "bias": False,
    }


def linear(inner, out):
    return {"kind": "linear", "in_features": inner, "out_features": out, "bias": False}


def header(nodes, tensors, size=8):
    """Sections start at 4096, as the target model_file lays them out; every value of theirs is 0.5."""
    nodes = [node("input", {"kind": "input"}, [], "stem"), *nodes]
    place, table = 4096, []
    for name, form in sorted(tensors.items()):
        if isinstance(form, list):
            count = 1
            for extent in form:
                count *= extent
            table.append({"name": name, "dtype": "f32", "values": [place, 4 * count], "form": {"dense": {"shape": form}}})
            place += -(-4 * count // 64) * 64
    return {
        "graph": {
            "architecture": "tiny", "input": {"map": {"channels": 3, "height": size, "width": size}},
            "nodes": nodes, "blocks": [],
        },
        "labels": ["a", "b"],
        "preprocess": {
            "size": [size, size], "resize": {"short_side": size + 1}, "interpolation": "bilinear",
            "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        },
        "provenance": {"generator": "", "source": "", "source_sha256": "", "recipe": "", "licence": None},
        "tensors": table,
    }


def models():
    head = node("fc", linear(4, 2), [2], "head")
    plain = header(
        [node("c", conv(3, 4), [0]), node("pool", {"kind": "global_avg_pool"}, [1]), head],
        {"c.weight": [4, 3, 3, 3], "fc.weight": [2, 4]},
    )
    relu = {"kind": "activation", "function": "relu"}
    residual = header(
        [
            node("c", conv(3, 4, stride=2), [0]), node("r", {"kind": "activation", "function": "silu"}, [1]),
            node("d", conv(4, 4, groups=4), [2]), node("s", {"kind": "add"}, [3, 2]), node("e", relu, [4]),
            node("m", {"kind": "max_pool2d", "kernel": [3, 3], "stride": [2, 2], "padding": [1, 1]}, [5]),
            node("n", {"kind": "layer_norm", "features": 4, "eps": 1e-6}, [6]),
            node("pool", {"kind": "global_avg_pool"}, [7]), node("fc", linear(4, 2), [8], "head"),
        ],
        {"c.weight": [4, 3, 3, 3], "d.weight": [4, 1, 3, 3], "fc.weight": [2, 4], "n.weight": [4], "n.bias": [4]},
    )
    tokens = header(
        [
            node("p", conv(3, 4, 2, 2) | {"padding": [0, 0]}, [0]),
            node("embed", {"kind": "embed", "features": 4, "prefix": 1, "positioned": 1, "grid": [4, 4]}, [1]),
            node("qkv", linear(4, 12), [2]), node("a", {"kind": "attention", "heads": 2, "features": 4}, [3]),
            node("s", {"kind": "add"}, [4, 2]), node("t", {"kind": "token", "index": 0}, [5]),
            node("fc", linear(4, 2), [6], "head"),
        ],
        {
            "p.weight": [4, 3, 2, 2], "embed.position": [17, 4], "embed.prefix": [1, 4], "qkv.weight": [12, 4],
            "fc.weight": [2, 4],
        },
    )
    normed = header(
        [
            node("bn", {"kind": "batch_norm", "channels": 3, "eps": 1e-5}, [0]),
            node("pad", {"kind": "same_pad", "kernel": [3, 3], "stride": [2, 2]}, [1]),
            node("av", {"kind": "avg_pool2d", "kernel": [2, 2]}, [2]),
            node("pool", {"kind": "global_avg_pool"}, [3]), node("fc", linear(3, 2), [4], "head"),
        ],
        {"bn.weight": [3], "bn.bias": [3], "bn.running_mean": [3], "bn.running_var": [3], "fc.weight": [2, 3]},
    )
    return {"plain": plain, "residual": residual, "tokens": tokens, "normed": normed}


def safetensors(tensors, metadata=None):
    table, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, (dtype, shape, values) in tensors.items():
        table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    head = json.dumps(table).encode()
    return struct.pack("<Q", len(head)) + head + data


def adapter():
    facts = {
        "version": 1, "method": "rosa", "base": "", "labels": ["a", "b"], "modules": {"c.weight": ["c"]}, "branches": [],
    }
    own = safetensors(
        {
            "c.weight.positions": ("U32", [2], struct.pack("<2I", 0, 3)),
            "c.weight.values": ("F32", [2], struct.pack("<2f", 0.5, 1.0)),
            "params.fc.weight": ("F32", [2, 4], struct.pack("<8f", *range(8))),
        },
        {"margay": json.dumps(facts)},
    )
    peft = safetensors(
        {
            "base_model.model.c.lora_A.weight": ("F32", [1, 3, 3, 3], struct.pack("<27f", *range(27))),
            "base_model.model.c.lora_B.weight": ("F32", [4, 1, 1, 1], struct.pack("<4f", *range(4))),
        }
    )
    return struct.pack("<H", len(own)) + own + peft


LAYER = {
    "maps": [[4, 8, 8, 9], [4, 8, 8, 9]], "residual": False, "matrix": [4, 36], "stored": 12,
    "pattern": "unstructured", "activation": None,
}
RECIPE = 'model = "a.pth"\ndata = "photos"\nseed = 1\n[shots]\nper-class = 4\n[prune]\nsparsity = 0.9\n'
EXPERIMENT = """[experiment]
name = "small"
[checkpoints.a]
model = "a.pth"
[tasks.t]
data = "photos"
[[sweep]]
checkpoint = "all"
task = "t"
adapter = ["none", "lora"]
seed = [0, 1]
"""
CONFIGS = {
    "hf": {
        "do_resize": True, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True, "resample": 3, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "do_rescale": True, "rescale_factor": 1 / 255,
    },
    "timm": {
        "pretrained_cfg": {
            "input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center",
            "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        }
    },
    "margay": {
        "size": [8, 8], "resize": {"fit": {"sides": [8, 8], "fill": [1, 2, 3]}}, "interpolation": "lanczos",
        "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    },
}


def main():
    files = {f"model_file/{name}.json": json.dumps(it).encode() for name, it in models().items()}
    files["adapter/small"] = adapter()
    files["recipe/recipe"] = RECIPE.encode()
    files["recipe/experiment"] = EXPERIMENT.encode()
    files["labels/list.json"] = b'["ant", "bee"]'
    files["labels/object.json"] = b'{"0": "ant", "1": "bee"}'
    files["labels/lines.txt"] = b"ant\nbee\n"
    files |= {f"configs/{name}.json": json.dumps(it).encode() for name, it in CONFIGS.items()}
    tried = {"id": "0", "tried": [{"layer": LAYER, "ms": [["dense", 0.5], [{"sparse": 2}, 0.25]]}]}
    files["tune_cache/small.json"] = json.dumps(tried).encode()
    files["folder_names/split"] = b"train/ant/1.jpg\ntrain/bee/2.jpg\nval/ant/3.jpg\nval/bee/4.png"
    files["folder_names/flat"] = "ant/1.jpg\nBär/2.jpeg\n@eaDir/3.jpg\n.hidden/4.jpg".encode()
    error = {"version": "0.1.0", "checkpoint": "a", "task": "t", "recipe": {"model": "a.pth", "data": "photos"}}
    files["journal/lines.jsonl"] = (json.dumps(error | {"error": "it failed"}) + "\n").encode()
    small = {"fc.weight": ("F32", [2, 4], bytes(32)), "fc.bias": ("F16", [2], bytes(4))}
    files["safetensors/small.safetensors"] = safetensors(small, {"format": "pt"})
    for name, content in files.items():
        path = SEEDS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    total = sum(path.stat().st_size for path in SEEDS.rglob("*") if path.is_file())
    print(f"{len(files)} seeds, {total} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
