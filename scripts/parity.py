#!/usr/bin/env python3
"""Compares margay with timm, torchvision, transformers and original releases, model by model.

    scripts/parity.py [--small] [--only TEXT] [--out FOLDER] [--table FILE] [--margay-parity PROGRAM]

Each library builds its own model with random weights and norm statistics, saves it the way it saves models, and
computes the logits of two images in f32. examples/parity.rs reads what was saved and computes them twice: on the
torch executor and on the runtime. Models of which margay says that it cannot run them must be refused.

The table goes to stdout, and with --table into a page, between its marks. Exits with 1 if a largest difference
exceeds 1e-4 of the largest logit, if a model is not read, or if one is read that must be refused.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import timm
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import nn
from torchvision.models.convnext import CNBlockConfig

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = 1e-4
CLASSES = 12
# What margay says of a model that it does not know: anything else would be an accident.
REASONS = ("not a supported model", "do not make up the model")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
SOURCES = {
    "timm": f"timm {timm.__version__}",
    "torchvision": f"torchvision {torchvision.__version__.split('+')[0]}",
    "transformers": f"transformers {transformers.__version__}",
    "original": "original releases",
}


@dataclass
class Case:
    """A model of one library, and how it is saved."""

    source: str
    name: str
    build: Callable[[], nn.Module]
    # Height and width of the images.
    size: tuple
    # Writes the model into a folder and returns what a user would hand to margay.
    save: Callable[[nn.Module, Path], Path]
    small: bool = False
    refused: bool = False
    # The model whose logits count, made from the one that was saved; absent: that one.
    judge: Optional[Callable[[nn.Module], nn.Module]] = None


# --- how models are saved -------------------------------------------------------------------------------------------


def safetensors(model, folder):
    """model.safetensors"""
    save_file(contiguous(model.state_dict()), folder / "model.safetensors")
    return folder / "model.safetensors"


def pth(model, folder):
    """model.pth"""
    torch.save(model.state_dict(), folder / "model.pth")
    return folder / "model.pth"


def legacy_pth(model, folder):
    """model.pth before PyTorch 1.6"""
    torch.save(model.state_dict(), folder / "model.pth", _use_new_zipfile_serialization=False)
    return folder / "model.pth"


def half(model, folder):
    """model.safetensors in f16"""
    path = safetensors(model.half(), folder)
    # The model that is compared has the rounded weights, too.
    model.float()
    return path


def training(model, folder):
    """training checkpoint of timm"""
    weights = model.state_dict()
    stale = {key: torch.zeros_like(value) for key, value in weights.items()}
    checkpoint = {"epoch": 3, "arch": "model", "state_dict": stale, "state_dict_ema": weights, "metric": 0.5}
    torch.save({**checkpoint, "version": 2, "args": Namespace(lr=0.1)}, folder / "model_best.pth.tar")
    return folder / "model_best.pth.tar"


def lightning(model, folder):
    """checkpoint of Lightning"""
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": weights, "hyper_parameters": {"lr": 0.1}}, folder / "last.ckpt")
    return folder / "last.ckpt"


def timm_folder(model, folder):
    """folder of timm"""
    save_for_hf(model, folder / "model", safe_serialization=True)
    return folder / "model"


def hf_folder(model, folder):
    """folder"""
    model.save_pretrained(folder / "model")
    return folder / "model"


def hf_shards(model, folder):
    """folder of shards"""
    model.save_pretrained(folder / "model", max_shard_size="1MB")
    return folder / "model"


def hf_bf16(model, folder):
    """folder in bf16"""
    hf_folder(model.to(torch.bfloat16), folder)
    model.float()
    return folder / "model"


def hf_bin(model, folder):
    """folder with .bin"""
    model.save_pretrained(folder / "model")
    weights = load_file(folder / "model" / "model.safetensors")
    torch.save(weights, folder / "model" / "pytorch_model.bin")
    (folder / "model" / "model.safetensors").unlink()
    return folder / "model"


def hf_attributes(model, folder):
    """folder, names of attributes"""
    # state_dict() has the names of transformers 5, save_pretrained those of transformers 4.
    (folder / "model").mkdir()
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder / "model")
    save_file(contiguous(model.state_dict()), folder / "model" / "model.safetensors")
    return folder / "model"


def renamed(*renamings, wrapper="model", extra=lambda model: {}):
    """A `.pth` under other names than the model's own, by `(pattern, name)`, and perhaps in a dictionary."""

    def save(model, folder):
        weights = {}
        for key, value in model.state_dict().items():
            for pattern, name in renamings:
                key = re.sub(pattern, name, key)
            weights[key] = value
        weights.update(extra(model))
        torch.save({wrapper: weights} if wrapper else weights, folder / "model.pth")
        return folder / "model.pth"

    save.__doc__ = f"model.pth with `{wrapper}`" if wrapper else "model.pth"
    return save


