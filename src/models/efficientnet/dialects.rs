//! How libraries name the parameters of an EfficientNet.

use crate::models::Dialect;

/// Blocks are counted through. Those of the first stage, whose numbers are given, have no expansion.
macro_rules! efficientnet_pytorch {
    ($($plain:literal)*) => {
        Dialect {
            renamings: &[
                ("_conv_stem.*", "conv_stem.*"),
                ("_bn0.*", "bn1.*"),
                $(
                    (concat!("_blocks.", $plain, "._depthwise_conv.*"), concat!("blocks.0.", $plain, ".conv_dw.*")),
                    (concat!("_blocks.", $plain, "._bn1.*"), concat!("blocks.0.", $plain, ".bn1.*")),
                    (concat!("_blocks.", $plain, "._project_conv.*"), concat!("blocks.0.", $plain, ".conv_pw.*")),
                    (concat!("_blocks.", $plain, "._bn2.*"), concat!("blocks.0.", $plain, ".bn2.*")),
                )*
                ("_blocks.*._expand_conv.*", "blocks.0.*.conv_pw.*"),
                ("_blocks.*._bn0.*", "blocks.0.*.bn1.*"),
                ("_blocks.*._depthwise_conv.*", "blocks.0.*.conv_dw.*"),
                ("_blocks.*._bn1.*", "blocks.0.*.bn2.*"),
                ("_blocks.*._project_conv.*", "blocks.0.*.conv_pwl.*"),
                ("_blocks.*._bn2.*", "blocks.0.*.bn3.*"),
                ("_blocks.*._se_reduce.*", "blocks.0.*.se.conv_reduce.*"),
                ("_blocks.*._se_expand.*", "blocks.0.*.se.conv_expand.*"),
                ("_conv_head.*", "conv_head.*"),
                ("_bn1.*", "bn2.*"),
                ("_fc.*", "classifier.*"),
            ],
            without: &[$(concat!("_blocks.", $plain, "._expand_conv.weight")),*],
            assumes: &[("pad_type", "\"same\""), ("bn_eps", "1e-3")],
            ..Dialect::canonical("EfficientNet-PyTorch")
        }
    };
}

pub(super) const ALL: &[Dialect] = &[
    Dialect::canonical("timm"),
    TORCHVISION_V2,
    TORCHVISION_V1,
    TORCHVISION_V1_LARGE,
    TORCHVISION_MOBILE,
    // The largest first: what has no expansion in four blocks has none in one.
    efficientnet_pytorch!(0 1 2 3),
    efficientnet_pytorch!(0 1 2),
    efficientnet_pytorch!(0 1),
    efficientnet_pytorch!(0),
];

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

/// `MobileNet` V2: blocks are counted through from 1, and the first has no expansion.
const TORCHVISION_MOBILE: Dialect = Dialect {
    renamings: &[
        ("features.0.0.*", "conv_stem.*"),
        ("features.0.1.*", "bn1.*"),
        ("features.1.conv.0.0.*", "blocks.0.0.conv_dw.*"),
        ("features.1.conv.0.1.*", "blocks.0.0.bn1.*"),
        ("features.1.conv.1.*", "blocks.0.0.conv_pw.*"),
        ("features.1.conv.2.*", "blocks.0.0.bn2.*"),
        ("features.18.0.*", "conv_head.*"),
        ("features.18.1.*", "bn2.*"),
        ("features.*.conv.0.0.*", "blocks.0.-.conv_pw.*"),
        ("features.*.conv.0.1.*", "blocks.0.-.bn1.*"),
        ("features.*.conv.1.0.*", "blocks.0.-.conv_dw.*"),
        ("features.*.conv.1.1.*", "blocks.0.-.bn2.*"),
        ("features.*.conv.2.*", "blocks.0.-.conv_pwl.*"),
        ("features.*.conv.3.*", "blocks.0.-.bn3.*"),
        ("classifier.1.*", "classifier.*"),
    ],
    assumes: &[("pad_type", "\"\""), ("bn_eps", "1e-5")],
    ..Dialect::canonical("torchvision")
};
