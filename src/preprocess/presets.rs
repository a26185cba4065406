//! Named ways to prepare photos, as those who published the weights do it.

use margay_core::{Centre, Interpolation, Normalization, Preprocess, Resize, nearest_name};

use Interpolation::{Bicubic, Bilinear};

/// A named way to prepare photos.
#[derive(Debug)]
pub struct Preset {
    /// What `--preprocess` takes.
    pub name: &'static str,
    /// The checkpoints it is for.
    pub about: &'static str,
    /// Where it is written down.
    pub source: &'static str,
    /// Whether networks whose learned positions are of another size are used at this one all the same: those who published
    /// the weights resample the positions.
    pub resamples: bool,
    /// What is done; other sizes follow by [`Preprocess::at`].
    pub spec: Preprocess,
}

const IMAGENET: Normalization = Normalization::IMAGENET;
const INCEPTION: Normalization = Normalization::INCEPTION;

/// Every preset.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "torchvision",
        about: "torchvision's V1 weights: ResNet, ViT",
        source: "torchvision ResNet50_Weights.IMAGENET1K_V1.transforms",
        resamples: false,
        spec: crop(224, 256, Bilinear, IMAGENET),
    },
    Preset {
        name: "torchvision-v2",
        about: "torchvision's V2 weights of ResNet; ConvNeXt base and large",
        source: "torchvision ResNet50_Weights.IMAGENET1K_V2.transforms",
        resamples: false,
        spec: crop(224, 232, Bilinear, IMAGENET),
    },
    Preset {
        name: "torchvision-convnext",
        about: "torchvision's ConvNeXt tiny (small: 230)",
        source: "torchvision ConvNeXt_Tiny_Weights.IMAGENET1K_V1.transforms",
        resamples: false,
        spec: crop(224, 236, Bilinear, IMAGENET),
    },
    Preset {
        name: "torchvision-swag",
        about: "torchvision's SWAG weights of ViT, end to end",
        source: "torchvision ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1.transforms",
        resamples: false,
        spec: crop(384, 384, Bicubic, IMAGENET),
    },
    Preset {
        name: "torchvision-efficientnet-v2",
        about: "torchvision's EfficientNetV2 S (M: 480)",
        source: "torchvision EfficientNet_V2_S_Weights.IMAGENET1K_V1.transforms",
        resamples: false,
        spec: crop(384, 384, Bilinear, IMAGENET),
    },
    Preset {
        name: "timm-resnet",
        about: "timm's ported ResNets (tv_in1k, gluon_in1k): crop 0.875, bilinear",
        source: "timm resnet50.tv_in1k",
        resamples: false,
        spec: crop(224, 256, Bilinear, IMAGENET),
    },
    Preset {
        name: "timm-bicubic",
        about: "timm's own ResNets (a1_in1k and others): crop 0.95, bicubic",
        source: "timm resnet50.a1_in1k",
        resamples: false,
        spec: crop(224, 235, Bicubic, IMAGENET),
    },
    Preset {
        name: "augreg",
        about: "timm's ViTs of Google (augreg, orig): crop 0.9, bicubic, -1 to 1",
        source: "timm vit_base_patch16_224.augreg_in21k_ft_in1k",
        resamples: false,
        spec: crop(224, 248, Bicubic, INCEPTION),
    },
    Preset {
        name: "deit",
        about: "DeiT and DeiT III, original and in timm: crop 0.9, bicubic",
        source: "timm deit_base_patch16_224.fb_in1k",
        resamples: false,
        spec: crop(224, 248, Bicubic, IMAGENET),
    },
    Preset {
        name: "convnext",
        about: "ConvNeXt, original and in timm: crop 0.875, bicubic",
        source: "timm convnext_tiny.fb_in1k",
        resamples: false,
        spec: crop(224, 256, Bicubic, IMAGENET),
    },
    Preset {
        name: "efficientnet-v2",
        about: "EfficientNetV2 of Google in timm (tf_): no crop, bicubic, -1 to 1",
        source: "timm tf_efficientnetv2_s.in21k_ft_in1k",
        resamples: false,
        spec: crop(300, 300, Bicubic, INCEPTION),
    },
    Preset {
        name: "efficientnet-lite",
        about: "EfficientNet Lite 0 of Google (tf_) in timm and EfficientNet-PyTorch: crop 0.875, bicubic, -1 to 1",
        source: "timm tf_efficientnet_lite0.in1k",
        resamples: false,
        spec: crop(224, 256, Bicubic, INCEPTION),
    },
    Preset {
        name: "hf-vit",
        about: "ViT on Hugging Face (google/vit-*): squash, -1 to 1",
        source: "transformers ViTImageProcessor",
        resamples: false,
        spec: hugging_face(&squash(224, Bilinear, INCEPTION)),
    },
    Preset {
        name: "hf-deit",
        about: "DeiT on Hugging Face: squash to 256, centre 224",
        source: "transformers DeiTImageProcessor",
        resamples: false,
        spec: hugging_face(&Preprocess {
            resize: Resize::SquashTo([256, 256]),
            ..squash(224, Bicubic, IMAGENET)
        }),
    },
    Preset {
        name: "hf-convnext",
        about: "ConvNeXt and ResNet on Hugging Face: crop 0.875, bicubic",
        source: "transformers ConvNextImageProcessor",
        resamples: false,
        spec: hugging_face(&crop(224, 256, Bicubic, IMAGENET)),
    },
    Preset {
        name: "dinov2",
        about: "DINOv2 on Hugging Face: short side 256, bicubic",
        source: "transformers BitImageProcessor of facebook/dinov2-base",
        resamples: true,
        spec: hugging_face(&crop(224, 256, Bicubic, IMAGENET)),
    },
    Preset {
        name: "clip",
        about: "image towers of CLIP: no margin, bicubic, CLIP's constants",
        source: "OpenAI CLIP clip.load, open_clip image_transform",
        resamples: false,
        spec: crop(224, 224, Bicubic, Normalization::CLIP),
    },
    Preset {
        name: "pytorch-wildlife",
        about: "PyTorch-Wildlife's classifiers: squash",
        source: "microsoft/CameraTraps PytorchWildlife transforms",
        resamples: false,
        spec: squash(224, Bilinear, IMAGENET),
    },
    Preset {
        name: "deepfaune",
        about: "DeepFaune's classifier on cropped animals: squash to 182, bicubic",
        source: "DeepFaune classifTools.py",
        resamples: false,
        spec: squash(182, Bicubic, IMAGENET),
    },
    Preset {
        name: "zamba",
        about: "zamba's image classifiers: letterbox in black, 0.45 / 0.225",
        source: "drivendataorg/zamba zamba/images",
        resamples: false,
        spec: Preprocess {
            resize: Resize::Fit { sides: [224, 224], fill: [0, 0, 0] },
            ..squash(224, Bilinear, Normalization::even(0.45, 0.225))
        },
    },
    Preset {
        name: "speciesnet",
        about: "SpeciesNet's classifier on cropped animals: squash to 480, 0 to 1",
        source: "google/cameratrapai classifier",
        resamples: false,
        spec: squash(480, Bilinear, Normalization::UNIT),
    },
];