def contiguous(weights):
    return {key: value.contiguous() for key, value in weights.items()}


# --- the models -----------------------------------------------------------------------------------------------------

CNN, WIDE, ODD = (64, 96), (96, 64), (75, 66)


def timm_case(name, size, save=safetensors, small=False, refused=False, **options):
    """A CNN, or a transformer whose native image has this size."""
    build = lambda: timm.create_model(name, num_classes=CLASSES, **options)
    return Case("timm", label(name, options, "img_size"), build, size, save, small, refused)


def timm_vit(name, side, save=safetensors, small=False, refused=False, **options):
    return timm_case(name, (side, side), save, small, refused, img_size=side, **options)


def resampled(name, side, size, **options):
    """A transformer for images of one size that classifies images of another."""

    def judge(model):
        other = timm.create_model(name, num_classes=CLASSES, img_size=size, **options).eval()
        weights = timm.models.vision_transformer.checkpoint_filter_fn(model.state_dict(), other)
        other.load_state_dict(weights)
        return other

    case = timm_vit(name, side, small=True, **options)
    case.name += f" made for {side} x {side}"
    case.size, case.judge = size, judge
    return case


def torchvision_case(name, size, save=pth, small=False, refused=False, title=None, **options):
    build = lambda: getattr(torchvision.models, name)(num_classes=CLASSES, **options)
    return Case("torchvision", title or label(name, options, "image_size"), build, size, save, small, refused)


def hf(name, size, save=hf_folder, small=True, refused=False, config=None, label="", **options):
    """`name` is the class in front of ForImageClassification."""
    suffix = "" if name.endswith("Teacher") else "ForImageClassification"

    def build():
        settings = getattr(transformers, config or f"{name}Config")(**options, num_labels=CLASSES)
        # The other implementations of attention round differently.
        settings._attn_implementation = "eager"
        return getattr(transformers, name + suffix)(settings)

    return Case("transformers", f"{name}{suffix}{label and ', ' + label}", build, size, save, small, refused)


def original(name, of, size, save, small=False, refused=False, **options):
    """A timm model under the names of its original release."""
    build = lambda: timm.create_model(of, num_classes=CLASSES, **options)
    return Case("original", name, build, size, save, small, refused)


def label(name, options, *hidden):
    shown = [f"{key}={value}" for key, value in options.items() if key not in hidden]
    return ", ".join([name, *shown])


CONVNEXT = [
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
    (r"\.conv_dw\.", ".dwconv."),
    (r"\.mlp\.fc(\d)\.", r".pwconv\1."),
    (r"^head\.fc\.", "head."),
    (r"^head\.norm\.", "norm."),
]
CONVNEXT_V2 = [*CONVNEXT, (r"\.mlp\.grn\.weight", ".grn.gamma"), (r"\.mlp\.grn\.bias", ".grn.beta")]
DEIT3 = [(r"\.ls(\d)\.gamma", r".gamma_\1")]
DINOV2 = [(r"reg_token", "register_tokens")]


def grn_axes(model):
    """The original response norms have four axes."""
    norms = {key: value for key, value in model.state_dict().items() if ".mlp.grn." in key}
    names = {"weight": "gamma", "bias": "beta"}
    rename = lambda key: re.sub(r"blocks\.(\d+)\.mlp\.grn\.(\w+)", lambda m: f"{m[1]}.grn.{names[m[2]]}", key)
    return {rename(key): value.reshape(1, 1, 1, -1) for key, value in norms.items()}


