"""Writes the checkpoint fixtures of this folder.

    python make_checkpoints.py

Made with torch 2.11.0, torchvision 0.26.0 and safetensors 0.8.0. The network is a ResNet-18 whose
64 channels are cut down to one; its weights are seeded random numbers.
"""

import os
import zipfile
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.manual_seed(0)


def tiny(key, value, classes=3):
    if key.endswith("num_batches_tracked"):
        return torch.tensor(7)
    shape = [n if n < 64 else n // 64 for n in value.shape]
    if key.startswith("fc."):
        shape[0] = classes
    noise = torch.randn(shape)
    return noise.abs() + 0.5 if key.endswith("running_var") else noise


class Custom(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x)


class Runs:
    def __reduce__(self):
        return os.system, ("echo this must never be printed",)


def big_endian(source, target):
    """Copies an archive and lies about its byte order."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, b"big" if entry.filename.endswith("byteorder") else data)


def main():
    model = torchvision.models.resnet18()
    state = {key: tiny(key, value) for key, value in model.state_dict().items()}
    weights = {k: v for k, v in state.items() if v.is_floating_point()}
    save_file(weights, HERE / "resnet.safetensors", metadata={"labels": '["ant", "bee", "cat"]'})
    torch.save(state, HERE / "zip.pth")
    torch.save(state, HERE / "legacy.pth", _use_new_zipfile_serialization=False)

    # One shared storage, transposed axes, and the wrapping of a data-parallel training run.
    weight = state["fc.weight"]
    odd = dict(state)
    odd["fc.weight"] = weight.t().contiguous().t()
    both = torch.stack([state["bn1.weight"], state["bn1.bias"]])
    odd["bn1.weight"], odd["bn1.bias"] = both[0], both[1]
    wrapped = {
        "epoch": 3,
        "state_dict": {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in odd.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 0.1}]},
        "class_to_idx": {"cat": 2, "ant": 0, "bee": 1},
    }
    torch.save(wrapped, HERE / "wrapped_f16.pth", _use_new_zipfile_serialization=False)
    odd = {k: v.bfloat16() if v.is_floating_point() else v for k, v in odd.items()}
    torch.save({"model": odd}, HERE / "model_bf16.pth")

    layer = torch.nn.Linear(2, 2)
    steps = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    steps.step()
    torch.save({"epoch": 3, "optimizer": steps.state_dict()}, HERE / "optimizer.pth")

    torch.save({"fc.weight": weight, "extra": Runs()}, HERE / "runs_code.pth")
    torch.save(Runs(), HERE / "runs_code_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(Custom(), HERE / "whole_module.pth")
    torch.jit.script(Custom()).save(HERE / "torchscript.pt")
    torch.save({"conv1.weight": torch.zeros(1).expand(1 << 28)}, HERE / "expanded.pth")
    torch.save({"conv1.weight": torch.ones(2)}, HERE / "little.pth")
    big_endian(HERE / "little.pth", HERE / "big_endian.pth")
    os.remove(HERE / "little.pth")


main()
