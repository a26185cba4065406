"""Writes the golden images of the preprocessing tests beside this script.

Needs Pillow and numpy; made with Pillow 13.0.0. Where torchvision can be imported too, every expected
image is compared with its own transforms.

    python make_golden.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# input, resize (squash or the short side), filter, height, width
CASES = [
    ("scene.png", "squash", "bilinear", 32, 32),
    ("scene.png", "squash", "bicubic", 32, 32),
    ("scene.png", "squash", "bilinear", 40, 29),
    ("scene.png", "36", "bilinear", 32, 32),
    ("scene.png", "36", "bicubic", 32, 32),
    ("scene.png", "37", "bilinear", 30, 30),
    ("tall.png", "24", "bilinear", 21, 21),
    ("tall.png", "41", "bicubic", 36, 36),
    ("tall.png", "45", "bilinear", 44, 44),
    ("tiny.png", "squash", "bilinear", 48, 48),
    ("tiny.png", "squash", "bicubic", 48, 48),
    ("tiny.png", "51", "bilinear", 48, 48),
    ("tiny.png", "51", "bicubic", 45, 48),
    ("tiny.png", "17", "bilinear", 24, 33),
    ("photo.jpg", "squash", "bilinear", 48, 48),
    ("photo.jpg", "55", "bicubic", 48, 48),
]


def texture(width, height, seed):
    """Gradients, fine stripes, a disc and some noise: content at every frequency."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    stripes = 90 * np.sin(x * (0.2 + y / height)) * np.cos(y * 0.9)
    disc = 80 * ((x - width / 3) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 4) ** 2)
    noise = np.random.default_rng(seed).normal(0, 18, (height, width, 3))
    planes = [255 * x / width, 255 * y / height, 255 - 200 * (x + y) / (width + height)]
    image = np.stack(planes, -1) * 0.5 + 60 + (stripes + disc)[..., None] * [0.5, 0.7, -0.6] + noise
    return np.clip(image, 0, 255).astype(np.uint8)


def inputs():
    Image.fromarray(texture(97, 61, 1)).save(HERE / "scene.png", optimize=True)
    Image.fromarray(texture(45, 131, 2)).save(HERE / "tall.png", optimize=True)
    Image.fromarray(texture(20, 13, 3)).save(HERE / "tiny.png", optimize=True)
    Image.fromarray(texture(162, 121, 4)).save(HERE / "photo.jpg", quality=85)
    Image.fromarray(texture(163, 117, 5)).save(HERE / "progressive.jpg", quality=80, progressive=True)
    cmyk = Image.fromarray(texture(48, 40, 6)).convert("CMYK")
    black = Image.fromarray(texture(48, 40, 7)[..., 0] // 2)
    cmyk = Image.merge("CMYK", [*cmyk.split()[:3], black])
    cmyk.save(HERE / "cmyk.jpg", quality=95)
    # The same data declared as YCCK: only the transform flag of the Adobe segment differs.
    data = bytearray((HERE / "cmyk.jpg").read_bytes())
    flag = data.index(b"Adobe") + 11
    assert data[flag] == 0
    data[flag] = 2
    (HERE / "ycck.jpg").write_bytes(data)
    Image.fromarray(texture(30, 20, 8)).convert("L").save(HERE / "grey.jpg", quality=90)
    Image.fromarray(texture(30, 20, 9)).quantize(16).save(HERE / "palette.png", transparency=3)
    alpha = Image.fromarray(texture(30, 20, 10))
    alpha.putalpha(Image.fromarray(texture(30, 20, 11)[..., 0]))
    alpha.save(HERE / "alpha.png")
    alpha.save(HERE / "alpha.webp", lossless=True, exact=True)


def torchvision_size(width, height, short):
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def center_crop(image, height, width):
    left = (width - image.width) // 2 if width > image.width else 0
    top = (height - image.height) // 2 if height > image.height else 0
    if left or top or width > image.width or height > image.height:
        padded = Image.new("RGB", (max(width, image.width), max(height, image.height)))
        padded.paste(image, (left, top))
        image = padded
    top = int(round((image.height - height) / 2.0))
    left = int(round((image.width - width) / 2.0))
    return image.crop((left, top, left + width, top + height))


def expected(image, resize, name, height, width):
    if resize == "squash":
        return image.resize((width, height), FILTERS[name])
    size = torchvision_size(*image.size, int(resize))
    return center_crop(image.resize(size, FILTERS[name]), height, width)


def check_with_torchvision(image, resize, name, height, width, ours):
    try:
        from torchvision import transforms
        from torchvision.transforms import InterpolationMode
    except ImportError:
        return False
    size = (height, width) if resize == "squash" else int(resize)
    steps = [transforms.Resize(size, InterpolationMode(name)), transforms.CenterCrop((height, width))]
    theirs = transforms.Compose(steps)(image)
    assert np.array_equal(np.asarray(theirs), np.asarray(ours)), (resize, name, height, width)
    return True


def main():
    inputs()
    lines, checked = [], 0
    for source, resize, name, height, width in CASES:
        image = Image.open(HERE / source).convert("RGB")
        output = expected(image, resize, name, height, width)
        checked += check_with_torchvision(image, resize, name, height, width, output)
        target = f"{Path(source).stem}-{resize}-{name}-{height}x{width}.png"
        output.save(HERE / target, optimize=True)
        lines.append(f"{source} {resize} {name} {height} {width} {target}")
    (HERE / "cases.txt").write_text("\n".join(lines) + "\n")
    for source in sorted(HERE.glob("*.jpg")) + [HERE / "palette.png", HERE / "alpha.png", HERE / "alpha.webp"]:
        target = HERE / f"decoded-{source.stem}-{source.suffix[1:]}.png"
        Image.open(source).convert("RGB").save(target, optimize=True)
    print(f"{len(CASES)} cases, {checked} checked with torchvision")


if __name__ == "__main__":
    main()
