"""Writes the names and shapes of real models' tensors, for the tests of src/models.

    python scripts/key_shapes.py tests/golden/shapes    the few that the tests read
    python scripts/key_shapes.py --all FOLDER           every variant, for a longer check (MARGAY_SHAPES=FOLDER)

Needs torch, torchvision, timm and transformers. Models are built on the meta device: no weight is drawn
or fetched. A file holds a line of JSON (library and architecture as margay names them, classes, number of
parameters, the entries of config.json that matter) and then a line per tensor: key and extents.
"""

import argparse
import json
import pathlib
import re

import timm
import torch
import torchvision
import transformers
from transformers.core_model_loading import revert_weight_conversion

FACTS = (
    "architecture global_pool num_attention_heads layer_norm_eps hidden_act"
    " downsample_in_bottleneck downsample_in_first_stage"
).split()
# What the original repositories call the modules of timm's, first match per pair.
CONVNEXT = [
    (r"^stem\.", "downsample_layers.0."),
    (r"^stages\.(\d+)\.downsample\.", r"downsample_layers.\1."),
    (r"^stages\.(\d+)\.blocks\.", r"stages.\1."),
    (r"conv_dw", "dwconv"),
    (r"mlp\.fc", "pwconv"),
    (r"mlp\.grn\.weight", "grn.gamma"),
    (r"mlp\.grn\.bias", "grn.beta"),
    (r"^head\.norm\.", "norm."),
    (r"^head\.fc\.", "head."),
]
DINOV2 = [(r"^reg_token", "register_tokens")]
CLASSIFIER = re.compile(r"(^|\.)(head|head\.fc|fc|(cls_)?classifier(\.[12])?)\.weight$")
LEGACY_MLP = [(r"mlp\.0\.", "mlp.linear_1."), (r"mlp\.3\.", "mlp.linear_2.")]


def of(model, facts=None, pairs=(), state=None):
    """A model's tensors, the facts beside them, and what must come out of both."""
    named = {}
    for key, tensor in (state or model.state_dict()).items():
        for old, new in pairs:
            key = re.sub(old, new, key)
        named[key] = list(tensor.shape)
    return named, facts or {}, sum(parameter.numel() for parameter in model.parameters())


def from_timm(name, pairs=(), **args):
    facts = {"architecture": name, **args}
    return of(timm.create_model(name, **args), {} if pairs else facts, pairs)


def from_dinov2(size):
    """The original release: positions for the class token but not for registers, and a mask token."""
    model = timm.create_model(f"vit_{size}_patch14_reg4_dinov2", num_classes=0)
    features = model.embed_dim
    model.pos_embed = torch.nn.Parameter(torch.empty(1, 1 + 37**2, features))
    model.mask_token = torch.nn.Parameter(torch.empty(1, features))
    return of(model, pairs=DINOV2)


def from_torchvision(name, pairs=()):
    return of(getattr(torchvision.models, name)(), pairs=pairs)


def from_transformers(kind, head="ForImageClassification", written=True, **config):
    """Keys as save_pretrained writes them, or as the modules are named."""
    config = getattr(transformers, f"{kind}Config")(num_labels=1000, **config)
    model = getattr(transformers, f"{kind}{head}")(config)
    state = revert_weight_conversion(model, model.state_dict()) if written else None
    return of(model, config.to_dict(), state=state)


SIZES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}


def vit(kind, size, patch=16, image=224, **args):
    features, depth, heads = SIZES[size]
    mlp = {} if kind.startswith("Dinov2") else {"intermediate_size": 4 * features}
    shape = {"hidden_size": features, "num_hidden_layers": depth, "num_attention_heads": heads}
    return from_transformers(kind, patch_size=patch, image_size=image, **shape, **mlp, **args)


def resnet(kind, depths, **args):
    wide = [256, 512, 1024, 2048] if kind == "bottleneck" else [64, 128, 256, 512]
    return from_transformers("ResNet", layer_type=kind, depths=depths, hidden_sizes=wide, **args)


def convnext(kind, depths, width, **args):
    return from_transformers(kind, depths=depths, hidden_sizes=[width << s for s in range(4)], **args)


