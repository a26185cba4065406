//! How libraries name the parameters of a residual network.

use crate::models::Dialect;

pub(super) const ALL: &[Dialect] = &[TIMM, HUGGING_FACE];

/// torchvision and timm share the keys.
const TIMM: Dialect = Dialect::canonical("torchvision or timm");

const HUGGING_FACE: Dialect = Dialect {
    roots: &["resnet."],
    renamings: &[
        ("embedder.embedder.convolution.*", "conv1.*"),
        ("embedder.embedder.normalization.*", "bn1.*"),
        ("encoder.stages.*.layers.*.layer.*.convolution.*", "layer+.*.conv+.*"),
        ("encoder.stages.*.layers.*.layer.*.normalization.*", "layer+.*.bn+.*"),
        ("encoder.stages.*.layers.*.shortcut.convolution.*", "layer+.*.downsample.0.*"),
        ("encoder.stages.*.layers.*.shortcut.normalization.*", "layer+.*.downsample.1.*"),
        ("classifier.1.*", "fc.*"),
    ],
    ..Dialect::canonical("hugging face")
};
