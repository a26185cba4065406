//! What checkpoints of other kinds are, as far as their keys tell it: for error messages.

use super::{ModelError, Shapes};

/// A kind of network that no family reads.
struct Stranger {
    /// Parts of keys; all of them must occur, and never in a network that a family reads.
    marks: &'static [&'static str],
    what: &'static str,
    advice: &'static str,
}

const CLASSIFIER: &str = "margay reads image classifiers: ResNet, ViT, ConvNeXt and EfficientNet";
const CROPS: &str = "margay reads image classifiers; let the detector cut out crops and classify those";
const TOWER: &str = "save its image tower as a classifier of its own, for instance as a timm model";

const STRANGERS: [Stranger; 17] = [
    Stranger { marks: &["roi_heads."], what: "an object detector", advice: CROPS },
    Stranger { marks: &["rpn."], what: "an object detector", advice: CROPS },
    Stranger { marks: &["class_embed."], what: "an object detector", advice: CROPS },
    Stranger { marks: &["class_labels_classifier."], what: "an object detector", advice: CROPS },
    Stranger { marks: &[".dfl.conv."], what: "an object detector (YOLO)", advice: CROPS },
    Stranger { marks: &[".cv2.", ".cv3.", ".bn."], what: "an object detector (YOLO)", advice: CROPS },
    Stranger { marks: &["aux_classifier."], what: "a segmentation network", advice: CLASSIFIER },
    Stranger { marks: &["decode_head."], what: "a segmentation network", advice: CLASSIFIER },
    Stranger {
        marks: &["token_embedding.weight"],
        what: "a model of texts and images (CLIP)",
        advice: TOWER,
    },
    Stranger { marks: &["text_model."], what: "a model of texts and images", advice: TOWER },
    Stranger { marks: &["vision_model."], what: "an image tower of Hugging Face's CLIP", advice: TOWER },
    Stranger { marks: &["word_embeddings."], what: "a language model", advice: CLASSIFIER },
    Stranger {
        marks: &["relative_position_bias_table"],
        what: "a transformer with relative positions (Swin, BEiT)",
        advice: CLASSIFIER,
    },
    Stranger {
        marks: &[".cpb_mlp."],
        what: "a transformer with relative positions (Swin V2)",
        advice: CLASSIFIER,
    },
    Stranger { marks: &[".xca."], what: "EdgeNeXt or XCiT", advice: CLASSIFIER },
    Stranger {
        marks: &["features.1.conv.0.0.weight", "features.18.0.weight"],
        what: "MobileNet V2",
        advice: CLASSIFIER,
    },
    Stranger {
        marks: &["blocks.0.0.conv_dw.weight", "conv_head.bias"],
        what: "MobileNet V3",
        advice: CLASSIFIER,
    },
];

/// Refuses networks of another kind by name.
pub(super) fn check(shapes: &Shapes) -> Result<(), ModelError> {
    let occurs = |mark: &&str| shapes.keys().any(|key| key.contains(mark));
    match STRANGERS.iter().find(|stranger| stranger.marks.iter().all(occurs)) {
        Some(Stranger { what, advice, .. }) => Err(ModelError::Stranger { what, advice }),
        None => Ok(()),
    }
}