/// The preset of this name.
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// The preset whose name looks most like this one.
pub fn nearest(name: &str) -> Option<String> {
    nearest_name(name, PRESETS.iter().map(|preset| preset.name))
}

/// Short side to `short`, the centre `size` × `size`.
const fn crop(
    size: usize,
    short: usize,
    interpolation: Interpolation,
    normalization: Normalization,
) -> Preprocess {
    let resize = Resize::ShortSide(short);
    Preprocess { size: [size, size], resize, centre: Centre::Even, interpolation, normalization }
}

/// The whole photo to `size` × `size`.
const fn squash(size: usize, interpolation: Interpolation, normalization: Normalization) -> Preprocess {
    Preprocess { resize: Resize::Squash, ..crop(size, size, interpolation, normalization) }
}

/// Hugging Face rounds the middle down.
const fn hugging_face(spec: &Preprocess) -> Preprocess {
    Preprocess { centre: Centre::Floor, ..*spec }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn presets_have_names_of_their_own_and_sensible_specs() {
        let names: BTreeSet<_> = PRESETS.iter().map(|preset| preset.name).collect();
        assert_eq!(names.len(), PRESETS.len());
        for Preset { name, about, source, spec, .. } in PRESETS {
            assert!(super::super::is_sensible(spec), "{name}");
            assert!(!about.is_empty() && !source.is_empty(), "{name}");
            let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            assert!(letters, "{name}");
        }
        assert_eq!(nearest("torchvison").as_deref(), Some("torchvision"));
    }
}