# File name, library and architecture as margay must find them, how to build it.
FEW = [
    ("timm_resnet26d", "torchvision or timm", "resnet26d", lambda: from_timm("resnet26d")),
    ("torchvision_resnext50_32x4d", "torchvision or timm", "resnext50_32x4d",
     lambda: from_torchvision("resnext50_32x4d")),
    ("huggingface_resnet18", "hugging face", "resnet18", lambda: resnet("basic", [2, 2, 2, 2])),
    ("timm_deit_tiny_distilled", "timm", "vit_tiny_patch16",
     lambda: from_timm("deit_tiny_distilled_patch16_224")),
    ("facebook_dinov2_reg4", "timm", "vit_small_patch14", lambda: from_dinov2("small")),
    ("torchvision_vit_b_16_legacy", "torchvision", "vit_base_patch16",
     lambda: from_torchvision("vit_b_16", LEGACY_MLP)),
    ("huggingface_vit_tiny", "hugging face", "vit_tiny_patch16", lambda: vit("ViT", "tiny")),
    ("huggingface_vit_tiny_modules", "hugging face", "vit_tiny_patch16",
     lambda: vit("ViT", "tiny", written=False)),
    ("huggingface_deit_teacher", "hugging face", "vit_tiny_patch16",
     lambda: vit("DeiT", "tiny", head="ForImageClassificationWithTeacher")),
    ("huggingface_dinov2_reg4", "hugging face", "vit_small_patch14",
     lambda: vit("Dinov2WithRegisters", "small", 14, 518)),
    ("timm_convnext_atto_ols", "timm", "convnext_atto_ols", lambda: from_timm("convnext_atto_ols")),
    ("facebook_convnextv2_atto", "facebook", "convnextv2_atto",
     lambda: from_timm("convnextv2_atto", CONVNEXT)),
    ("torchvision_convnext_tiny", "torchvision", "convnext_tiny", lambda: from_torchvision("convnext_tiny")),
    ("huggingface_convnextv2_atto", "hugging face", "convnextv2_atto",
     lambda: convnext("ConvNextV2", [2, 2, 6, 2], 40)),
    ("timm_efficientnetv2_b0", "timm", "efficientnetv2_b0", lambda: from_timm("tf_efficientnetv2_b0")),
    ("torchvision_efficientnet_v2_s", "torchvision", "efficientnetv2_s",
     lambda: from_torchvision("efficientnet_v2_s")),
    ("torchvision_efficientnet_b0", "torchvision", "efficientnet_b0",
     lambda: from_torchvision("efficientnet_b0")),
]


