//! Classifiers of families that are not read, told by their keys: for error messages.

use super::{ModelError, Shapes};

/// Parts of keys, all of which occur, and never in a network that a family reads; and what has them.
const STRANGERS: [(&[&str], &str); 11] = [
    (&["relative_position_bias_table"], "a transformer with relative positions (Swin, BEiT, MaxViT)"),
    (&[".cpb_mlp."], "a transformer with relative positions (Swin V2)"),
    (&["vision_model.encoder."], "the image tower of a CLIP model"),
    (&[".xca."], "a network with cross-covariance attention (EdgeNeXt, XCiT)"),
    (&["features.1.conv.0.0.weight", "features.18.0.weight"], "a MobileNet V2"),
    (&["blocks.0.0.conv_dw.weight", "conv_head.bias"], "a MobileNet V3"),
    (&["features.1.block.0.0.weight", "classifier.3.weight"], "a MobileNet V3"),
    (&["denseblock1."], "a DenseNet"),
    (&["trunk_output.block1."], "a RegNet"),
    (&["s1.b1.conv1."], "a RegNet"),
    (&["Mixed_5b."], "an Inception network"),
];

/// Refuses networks of other families by name.
pub(super) fn check(shapes: &Shapes) -> Result<(), ModelError> {
    let occurs = |mark: &&str| shapes.keys().any(|key| key.contains(mark));
    match STRANGERS.iter().find(|(marks, _)| marks.iter().all(occurs)) {
        Some((_, what)) => Err(ModelError::Stranger { what }),
        None => Ok(()),
    }
}
