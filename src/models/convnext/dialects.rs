//! How libraries name the parameters of a ConvNeXt.

use crate::models::Dialect;

pub(super) const ALL: &[Dialect] = &[TIMM, FACEBOOK, TORCHVISION, HUGGING_FACE];

const TIMM: Dialect = Dialect {
    renamings: &[("stages.*.blocks.*.gamma", "stages.*.blocks.*.gamma.weight")],
    ..Dialect::canonical("timm")
};

/// The original releases of both versions.
const FACEBOOK: Dialect = Dialect {
    renamings: &[
        ("downsample_layers.0.*.*", "stem.*.*"),
        ("downsample_layers.*.*.*", "stages.*.downsample.*.*"),
        ("stages.*.*.dwconv.*", "stages.*.blocks.*.conv_dw.*"),
        ("stages.*.*.norm.*", "stages.*.blocks.*.norm.*"),
        ("stages.*.*.pwconv*.*", "stages.*.blocks.*.mlp.fc*.*"),
        ("stages.*.*.grn.gamma", "stages.*.blocks.*.mlp.grn.weight"),
        ("stages.*.*.grn.beta", "stages.*.blocks.*.mlp.grn.bias"),
        ("stages.*.*.gamma", "stages.*.blocks.*.gamma.weight"),
        ("norm.*", "head.norm.*"),
        ("head.*", "head.fc.*"),
    ],
    ..Dialect::canonical("facebook")
};

const TORCHVISION: Dialect = Dialect {
    renamings: &[
        ("features.0.*.*", "stem.*.*"),
        ("features.2.*.*", "stages.1.downsample.*.*"),
        ("features.4.*.*", "stages.2.downsample.*.*"),
        ("features.6.*.*", "stages.3.downsample.*.*"),
        ("features.1.*.layer_scale", "stages.0.blocks.*.gamma.weight"),
        ("features.1.*.block.0.*", "stages.0.blocks.*.conv_dw.*"),
        ("features.1.*.block.2.*", "stages.0.blocks.*.norm.*"),
        ("features.1.*.block.3.*", "stages.0.blocks.*.mlp.fc1.*"),
        ("features.1.*.block.5.*", "stages.0.blocks.*.mlp.fc2.*"),
        ("features.3.*.layer_scale", "stages.1.blocks.*.gamma.weight"),
        ("features.3.*.block.0.*", "stages.1.blocks.*.conv_dw.*"),
        ("features.3.*.block.2.*", "stages.1.blocks.*.norm.*"),
        ("features.3.*.block.3.*", "stages.1.blocks.*.mlp.fc1.*"),
        ("features.3.*.block.5.*", "stages.1.blocks.*.mlp.fc2.*"),
        ("features.5.*.layer_scale", "stages.2.blocks.*.gamma.weight"),
        ("features.5.*.block.0.*", "stages.2.blocks.*.conv_dw.*"),
        ("features.5.*.block.2.*", "stages.2.blocks.*.norm.*"),
        ("features.5.*.block.3.*", "stages.2.blocks.*.mlp.fc1.*"),
        ("features.5.*.block.5.*", "stages.2.blocks.*.mlp.fc2.*"),
        ("features.7.*.layer_scale", "stages.3.blocks.*.gamma.weight"),
        ("features.7.*.block.0.*", "stages.3.blocks.*.conv_dw.*"),
        ("features.7.*.block.2.*", "stages.3.blocks.*.norm.*"),
        ("features.7.*.block.3.*", "stages.3.blocks.*.mlp.fc1.*"),
        ("features.7.*.block.5.*", "stages.3.blocks.*.mlp.fc2.*"),
        ("classifier.0.*", "head.norm.*"),
        ("classifier.2.*", "head.fc.*"),
    ],
    ..Dialect::canonical("torchvision")
};

/// Both versions; only the last norm has the epsilon of the configuration.
const HUGGING_FACE: Dialect = Dialect {
    roots: &["convnext.", "convnextv2."],
    renamings: &[
        ("embeddings.patch_embeddings.*", "stem.0.*"),
        ("embeddings.layernorm.*", "stem.1.*"),
        ("encoder.stages.*.downsampling_layer.*.*", "stages.*.downsample.*.*"),
        ("encoder.stages.*.layers.*.dwconv.*", "stages.*.blocks.*.conv_dw.*"),
        ("encoder.stages.*.layers.*.layernorm.*", "stages.*.blocks.*.norm.*"),
        ("encoder.stages.*.layers.*.pwconv*.*", "stages.*.blocks.*.mlp.fc*.*"),
        ("encoder.stages.*.layers.*.grn.*", "stages.*.blocks.*.mlp.grn.*"),
        ("encoder.stages.*.layers.*.layer_scale_parameter", "stages.*.blocks.*.gamma.weight"),
        ("layernorm.*", "head.norm.*"),
        ("classifier.*", "head.fc.*"),
    ],
    assumes: &[("layer_norm_eps", "1e-12")],
    ..Dialect::canonical("hugging face")
};
