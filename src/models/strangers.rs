//! Classifiers of families that are not read, told by their keys: for error messages.

use super::{ModelError, Shapes};

/// Parts of keys, all of which occur, and never in a network that a family reads; and what has them.
///
/// A part begins where a name in the key does, unless it begins with a point or an underscore.
const STRANGERS: [(&[&str], &str); 47] = [
    (&["relative_position_bias_table"], "a transformer with relative positions (Swin, BEiT, MaxViT)"),
    (&[".cpb_mlp."], "a transformer with relative positions (Swin V2)"),
    (&["vision_model.encoder."], "the image tower of a CLIP model"),
    (&["transformer.resblocks."], "the image tower of a CLIP model"),
    (&[".xca."], "a network with cross-covariance attention (EdgeNeXt, XCiT)"),
    (&["blocks.0.0.conv_dw.weight", "conv_head.bias"], "a MobileNet V3"),
    (&["features.1.block.0.0.weight", "classifier.3.weight"], "a MobileNet V3"),
    (&[".dw_start.conv.weight"], "a MobileNet V4"),
    (&[".dw_mid.conv.weight"], "a MobileNet V4"),
    (&["denseblock1."], "a DenseNet"),
    (&["trunk_output.block1."], "a RegNet"),
    (&["s1.b1.conv1."], "a RegNet"),
    (&["regnet.encoder."], "a RegNet"),
    (&["Mixed_5b."], "an Inception network"),
    (&["mixed_5b."], "an Inception network"),
    (&["inception3a."], "a GoogLeNet (Inception V1)"),
    (&[".squeeze.weight", ".expand1x1.weight"], "a SqueezeNet"),
    (&["features.0.weight", "classifier.6.weight"], "a VGG or AlexNet"),
    (&["features.0.weight", "pre_logits.fc1.weight"], "a VGG"),
    (&["stage2.0.branch1.", "stage2.0.branch2."], "a ShuffleNet V2"),
    (&["layers.0.weight", "layers.8.0.0.layers.0.weight"], "a MNASNet"),
    (&["transition1.0.", "stage2.0.branches."], "an HRNet"),
    (&["level2.tree1."], "a DLA network"),
    (&["base_layer.0.weight", "level0.0.weight"], "a DLA network"),
    (&[".ghost1.primary_conv."], "a GhostNet"),
    (&[".rbr_dense."], "a RepVGG"),
    (&[".attention_biases"], "a LeViT, TinyViT or EfficientViT"),
    (&[".gating_param"], "a ConViT"),
    (&["blocks_token_only."], "a CaiT"),
    (&[".mlp_tokens."], "an MLP-Mixer"),
    (&[".linear_tokens."], "a ResMLP"),
    (&[".token_mixer."], "a MetaFormer (PoolFormer, CAFormer, InceptionNeXt, FastViT)"),
    (&["patch_embed1.proj.", "block1.0."], "a Pyramid Vision Transformer"),
    (&["transformers.0.blocks."], "a PiT"),
    (&["local_rep.conv_3x3."], "a MobileViT"),
    (&[".conv_kxk.conv.weight", ".transformer.0.attn.qkv."], "a MobileViT"),
    (&["mobilevit."], "a MobileViT"),
    (&["swin."], "a Swin transformer"),
    (&["beit.encoder."], "a BEiT"),
    (&[".mixer.A_log"], "a network of state spaces (Vim, VMamba)"),
    (&[".A_logs"], "a network of state spaces (Vim, VMamba)"),
    (&["to_patch_embedding.", "transformer.layers.0."], "a transformer of vit-pytorch"),
    (
        &["layer1.0.conv1.weight", "layer2.0.shortcut.0.weight"],
        "a ResNet for CIFAR (a stem of 3 × 3 without pooling)",
    ),
    (&["layer0.conv1.weight", "layer1.0.se_module."], "an SENet"),
    (&["block1.rep.0."], "an Xception"),
    (&["stem.conv1.gain"], "an NFNet"),
    (&["0.conv.weight", ".cv1.conv.weight"], "a network of Ultralytics YOLO"),
];

/// Refuses networks of other families by name.
pub(super) fn check(shapes: &Shapes) -> Result<(), ModelError> {
    let occurs = |mark: &&str| shapes.keys().any(|key| has_part(key, mark));
    match STRANGERS.iter().find(|(marks, _)| marks.iter().all(occurs)) {
        Some((_, what)) => Err(ModelError::Stranger { what }),
        None => Ok(()),
    }
}

/// Whether a mark stands in a key where a name begins.
fn has_part(key: &str, mark: &str) -> bool {
    let starts = |at: usize| at == 0 || key[..at].ends_with('.') || mark.starts_with(['.', '_']);
    key.match_indices(mark).any(|(at, _)| starts(at))
}