def every():
    """The few and all other variants that margay reads."""
    yield from FEW
    both = "torchvision or timm"
    same = (
        "resnet10t resnet14t resnet18 resnet18d resnet26 resnet26t resnet34 resnet34d resnet50 resnet50c"
        " resnet50d resnet50s resnet50t resnet101 resnet101d resnet152 resnet152d resnext50_32x4d"
        " resnext50d_32x4d resnext101_32x4d resnext101_32x8d resnext101_64x4d wide_resnet50_2"
        " wide_resnet101_2"
    )
    for name in same.split():
        yield f"timm_{name}", both, name, lambda n=name: from_timm(n)
    for name in "resnet18 resnet50 resnet152 resnext101_64x4d wide_resnet50_2".split():
        yield f"torchvision_{name}", both, name, lambda n=name: from_torchvision(n)
    deep = {"resnet50": [3, 4, 6, 3], "resnet26": [2, 2, 2, 2], "resnet101": [3, 4, 23, 3]}
    for name, depths in deep.items():
        yield f"huggingface_{name}", "hugging face", name, lambda d=depths: resnet("bottleneck", d)

    transformers_ = {
        "vit_tiny_patch16_224": "vit_tiny_patch16",
        "vit_small_patch32_224": "vit_small_patch32",
        "vit_base_patch16_224": "vit_base_patch16",
        "vit_base_patch8_224": "vit_base_patch8",
        "vit_large_patch16_384": "vit_large_patch16",
        "vit_huge_patch14_224": "vit_huge_patch14",
        "deit_small_patch16_224": "vit_small_patch16",
        "deit_base_distilled_patch16_384": "vit_base_patch16",
        "deit3_small_patch16_224": "vit_small_patch16",
        "deit3_base_patch16_384": "vit_base_patch16",
        "vit_small_patch14_dinov2": "vit_small_patch14",
        "vit_base_patch14_reg4_dinov2": "vit_base_patch14",
        "vit_base_patch16_clip_224": "vit_base_patch16",
        "vit_small_patch16_224.dino": "vit_small_patch16",
        "vit_base_patch16_224.mae": "vit_base_patch16",
        "vit_medium_patch16_reg4_gap_256": "vit_512x12_patch16",
        "vit_medium_patch16_gap_256": "vit_512x12_patch16",
        "vit_betwixt_patch16_reg1_gap_256": "vit_640x12_patch16",
    }
    for name, architecture in transformers_.items():
        yield f"timm_{name}", "timm", architecture, lambda n=name: from_timm(n)
    yield ("timm_vit_small_avg", "timm", "vit_small_patch16",
           lambda: from_timm("vit_small_patch16_224", global_pool="avg"))
    yield ("timm_vit_small_headless", "timm", "vit_small_patch16",
           lambda: from_timm("vit_small_patch16_224", num_classes=0))
    for name, architecture in (
        ("vit_b_16", "vit_base_patch16"), ("vit_b_32", "vit_base_patch32"), ("vit_l_16", "vit_large_patch16"),
        ("vit_h_14", "vit_huge_patch14"),
    ):
        yield f"torchvision_{name}", "torchvision", architecture, lambda n=name: from_torchvision(n)
    for kind in ("ViT", "DeiT", "Dinov2", "Dinov2WithRegisters"):
        for head in ("ForImageClassification", "Model"):
            for written in (True, False):
                name = f"huggingface_{kind}_{head}_{'written' if written else 'modules'}"
                yield (name, "hugging face", "vit_base_patch16",
                       lambda k=kind, h=head, w=written: vit(k, "base", head=h, written=w))

    sizes = "atto femto pico nano tiny small base large xlarge xxlarge large_mlp tiny_hnf pico_ols nano_ols"
    for name in [f"convnext_{size}" for size in sizes.split()]:
        yield f"timm_{name}", "timm", name, lambda n=name: from_timm(n)
    for name in [f"convnextv2_{size}" for size in "atto femto pico nano tiny small base large huge".split()]:
        yield f"timm_{name}", "timm", name, lambda n=name: from_timm(n)
        yield f"facebook_{name}", "facebook", name, lambda n=name: from_timm(n, CONVNEXT)
    for size in "tiny small base large".split():
        name = f"convnext_{size}"
        yield f"torchvision_{name}", "torchvision", name, lambda n=name: from_torchvision(n)
        yield f"facebook_{name}", "facebook", name, lambda n=name: from_timm(n, CONVNEXT)
    yield "timm_convnext_headless", "timm", "convnext_tiny", lambda: from_timm("convnext_tiny", num_classes=0)
    for kind, name in (("ConvNext", "convnext_tiny"), ("ConvNextV2", "convnextv2_tiny")):
        for head in ("ForImageClassification", "Model"):
            yield (f"huggingface_{kind}_{head}", "hugging face", name,
                   lambda k=kind, h=head: convnext(k, [3, 3, 9, 3], 96, head=h))

    for size in "s m l xl b0 b1 b2 b3".split():
        yield (f"timm_tf_efficientnetv2_{size}", "timm", f"efficientnetv2_{size}",
               lambda s=size: from_timm(f"tf_efficientnetv2_{s}"))
    for size in "rw_t rw_s rw_m".split():
        name = f"efficientnetv2_{size}"
        yield f"timm_{name}", "timm", name, lambda n=name: from_timm(n)
    for size in range(9):
        name = f"efficientnet_b{size}"
        yield f"timm_{name}", "timm", name, lambda n=name: from_timm(n)
        if size < 8:
            yield f"torchvision_{name}", "torchvision", name, lambda n=name: from_torchvision(n)
    for size in "sml":
        yield (f"torchvision_efficientnet_v2_{size}", "torchvision", f"efficientnetv2_{size}",
               lambda s=size: from_torchvision(f"efficientnet_v2_{s}"))


def write(folder, name, library, architecture, build):
    with torch.device("meta"):
        shapes, facts, parameters = build()
    classes = 1000 if any(CLASSIFIER.search(key) for key in shapes) else 0
    config = {key: facts[key] for key in FACTS if facts.get(key) is not None}
    header = {"library": library, "architecture": architecture, "classes": classes,
              "parameters": parameters, "config": config}
    lines = [json.dumps(header)]
    lines += [" ".join([key, *map(str, shape)]) for key, shape in shapes.items() if shape]
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--all", action="store_true", help="every variant, not only the few for the tests")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for entry in every() if args.all else FEW:
        write(args.folder, *entry)


if __name__ == "__main__":
    main()
