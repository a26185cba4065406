"""Compares the presets of `margay list` with the libraries that they stand for, on JPEGs of odd sizes.

    python scripts/preprocess_parity.py target/torch-free/release/examples/preprocess_pixels [PHOTO_FOLDER]

Needs Pillow, numpy, torch, torchvision, timm and transformers; nothing is downloaded. Each row is a preset:
the mean and the largest absolute difference of the input's pixels before normalisation, in steps of 1/255,
once with each side's own JPEG decoder and once on the same decoded pixels. The constants of torchvision's
and timm's configurations are compared, too. Ends with 1 if a mean is above one step.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
import transformers
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio
from torchvision import transforms
from torchvision.models import get_weight
from torchvision.transforms import InterpolationMode

# Width, height, chroma subsampling (0: 4:4:4, 1: 4:2:2, 2: 4:2:0), quality, progressive.
PHOTOS = [
    (97, 131, 2, 75, False),
    (131, 97, 0, 90, False),
    (640, 479, 2, 85, False),
    (479, 640, 1, 85, False),
    (1921, 1079, 2, 90, False),
    (1921, 1079, 0, 75, False),
    (1079, 1921, 2, 75, True),
    (800, 601, 2, 95, False),
    (333, 334, 0, 95, True),
    (225, 223, 2, 80, False),
    (2049, 1537, 2, 92, False),
    (257, 511, 1, 70, False),
]
LIMIT = 1.0


def texture(width, height, seed):
    """Gradients, stripes of every frequency, coloured discs and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    image = np.stack([255 * x / width, 255 * y / height, 255 - 255 * (x + y) / (width + height)], -1) * 0.5 + 50
    image += (60 * np.sin(x * (0.02 + 0.5 * y / height)) * np.cos(y * 0.05))[..., None] * [0.6, 0.8, -0.5]
    for _ in range(12):
        cx, cy, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.03, 0.2) * min(width, height)
        image[(x - cx) ** 2 + (y - cy) ** 2 < r * r] = rng.uniform(0, 255, 3)
    image += rng.normal(0, 8, image.shape)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def pixels(output):
    """Bytes [height, width, 3] of a transform's tensor with values from 0 to 1 or 0 to 255."""
    array = np.asarray(output, dtype=np.float64)
    array = array.reshape(array.shape[-3:]).transpose(1, 2, 0)
    return array * 255 if array.max() <= 1.0 else array


def torchvision_weights(name):
    weights = get_weight(name)
    plain = weights.transforms(mean=(0, 0, 0), std=(1, 1, 1))
    full = weights.transforms()
    return plain, (full.mean, full.std)


def timm_model(name):
    cfg = timm.models.get_pretrained_cfg(name).to_dict()
    keys = ("interpolation", "crop_pct", "crop_mode")
    plain = create_transform(cfg["input_size"], mean=(0, 0, 0), std=(1, 1, 1), **{key: cfg[key] for key in keys})
    return plain, (cfg["mean"], cfg["std"])


def hugging_face(kind, **settings):
    processor = getattr(transformers, kind)(do_rescale=False, do_normalize=False, **settings)
    return lambda image: processor(image, return_tensors="pt")["pixel_values"][0], None


def compose(*steps):
    return transforms.Compose([*steps, transforms.ToTensor()]), None


def squash(side, interpolation):
    return compose(transforms.Resize((side, side), interpolation))


BILINEAR, BICUBIC = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC
SHORT_256 = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3}