def class_positions(model):
    """The original DINOv2 has a position for the class token; timm adds the two up."""
    width = model.embed_dim
    shift = 0.1 * torch.randn(1, 1, width, generator=torch.Generator().manual_seed(7))
    positions = torch.cat([shift, model.pos_embed], dim=1)
    weights = {"cls_token": model.cls_token - shift, "pos_embed": positions, "mask_token": torch.zeros(1, width)}
    return {key: value.detach() for key, value in weights.items()}


TV_VIT = dict(image_size=64, patch_size=16, num_layers=3, num_heads=2, hidden_dim=128, mlp_dim=320)
TV_LEGACY = [(r"\.mlp\.0\.", ".mlp.linear_1."), (r"\.mlp\.3\.", ".mlp.linear_2.")]
TV_NEXT = [CNBlockConfig(32, 64, 2), CNBlockConfig(64, 96, 1), CNBlockConfig(96, 128, 3), CNBlockConfig(128, None, 1)]
VIT = dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, intermediate_size=320, image_size=64)
DINO = dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=4, image_size=56, patch_size=14)
NEXT = dict(hidden_sizes=[32, 64, 96, 128], depths=[2, 1, 3, 1])
RES = dict(embedding_size=32, hidden_sizes=[32, 64, 96, 128], depths=[2, 1, 2, 1])

