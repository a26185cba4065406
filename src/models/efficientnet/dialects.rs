//! How libraries name the parameters of an EfficientNet.

use crate::models::Dialect;

pub(super) const ALL: &[Dialect] =
    &[Dialect::canonical("timm"), TORCHVISION_V2, TORCHVISION_V1, TORCHVISION_V1_LARGE];

/// The first stage is one convolution per block, the next two are fused, the rest is not.
const TORCHVISION_V2: Dialect = Dialect {
    renamings: &[
        ("features.0.0.*", "conv_stem.*"),
        ("features.0.1.*", "bn1.*"),
        ("features.1.*.block.0.0.*", "blocks.0.*.conv.*"),
        ("features.1.*.block.0.1.*", "blocks.0.*.bn1.*"),
        ("features.2.*.block.0.0.*", "blocks.1.*.conv_exp.*"),
        ("features.2.*.block.0.1.*", "blocks.1.*.bn1.*"),
        ("features.2.*.block.1.0.*", "blocks.1.*.conv_pwl.*"),
        ("features.2.*.block.1.1.*", "blocks.1.*.bn2.*"),
        ("features.3.*.block.0.0.*", "blocks.2.*.conv_exp.*"),
        ("features.3.*.block.0.1.*", "blocks.2.*.bn1.*"),
        ("features.3.*.block.1.0.*", "blocks.2.*.conv_pwl.*"),
        ("features.3.*.block.1.1.*", "blocks.2.*.bn2.*"),
        ("features.*.*.block.0.0.*", "blocks.-.*.conv_pw.*"),
        ("features.*.*.block.0.1.*", "blocks.-.*.bn1.*"),
        ("features.*.*.block.1.0.*", "blocks.-.*.conv_dw.*"),
        ("features.*.*.block.1.1.*", "blocks.-.*.bn2.*"),
        ("features.*.*.block.2.fc1.*", "blocks.-.*.se.conv_reduce.*"),
        ("features.*.*.block.2.fc2.*", "blocks.-.*.se.conv_expand.*"),
        ("features.*.*.block.3.0.*", "blocks.-.*.conv_pwl.*"),
        ("features.*.*.block.3.1.*", "blocks.-.*.bn3.*"),
        ("features.7.0.*", "conv_head.*"),
        ("features.7.1.*", "bn2.*"),
        ("features.8.0.*", "conv_head.*"),
        ("features.8.1.*", "bn2.*"),
        ("classifier.1.*", "classifier.*"),
    ],
    assumes: &[("pad_type", "\"\""), ("bn_eps", "1e-3")],
    ..Dialect::canonical("torchvision")
};

/// The first stage has no expansion.
const TORCHVISION_V1: Dialect = Dialect {
    renamings: &[
        ("features.0.0.*", "conv_stem.*"),
        ("features.0.1.*", "bn1.*"),
        ("features.1.*.block.0.0.*", "blocks.0.*.conv_dw.*"),
        ("features.1.*.block.0.1.*", "blocks.0.*.bn1.*"),
        ("features.1.*.block.1.fc1.*", "blocks.0.*.se.conv_reduce.*"),
        ("features.1.*.block.1.fc2.*", "blocks.0.*.se.conv_expand.*"),
        ("features.1.*.block.2.0.*", "blocks.0.*.conv_pw.*"),
        ("features.1.*.block.2.1.*", "blocks.0.*.bn2.*"),
        ("features.*.*.block.0.0.*", "blocks.-.*.conv_pw.*"),
        ("features.*.*.block.0.1.*", "blocks.-.*.bn1.*"),
        ("features.*.*.block.1.0.*", "blocks.-.*.conv_dw.*"),
        ("features.*.*.block.1.1.*", "blocks.-.*.bn2.*"),
        ("features.*.*.block.2.fc1.*", "blocks.-.*.se.conv_reduce.*"),
        ("features.*.*.block.2.fc2.*", "blocks.-.*.se.conv_expand.*"),
        ("features.*.*.block.3.0.*", "blocks.-.*.conv_pwl.*"),
        ("features.*.*.block.3.1.*", "blocks.-.*.bn3.*"),
        ("features.8.0.*", "conv_head.*"),
        ("features.8.1.*", "bn2.*"),
        ("classifier.1.*", "classifier.*"),
    ],
    without: &["features.1.2.block.0.0.weight"],
    assumes: &[("pad_type", "\"\""), ("bn_eps", "1e-5")],
    ..Dialect::canonical("torchvision")
};

/// B5 and larger, which have another epsilon.
const TORCHVISION_V1_LARGE: Dialect =
    Dialect { without: &[], assumes: &[("pad_type", "\"\""), ("bn_eps", "1e-3")], ..TORCHVISION_V1 };