# preset: what it is compared with, how that is made
REFERENCES = {
    "torchvision": ("torchvision", torchvision_weights("ResNet50_Weights.IMAGENET1K_V1")),
    "torchvision-v2": ("torchvision", torchvision_weights("ResNet50_Weights.IMAGENET1K_V2")),
    "torchvision-convnext": ("torchvision", torchvision_weights("ConvNeXt_Tiny_Weights.IMAGENET1K_V1")),
    "torchvision-swag": ("torchvision", torchvision_weights("ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1")),
    "torchvision-efficientnet-v2": ("torchvision", torchvision_weights("EfficientNet_V2_S_Weights.IMAGENET1K_V1")),
    "timm-resnet": ("timm", timm_model("resnet50.tv_in1k")),
    "timm-bicubic": ("timm", timm_model("resnet50.a1_in1k")),
    "augreg": ("timm", timm_model("vit_base_patch16_224.augreg_in21k_ft_in1k")),
    "deit": ("timm", timm_model("deit_base_patch16_224.fb_in1k")),
    "convnext": ("timm", timm_model("convnext_tiny.fb_in1k")),
    "efficientnet-lite": ("timm", timm_model("tf_efficientnet_lite0.in1k")),
    "efficientnet-v2": ("timm", timm_model("tf_efficientnetv2_s.in21k_ft_in1k")),
    "hf-vit": ("transformers", hugging_face("ViTImageProcessor")),
    "hf-deit": ("transformers", hugging_face("DeiTImageProcessor")),
    "hf-convnext": ("transformers", hugging_face("ConvNextImageProcessor", size={"shortest_edge": 224})),
    "dinov2": ("transformers", hugging_face("BitImageProcessor", **SHORT_256)),
    "clip": ("torchvision, as open_clip", compose(transforms.Resize(224, BICUBIC), transforms.CenterCrop(224))),
    "pytorch-wildlife": ("torchvision", squash(224, BILINEAR)),
    "deepfaune": ("torchvision", squash(182, BICUBIC)),
    "zamba": (
        "timm's border mode, black",
        compose(ResizeKeepRatio((224, 224), longest=1.0, interpolation="bilinear"), CenterCropOrPad((224, 224))),
    ),
    "speciesnet": ("torchvision", squash(480, BILINEAR)),
}


def photos(folder, others):
    """JPEGs, and the same pixels as Pillow decodes them in PNGs."""
    jpegs = []
    for i, (width, height, subsampling, quality, progressive) in enumerate(PHOTOS):
        path = folder / f"{i:02}.jpg"
        image = texture(width, height, i)
        image.save(path, subsampling=subsampling, quality=quality, progressive=progressive)
        jpegs.append(path)
    jpegs += others
    pngs = []
    for i, path in enumerate(jpegs):
        pngs.append(folder / f"{i:02}.png")
        Image.open(path).convert("RGB").save(pngs[-1], compress_level=1)
    return jpegs, pngs


def ours(out, preset, number, height, width):
    return np.fromfile(out / preset / f"{number}.rgb", np.uint8).reshape(height, width, 3).astype(np.float64)


def main():
    torch.set_num_threads(1)
    program, others = sys.argv[1], []
    if len(sys.argv) > 2:
        found = Path(sys.argv[2]).rglob("*")
        others = sorted(path for path in found if path.suffix.lower() in (".jpg", ".jpeg"))[::7][:8]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        jpegs, pngs = photos(folder, others)
        for name, files in (("jpeg", jpegs), ("png", pngs)):
            subprocess.run([program, folder / name, *files], check=True)
        failed = report(folder, jpegs)
    sys.exit(1 if failed else 0)


def report(folder, jpegs):
    images = [Image.open(path).convert("RGB") for path in jpegs]
    presets = dict(json.loads((folder / "jpeg" / "presets.json").read_text()))
    assert presets.keys() == REFERENCES.keys(), presets.keys() ^ REFERENCES.keys()
    decoded = [
        np.abs(ours(folder / "jpeg", "decoded", i, image.height, image.width) - np.asarray(image, np.float64))
        for i, image in enumerate(images)
    ]
    print(f"{len(images)} JPEGs; decoded pixels differ by {np.mean([d.mean() for d in decoded]):.3f} on average "
          f"(worst photo {max(d.mean() for d in decoded):.3f}, largest {max(d.max() for d in decoded):.0f})\n")
    print("| preset | compared with | mean | worst photo | largest | mean, same pixels | largest |")
    print("|---|---|---|---|---|---|---|")
    failed = False
    for preset, (library, (transform, constants)) in REFERENCES.items():
        spec = presets[preset]
        if constants is not None:
            got = spec["normalization"]
            assert np.allclose([got["mean"], got["std"]], constants, atol=1e-6), preset
        wanted = [pixels(transform(image)) for image in images]
        height, width = spec["size"]
        both = [
            [np.abs(ours(folder / kind, preset, i, height, width) - want) for i, want in enumerate(wanted)]
            for kind in ("jpeg", "png")
        ]
        means = [[d.mean() for d in side] for side in both]
        largest = [max(d.max() for d in side) for side in both]
        failed |= max(means[0]) > LIMIT
        print(f"| `{preset}` | {library} | {np.mean(means[0]):.3f} | {max(means[0]):.3f} | {largest[0]:.0f} "
              f"| {np.mean(means[1]):.3f} | {largest[1]:.0f} |", flush=True)
    return failed


if __name__ == "__main__":
    main()