CASES = [
    timm_case("resnet18", CNN, small=True),
    timm_case("resnet18d", CNN, pth, small=True),
    timm_case("resnet18", CNN, half, small=True),
    timm_case("resnet26", CNN, timm_folder, small=True),
    timm_case("resnet34", CNN, training),
    timm_case("resnet50", WIDE),
    timm_case("resnet50d", CNN, timm_folder),
    timm_case("resnet26t", CNN),
    timm_case("resnet101", CNN),
    timm_case("wide_resnet50_2", CNN),
    timm_case("resnext50_32x4d", CNN, lightning),
    timm_case("resnext101_32x8d", CNN),
    timm_vit("vit_tiny_patch16_224", 64, small=True),
    timm_vit("vit_tiny_patch16_224", 64, timm_folder, small=True, class_token=False, global_pool="avg"),
    timm_vit("vit_tiny_patch16_224", 64, small=True, qkv_bias=False),
    timm_vit("vit_tiny_patch16_224", 64, pth, global_pool="avg"),
    resampled("vit_tiny_patch16_224", 64, (96, 64)),
    timm_vit("vit_small_patch32_224", 64, timm_folder),
    timm_vit("vit_base_patch16_224", 64),
    timm_vit("vit_base_patch16_clip_224", 64, timm_folder),
    timm_vit("vit_medium_patch16_reg4_gap_256", 64, timm_folder),
    timm_vit("deit_tiny_patch16_224", 64, training),
    timm_vit("deit_tiny_distilled_patch16_224", 64, timm_folder, small=True),
    timm_vit("deit3_small_patch16_224", 64, timm_folder),
    timm_vit("vit_small_patch14_dinov2", 56, timm_folder),
    timm_vit("vit_small_patch14_reg4_dinov2", 56, timm_folder),
    timm_case("convnext_atto", CNN, timm_folder, small=True),
    timm_case("convnext_atto_ols", CNN, small=True),
    timm_case("convnext_femto", CNN, pth),
    timm_case("convnext_pico", CNN),
    timm_case("convnext_nano", CNN, timm_folder),
    timm_case("convnext_tiny", WIDE),
    timm_case("convnext_tiny_hnf", CNN, timm_folder),
    timm_case("convnextv2_atto", CNN, timm_folder, small=True),
    timm_case("convnextv2_femto", CNN, pth),
    timm_case("convnextv2_pico", CNN),
    timm_case("convnextv2_nano", CNN, timm_folder),
    timm_case("convnextv2_tiny", CNN),
    timm_case("tf_efficientnetv2_b0", ODD, timm_folder, small=True),
    timm_case("tf_efficientnetv2_s", CNN),
    timm_case("efficientnetv2_rw_t", CNN, timm_folder),
    timm_case("efficientnet_b0", CNN),
    timm_case("tf_efficientnet_b0", ODD, timm_folder),
    timm_case("efficientnet_lite0", CNN),
    timm_case("tf_efficientnet_lite0", ODD, timm_folder, small=True),
    timm_case("tf_efficientnet_lite1", ODD),
    timm_case("mobilenetv2_050", CNN, timm_folder),
    timm_case("mobilenetv2_100", WIDE, small=True),
    timm_case("mobilenetv2_110d", CNN, timm_folder),
    torchvision_case("resnet18", CNN, small=True),
    torchvision_case("resnet34", CNN, legacy_pth),
    torchvision_case("resnet50", CNN, lightning),
    torchvision_case("resnet101", CNN),
    torchvision_case("resnet152", CNN),
    torchvision_case("wide_resnet50_2", CNN),
    torchvision_case("resnext50_32x4d", WIDE, safetensors),
    torchvision_case("vit_b_16", (64, 64), image_size=64),
    torchvision_case("vit_b_32", (64, 64), image_size=64),
    torchvision_case("convnext_tiny", CNN),
    torchvision_case("convnext_small", CNN),
    torchvision_case("VisionTransformer", (64, 64), small=True, title="VisionTransformer of 3 blocks", **TV_VIT),
    torchvision_case(
        "VisionTransformer", (64, 64), renamed(*TV_LEGACY, wrapper=None), small=True,
        title="VisionTransformer of 3 blocks, names before 0.12", **TV_VIT,
    ),
    torchvision_case("ConvNeXt", CNN, small=True, title="ConvNeXt of 7 blocks", block_setting=TV_NEXT),
    torchvision_case("efficientnet_b0", CNN),
    torchvision_case("mobilenet_v2", ODD, small=True),
    torchvision_case("efficientnet_v2_s", ODD, small=True),
    hf("ResNet", CNN, label="bottleneck", **RES),
    hf("ResNet", CNN, hf_bin, label="basic", layer_type="basic", **RES),
    hf("ResNet", CNN, label="stride in the first convolution", downsample_in_bottleneck=True, **RES),
    hf("ResNet", WIDE, hf_attributes, label="stride in the first stage", downsample_in_first_stage=True, **RES),
    hf("ViT", (64, 64), **VIT),
    hf("ViT", (64, 64), hf_shards, label="large epsilon", layer_norm_eps=1e-2, **VIT),
    hf("ViT", (64, 64), hf_attributes, label="no bias of queries", qkv_bias=False, **VIT),
    hf("ViT", (64, 64), label="ReLU", hidden_act="relu", **VIT),
    hf("DeiT", (64, 64), **VIT),
    hf("DeiT", (64, 64), hf_attributes, **VIT),
    hf("DeiTForImageClassificationWithTeacher", (64, 64), config="DeiTConfig", **VIT),
    hf("ViTMSN", (64, 64), **VIT),
    hf("Dinov2", (56, 56), **DINO),
    hf("Dinov2WithRegisters", (56, 56), hf_bin, **DINO),
    hf("Dinov2WithRegisters", (56, 56), hf_attributes, **DINO),
    hf("ConvNext", CNN, layer_norm_eps=1e-2, label="large epsilon", **NEXT),
    hf("ConvNext", CNN, hf_shards, **NEXT),
    hf("ConvNext", CNN, hf_bf16, **NEXT),
    hf("ConvNext", CNN, label="SiLU", hidden_act="silu", **NEXT),
    hf("ConvNextV2", CNN, **NEXT),
    hf("ConvNextV2", CNN, hf_attributes, **NEXT),
    hf("TimmWrapper", CNN, label="resnet18", architecture="resnet18"),
    original("ConvNeXt tiny", "convnext_tiny", CNN, renamed(*CONVNEXT)),
    original("ConvNeXt V2 atto", "convnextv2_atto", CNN, renamed(*CONVNEXT_V2, extra=grn_axes), small=True),
    original("DeiT tiny", "deit_tiny_patch16_224", (64, 64), renamed(), small=True, img_size=64),
    original("DeiT tiny distilled", "deit_tiny_distilled_patch16_224", (64, 64), renamed(), img_size=64),
    original("DeiT III small", "deit3_small_patch16_224", (64, 64), renamed(*DEIT3), img_size=64),
    original("MAE fine-tuned", "vit_small_patch16_224", (64, 64), renamed(), img_size=64, global_pool="avg"),
    original(
        "DINOv2 small", "vit_small_patch14_dinov2", (56, 56),
        renamed(*DINOV2, wrapper=None, extra=class_positions), img_size=56, no_embed_class=True,
    ),
    original(
        "DINOv2 small with registers", "vit_small_patch14_reg4_dinov2", (56, 56),
        renamed(*DINOV2, wrapper=None, extra=class_positions), img_size=56,
    ),
    # What must be refused.
    timm_case("seresnet18", CNN, small=True, refused=True),
    timm_case("resnetv2_18", CNN, small=True, refused=True),
    timm_case("resnetblur18", CNN, timm_folder, small=True, refused=True),
    timm_case("swin_tiny_patch4_window7_224", (224, 224), refused=True),
    timm_vit("vit_tiny_patch16_224", 64, small=True, refused=True, qk_norm=True),
    timm_vit("vit_base_patch16_clip_quickgelu_224", 64, timm_folder, refused=True, depth=2),
    timm_vit("vit_giant_patch14_dinov2", 56, refused=True, embed_dim=192, depth=2, num_heads=3),
    timm_case("mobilenetv3_small_100", CNN, small=True, refused=True),
    timm_case("semnasnet_075", CNN, refused=True),
    timm_case("gc_efficientnetv2_rw_t", CNN, refused=True),
    timm_vit("vit_base_patch16_siglip_224", 64, refused=True, depth=2),
    torchvision_case("swin_t", (64, 64), refused=True),
    torchvision_case("regnet_y_400mf", CNN, small=True, refused=True),
    hf("ViT", (64, 64), label="quick GELU", refused=True, hidden_act="quick_gelu", **VIT),
    hf("ConvNext", CNN, label="tanh GELU", refused=True, hidden_act="gelu_new", **NEXT),
    hf("ResNet", CNN, label="GELU", refused=True, hidden_act="gelu", **RES),
    hf("Dinov2", (56, 56), label="SwiGLU", refused=True, use_swiglu_ffn=True, **DINO),
    hf("Beit", (64, 64), refused=True, **VIT),
    hf("Siglip", (64, 64), refused=True, vision_config=VIT),
    hf("Swin", (64, 64), refused=True, image_size=64, embed_dim=24, depths=[1, 1], num_heads=[2, 2], window_size=4),
]


