//! How libraries name the parameters of a residual network.

use crate::models::Dialect;

pub(super) const ALL: &[Dialect] = &[TIMM, HUGGING_FACE, CHILDREN, SPARSEML];

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

/// The modules of a network in a row, as fastai and `Sequential(*model.children())` keep them.
const CHILDREN: Dialect = Dialect {
    renamings: &[
        ("0.weight", "conv1.weight"),
        ("1.*", "bn1.*"),
        ("4.*.*.*", "layer1.*.*.*"),
        ("4.*.*.*.*", "layer1.*.*.*.*"),
        ("5.*.*.*", "layer2.*.*.*"),
        ("5.*.*.*.*", "layer2.*.*.*.*"),
        ("6.*.*.*", "layer3.*.*.*"),
        ("6.*.*.*.*", "layer3.*.*.*.*"),
        ("7.*.*.*", "layer4.*.*.*"),
        ("7.*.*.*.*", "layer4.*.*.*.*"),
        ("9.*", "fc.*"),
    ],
    ..Dialect::canonical("torchvision or timm, in a row")
};

/// The networks of sparseml and its model zoo.
const SPARSEML: Dialect = Dialect {
    renamings: &[
        ("input.conv.*", "conv1.*"),
        ("input.bn.*", "bn1.*"),
        ("sections.*.*.identity.conv.*", "layer+.*.downsample.0.*"),
        ("sections.*.*.identity.bn.*", "layer+.*.downsample.1.*"),
        ("sections.*.*.*.*", "layer+.*.*.*"),
        ("classifier.fc.*", "fc.*"),
    ],
    ..Dialect::canonical("sparseml")
};
