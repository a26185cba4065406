//! How libraries name the parameters of a vision transformer.

use crate::models::Dialect;

pub(super) const ALL: &[Dialect] = &[TIMM_POOLED, TIMM, TORCHVISION, HUGGING_FACE, HUGGING_FACE_DINOV2];

/// timm, and the original releases of DeiT, MAE and DINOv2, which share its keys.
const TIMM: Dialect = Dialect {
    // The backbone of a DINOv2 classifier.
    roots: &["backbone."],
    renamings: &[
        ("cls_token", "embed.prefix#0"),
        ("dist_token", "embed.prefix#1"),
        ("reg_token", "embed.prefix#1"),
        ("register_tokens", "embed.prefix#1"),
        ("pos_embed", "embed.position"),
        ("patch_embed.proj.*", "patch_embed.proj.*"),
        ("blocks.*.ls*.gamma", "blocks.*.ls*.weight"),
        ("blocks.*.gamma_*", "blocks.*.ls*.weight"),
        ("blocks.*.norm*.*", "blocks.*.norm*.*"),
        ("blocks.*.attn.*.*", "blocks.*.attn.*.*"),
        ("blocks.*.mlp.*.*", "blocks.*.mlp.*.*"),
        ("norm.*", "norm.*"),
        ("linear_head.*", "head.*"),
    ],
    unused: &["mask_token"],
    ..Dialect::canonical("timm")
};

/// Registers without a class token.
const TIMM_POOLED: Dialect = Dialect {
    without: &["cls_token", "backbone.cls_token", "embed.prefix"],
    assumes: &[("global_pool", "\"avg\"")],
    ..TIMM
};

/// Both spellings of the perceptron: files are older than the code.
const TORCHVISION: Dialect = Dialect {
    renamings: &[
        ("class_token", "embed.prefix"),
        ("encoder.pos_embedding", "embed.position"),
        ("conv_proj.*", "patch_embed.proj.*"),
        ("encoder.layers.encoder_layer_*.ln_*.*", "blocks.*.norm*.*"),
        ("encoder.layers.encoder_layer_*.self_attention.in_proj_*", "blocks.*.attn.qkv.*"),
        ("encoder.layers.encoder_layer_*.self_attention.out_proj.*", "blocks.*.attn.proj.*"),
        ("encoder.layers.encoder_layer_*.mlp.0.*", "blocks.*.mlp.fc1.*"),
        ("encoder.layers.encoder_layer_*.mlp.3.*", "blocks.*.mlp.fc2.*"),
        ("encoder.layers.encoder_layer_*.mlp.linear_*.*", "blocks.*.mlp.fc*.*"),
        ("encoder.ln.*", "norm.*"),
        ("heads.head.*", "head.*"),
    ],
    ..Dialect::canonical("torchvision")
};

/// ViT and DeiT, as files are written and as the modules of version 5 are named.
const HUGGING_FACE: Dialect = Dialect {
    roots: &["vit.", "deit."],
    renamings: &[
        ("embeddings.cls_token", "embed.prefix#0"),
        ("embeddings.distillation_token", "embed.prefix#1"),
        ("embeddings.position_embeddings", "embed.position"),
        ("embeddings.patch_embeddings.projection.*", "patch_embed.proj.*"),
        ("encoder.layer.*.layernorm_before.*", "blocks.*.norm1.*"),
        ("encoder.layer.*.attention.attention.query.*", "blocks.*.attn.qkv.*#0"),
        ("encoder.layer.*.attention.attention.key.*", "blocks.*.attn.qkv.*#1"),
        ("encoder.layer.*.attention.attention.value.*", "blocks.*.attn.qkv.*#2"),
        ("encoder.layer.*.attention.output.dense.*", "blocks.*.attn.proj.*"),
        ("encoder.layer.*.layernorm_after.*", "blocks.*.norm2.*"),
        ("encoder.layer.*.intermediate.dense.*", "blocks.*.mlp.fc1.*"),
        ("encoder.layer.*.output.dense.*", "blocks.*.mlp.fc2.*"),
        ("layers.*.layernorm_before.*", "blocks.*.norm1.*"),
        ("layers.*.attention.q_proj.*", "blocks.*.attn.qkv.*#0"),
        ("layers.*.attention.k_proj.*", "blocks.*.attn.qkv.*#1"),
        ("layers.*.attention.v_proj.*", "blocks.*.attn.qkv.*#2"),
        ("layers.*.attention.o_proj.*", "blocks.*.attn.proj.*"),
        ("layers.*.layernorm_after.*", "blocks.*.norm2.*"),
        ("layers.*.mlp.fc*.*", "blocks.*.mlp.fc*.*"),
        ("layernorm.*", "norm.*"),
        ("classifier.*", "head.*"),
        ("cls_classifier.*", "head.*"),
        ("distillation_classifier.*", "head_dist.*"),
    ],
    unused: &["embeddings.mask_token", "pooler.dense.*"],
    assumes: &[("layer_norm_eps", "1e-12")],
    ..Dialect::canonical("hugging face")
};

/// DINOv2 with and without registers, as files are written and as the modules of version 5 are named.
const HUGGING_FACE_DINOV2: Dialect = Dialect {
    roots: &["dinov2.", "dinov2_with_registers."],
    renamings: &[
        ("embeddings.cls_token", "embed.prefix#0"),
        ("embeddings.register_tokens", "embed.prefix#1"),
        ("embeddings.position_embeddings", "embed.position"),
        ("embeddings.patch_embeddings.projection.*", "patch_embed.proj.*"),
        ("encoder.layer.*.norm*.*", "blocks.*.norm*.*"),
        ("encoder.layer.*.attention.attention.query.*", "blocks.*.attn.qkv.*#0"),
        ("encoder.layer.*.attention.attention.key.*", "blocks.*.attn.qkv.*#1"),
        ("encoder.layer.*.attention.attention.value.*", "blocks.*.attn.qkv.*#2"),
        ("encoder.layer.*.attention.output.dense.*", "blocks.*.attn.proj.*"),
        ("encoder.layer.*.attention.q_proj.*", "blocks.*.attn.qkv.*#0"),
        ("encoder.layer.*.attention.k_proj.*", "blocks.*.attn.qkv.*#1"),
        ("encoder.layer.*.attention.v_proj.*", "blocks.*.attn.qkv.*#2"),
        ("encoder.layer.*.attention.o_proj.*", "blocks.*.attn.proj.*"),
        ("encoder.layer.*.layer_scale*.lambda1", "blocks.*.ls*.weight"),
        ("encoder.layer.*.mlp.*.*", "blocks.*.mlp.*.*"),
        ("layernorm.*", "norm.*"),
        ("classifier.*", "head.*"),
    ],
    unused: &["embeddings.mask_token"],
    ..Dialect::canonical("hugging face")
};