# --- weights and images ---------------------------------------------------------------------------------------------


@torch.no_grad()
def randomise(model, generator):
    """Weights that keep the size of their inputs; norms, scales, tokens and positions that matter."""

    def normal(tensor, scale):
        tensor.normal_(generator=generator).mul_(scale)

    def uniform(tensor, low, high):
        tensor.uniform_(low, high, generator=generator)

    for module in model.modules():
        norm = isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm))
        for name, value in module.named_parameters(recurse=False):
            if norm and name == "weight":
                uniform(value, 0.5, 1.5)
            elif name.startswith(("gamma", "lambda", "layer_scale")):
                uniform(value, 0.2, 1.0)
            elif name.endswith("bias"):
                normal(value, 0.2)
            elif name.endswith("weight") and value.dim() >= 2:
                normal(value, value[0].numel() ** -0.5)
            else:
                normal(value, 0.5)


@torch.no_grad()
def draw_statistics(model, size, generator):
    """Statistics of the batch norms near those of a few images, so that deep networks do not forget the image."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    model(draw_images(8, size, generator))
    for norm in norms:
        norm.eval()
        mean, variance = norm.running_mean, norm.running_var
        mean += 0.3 * variance.sqrt() * torch.randn(mean.shape, generator=generator)
        variance *= 0.5 + 1.5 * torch.rand(variance.shape, generator=generator)


def draw_images(count, size, generator):
    """Images `[count, 3, height, width]` whose coarse structure differs, roughly of mean 0 and variance 1."""
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    coarse = nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return coarse + 0.5 * torch.randn(count, 3, *size, generator=generator)


@torch.no_grad()
def reference(case, model, generator):
    images = draw_images(2, case.size, generator)
    output = (case.judge(model) if case.judge else model)(images)
    logits = getattr(output, "logits", output)
    scale = logits.abs().max()
    across = (logits[0] - logits[1]).abs().max() / scale
    if not (torch.isfinite(scale) and 1e-2 < scale < 1e5 and across > 1e-2):
        raise RuntimeError(f"logits up to {scale:.1e}, images {across:.1e} apart: nothing to compare")
    return {"images": images, "logits": logits.contiguous()}


# --- comparing ------------------------------------------------------------------------------------------------------


def run(case, folder, program):
    """What the program says of a case: its JSON line, and whether that is as it should be."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{case.source} {case.name}".encode()))
    torch.manual_seed(0)
    model = case.build().eval()
    randomise(model, generator)
    if not case.refused:
        draw_statistics(model, case.size, generator)
    checkpoint = case.save(model, folder)
    if case.refused:
        tensors = {"images": torch.zeros(1, 3, *case.size), "logits": torch.zeros(1, CLASSES)}
    else:
        tensors = reference(case, model, generator)
    save_file(tensors, folder / "reference.safetensors")
    del model
    if program is None:
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        return {"bytes": size, "logits": float(tensors["logits"].abs().max())}
    done = subprocess.run(
        [program, checkpoint, folder / "reference.safetensors"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 or not done.stdout.strip():
        return {"crash": (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]}
    return json.loads(done.stdout.replace(f"{folder}{os.sep}", ""))


def is_sound(case, result):
    if case.refused:
        return any(reason in result.get("refused", "") for reason in REASONS)
    return all(result.get(side, 1.0) <= TOLERANCE for side in ("torch", "runtime"))


def number(value):
    return "not run" if value is None else f"{value:.1e}" if value else "0"


def reason(result):
    said = next((result[key] for key in ("refused", "crash", "error") if key in result), "nothing: it was read")
    return re.sub("^.*?(not a supported model|do not make up the model): ", "", said).replace("|", "/")


def compared_rows(results):
    yield "| source | model | saved as | image | parameters | read as | torch executor | runtime |"
    yield "|---|---|---|---|--:|---|--:|--:|"
    for case, result in results:
        read = f"{result['architecture']} ({result['library']})" if "library" in result else reason(result)
        cells = [SOURCES[case.source], case.name, case.save.__doc__, " x ".join(map(str, case.size))]
        cells += [f"{result.get('parameters', 0) / 1e6:.1f} M", read]
        cells += [number(result.get(side)) for side in ("torch", "runtime")]
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def refused_rows(results):
    yield "| source | model | saved as | what margay says |"
    yield "|---|---|---|---|"
    for case, result in results:
        yield f"| {SOURCES[case.source]} | {case.name} | {case.save.__doc__} | {reason(result)} |"


def table(results):
    lines = [*compared_rows([entry for entry in results if not entry[0].refused])]
    lines += ["", "Refused:", "", *refused_rows([entry for entry in results if entry[0].refused])]
    return "\n".join(lines) + "\n"


def insert(text, page):
    """Replaces what stands between the marks of a page."""
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(before + BEGIN + "\n\n" + text + "\n" + END + rest.partition(END)[2])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="only the small models")
    parser.add_argument("--only", default="", metavar="TEXT", help="only models whose name or source contains TEXT")
    parser.add_argument("--out", type=Path, help="keep what was saved in this folder")
    parser.add_argument("--table", type=Path, help="put the table into this page, too")
    parser.add_argument("--margay-parity", default=str(ROOT / "target/release/examples/parity"), metavar="PROGRAM")
    parser.add_argument("--build-only", action="store_true", help="do not compare, show sizes and logits")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    chosen = [case for case in CASES if case.small or not args.small]
    chosen = [case for case in chosen if args.only in f"{case.source} {case.name}"]
    program = None if args.build_only else args.margay_parity
    results = []
    for number, case in enumerate(chosen):
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            folder = args.out / f"{number:02} {case.source} {case.name}" if args.out else Path(scratch)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            try:
                result = run(case, folder, program)
            except Exception as error:
                result = {"crash": f"{type(error).__name__}: {error}"}
        sound = is_sound(case, result)
        results.append((case, result))
        verdict = "as it should be" if sound else "WRONG"
        spent = time.monotonic() - begun
        print(f"{verdict:15} {spent:5.1f} s  {case.source} {case.name}: {json.dumps(result)}", file=sys.stderr)
    text = table(results)
    print(text, end="")
    if args.table:
        insert(text, args.table)
    wrong = [case for case, result in results if not is_sound(case, result)]
    print(f"{len(results) - len(wrong)} of {len(results)} as they should be", file=sys.stderr)
    sys.exit(bool(wrong) and program is not None)


if __name__ == "__main__":
    main()
