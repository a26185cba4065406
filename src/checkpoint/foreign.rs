//! Files and tensors that are something else than a classifier's weights: what they are, and what to do.

use std::path::Path;

/// What a file is instead, and what to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    pub what: &'static str,
    pub advice: &'static str,
}

/// A file format: its name's ending decides where the content says nothing.
struct Format {
    matches: fn(&[u8]) -> bool,
    ending: Option<&'static str>,
    foreign: Foreign,
}

/// Bytes of a file that [`by_content`] wants to see.
pub(super) const HEAD: u64 = 512;

const EXPORT: &str = "margay reads the weights that PyTorch saved (.safetensors, .pth, .pt, .bin, .ckpt); \
                      get those, or save the state dict of the PyTorch model";

/// Formats by their first bytes.
const FORMATS: &[Format] = &[
    Format {
        matches: |head| head.starts_with(b"version https://git-lfs"),
        ending: None,
        foreign: Foreign {
            what: "a Git LFS pointer, not the weights themselves",
            advice: "run `git lfs pull` in the repository, or download the file itself",
        },
    },
    Format {
        matches: |head| {
            let text = head.trim_ascii_start().to_ascii_lowercase();
            text.starts_with(b"<!doctype") || text.starts_with(b"<html") || text.starts_with(b"<head")
        },
        ending: None,
        foreign: Foreign {
            what: "a web page that was saved under this name",
            advice: "download the file behind the page's download link",
        },
    },
    Format {
        matches: |head| head.trim_ascii_start().starts_with(b"<"),
        ending: None,
        foreign: Foreign {
            what: "an XML document, such as an error of a download server or an OpenVINO model",
            advice: "download the PyTorch weights",
        },
    },
    Format {
        matches: |head| head.starts_with(b"\x89HDF\r\n\x1a\n"),
        ending: Some("h5"),
        foreign: Foreign { what: "an HDF5 file, as Keras and TensorFlow save weights", advice: EXPORT },
    },
    Format {
        matches: |head| head.get(4..8) == Some(b"TFL3"),
        ending: Some("tflite"),
        foreign: Foreign { what: "a TensorFlow Lite model", advice: EXPORT },
    },
    Format {
        matches: |head| head.starts_with(b"\x08\x01\x12"),
        ending: Some("pb"),
        foreign: Foreign { what: "a TensorFlow SavedModel", advice: EXPORT },
    },
    Format {
        // A protobuf whose first field is the version, followed by the producer, a domain or the graph.
        matches: |head| matches!(head, [0x08, version, tag, ..] if *version < 0x20 && [0x12, 0x1A, 0x22, 0x3A, 0x42].contains(tag)),
        ending: Some("onnx"),
        foreign: Foreign { what: "an ONNX model", advice: EXPORT },
    },
    Format {
        matches: |head| head.starts_with(b"GGUF"),
        ending: Some("gguf"),
        foreign: Foreign { what: "a GGUF file, as language models are kept in", advice: EXPORT },
    },
    Format {
        matches: |_| false,
        ending: Some("msgpack"),
        foreign: Foreign { what: "weights of Flax", advice: EXPORT },
    },
    Format {
        matches: |head| {
            first_entry(head).is_some_and(|name| name.ends_with(b".npy")) || head.starts_with(b"\x93NUMPY")
        },
        ending: None,
        foreign: Foreign { what: "NumPy arrays", advice: EXPORT },
    },
    Format {
        matches: |head| {
            first_entry(head).is_some_and(|name| name == b"metadata.json" || name == b"config.json")
        },
        ending: Some("keras"),
        foreign: Foreign { what: "a Keras model", advice: EXPORT },
    },
    Format {
        matches: |head| head.starts_with(b"\x89MARGAY\n"),
        ending: None,
        foreign: Foreign {
            what: "a finished specialist",
            advice: "use it with `margay predict`, `eval` or `inspect`; pass the checkpoint that it was made from",
        },
    },
    Format {
        matches: |head| {
            head.starts_with(b"\xFF\xD8\xFF") || head.starts_with(b"\x89PNG") || head.starts_with(b"GIF8")
        },
        ending: None,
        foreign: Foreign { what: "an image", advice: "pass the checkpoint with --model, photos with --data" },
    },
    Format {
        matches: |head| {
            [b"\x1F\x8B".as_slice(), b"7z\xBC\xAF", b"\x28\xB5\x2F\xFD", b"\xFD7zXZ", b"BZh", b"Rar!"]
                .iter()
                .any(|magic| head.starts_with(magic))
        },
        ending: None,
        foreign: Foreign { what: "a compressed archive", advice: "unpack it first" },
    },
    Format {
        matches: |head| head.get(257..262) == Some(b"ustar"),
        ending: None,
        foreign: Foreign {
            what: "a tar archive",
            advice: "unpack it and pass the file with the weights; if `storages` and `tensors` are in it, it is a model of \
                     the first versions of PyTorch: load it there and save its state dict again",
        },
    },
    Format {
        matches: |head| matches!(head.trim_ascii_start().first(), Some(b'{' | b'[')),
        ending: None,
        foreign: JSON,
    },
    Format {
        matches: <[u8]>::is_empty,
        ending: None,
        foreign: Foreign { what: "an empty file (0 bytes)", advice: "download or copy it again" },
    },
];

/// A zip archive that `torch.save` did not write.
pub(super) const ARCHIVE: Foreign = Foreign {
    what: "a zip archive that does not hold one checkpoint (`data.pkl`)",
    advice: "unpack it, and pass the file with the weights",
};

/// Configuration where weights were expected.
pub(super) const JSON: Foreign =
    Foreign { what: "JSON text", advice: "pass the file with the weights, or the folder that holds both" };

/// What a file is, by its first bytes or else by the ending of its name.
pub(super) fn by_content(path: &Path, head: &[u8]) -> Option<Foreign> {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    let content = FORMATS.iter().find(|format| (format.matches)(head));
    let named =
        || FORMATS.iter().find(|format| format.ending.is_some() && format.ending == ending.as_deref());
    content.or_else(named).map(|format| format.foreign)
}

/// Name of the first file in a zip archive.
fn first_entry(head: &[u8]) -> Option<&[u8]> {
    let header = head.strip_prefix(b"PK\x03\x04")?;
    let length = u16::from_le_bytes([*header.get(22)?, *header.get(23)?]);
    header.get(26..26 + usize::from(length))
}

const CLASSIFIER: &str = "margay compresses image classifiers; pass the weights of one";

/// Kinds of networks by parts of keys that no image classifier has.
const KINDS: &[(&[&str], Foreign)] = &[
    (
        &[".lora_A.", ".lora_B.", ".lora_down.", ".lora_up.", ".hada_w1_a", "lora_magnitude_vector"],
        Foreign {
            what: "a LoRA adapter, which holds changes to a model and not the model",
            advice: "merge it into its base model (PEFT: `merge_and_unload()`) and save the result",
        },
    ),
    (
        &[
            "rpn.head.",
            "roi_heads.",
            "head.classification_head.",
            "bbox_embed.",
            "bbox_predictor.",
            "bbox_head.",
            "box_head.",
            ".dfl.conv.",
            "proposal_generator.",
            "anchor_grid",
        ],
        Foreign {
            what: "a detection model",
            advice: "margay compresses image classifiers; cut the animals out with the detector, and pass the \
                     classifier that names them",
        },
    ),
    (
        &["decode_head.", "aux_classifier.", "segmentation_head.", "mask_decoder.", "mask_head."],
        Foreign { what: "a segmentation model", advice: CLASSIFIER },
    ),
    (
        &["visual.transformer.", "visual.blocks.", "visual.trunk.", "vision_model.encoder."],
        Foreign {
            what: "a CLIP model with its text tower, which has no classifier",
            advice: "finetune the image tower as a classifier (timm: `vit_*_clip_*`), and pass that",
        },
    ),
    (
        &["token_embedding.", "word_embeddings.", "embed_tokens.", "wte.weight"],
        Foreign { what: "a text model, such as the text tower of CLIP", advice: CLASSIFIER },
    ),
    (
        &["time_embedding.linear_1.", "time_embed.0."],
        Foreign { what: "a diffusion model", advice: CLASSIFIER },
    ),
    (
        &["decoder_embed.", "decoder_pos_embed"],
        Foreign {
            what: "a masked autoencoder with its decoder, which has no classifier",
            advice: "pass the checkpoint that was finetuned as a classifier",
        },
    ),
];

/// Marks of text towers: an image tower beside them makes a CLIP model.
const TEXT: [&str; 2] = ["token_embedding.", "text_projection"];

/// What the tensors with these keys are, if no image classifier.
pub(super) fn by_keys<'k>(keys: &(impl Iterator<Item = &'k str> + Clone)) -> Option<Foreign> {
    let any = |marks: &[&str]| keys.clone().any(|key| marks.iter().any(|mark| has_part(key, mark)));
    if keys.clone().next().is_some() && is_optimizer(keys.clone()) {
        return Some(OPTIMIZER_ONLY);
    }
    let kind = KINDS.iter().find(|(marks, kind)| {
        let clip = kind.what.starts_with("a CLIP");
        any(marks) && (!clip || any(&TEXT))
    });
    kind.map(|(_, kind)| *kind)
}

/// Whether `mark` stands in a key where a name begins.
fn has_part(key: &str, mark: &str) -> bool {
    let inside = || key.match_indices(mark).any(|(at, _)| key[..at].ends_with('.'));
    mark.starts_with('.') && key.contains(mark) || key.starts_with(mark) || inside()
}

/// What an optimiser keeps per step or per weight.
const OPTIMIZER: [&str; 5] = ["exp_avg", "exp_avg_sq", "momentum_buffer", "max_exp_avg_sq", "step"];

/// The state of an optimiser without the weights that it trains.
const OPTIMIZER_ONLY: Foreign = Foreign {
    what: "the state of an optimiser without the weights of a model",
    advice: "pass the checkpoint that holds the model's state dict, saved beside it or one file earlier",
};

/// Whether every tensor is kept by an optimiser.
fn is_optimizer<'k>(mut keys: impl Iterator<Item = &'k str>) -> bool {
    keys.all(|key| key.rsplit('.').next().is_some_and(|last| OPTIMIZER.contains(&last)))
}

/// Modules whose pickled classes tell what a whole model is.
const MODULES: &[(&[&str], Foreign)] = &[
    (
        &["ultralytics.", "models.yolo.", "models.common.", "yolov5", "detectron2.", "mmdet.", "effdet."],
        Foreign {
            what: "a detection model that was saved as a whole program",
            advice: "margay compresses image classifiers; cut the animals out with the detector, and pass the \
                     classifier that names them",
        },
    ),
    (
        &["sklearn.", "xgboost.", "lightgbm.", "joblib."],
        Foreign { what: "a model of another library, saved with pickle", advice: EXPORT },
    ),
];

/// What a pickled class belongs to.
pub(super) fn by_class(class: &str) -> Option<Foreign> {
    let known = MODULES.iter().find(|(modules, _)| modules.iter().any(|module| class.starts_with(module)));
    known.map(|(_, foreign)| *foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_content_and_else_by_name() {
        let table: [(&str, &[u8], &str); 20] = [
            ("a.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
            ("a.pth", b"\n <!DOCTYPE html><html>", "web page"),
            ("a.pth", b"<HTML lang=en>", "web page"),
            ("a.pth", b"<?xml version=\"1.0\"?><Error>", "XML"),
            ("a.pth", b"\x89HDF\r\n\x1a\n", "HDF5"),
            ("a.bin", b"\x1c\0\0\0TFL3", "Lite"),
            ("a.bin", b"\x08\x01\x12\x05", "SavedModel"),
            ("a.bin", b"\x08\x07\x12\x07pytorch", "ONNX"),
            ("a.onnx", b"?", "ONNX"),
            ("a.pth", b"", "empty"),
            ("a.bin", b"GGUF\x03", "GGUF"),
            ("a.msgpack", b"\x81", "Flax"),
            ("a.bin", b"\x93NUMPY", "NumPy"),
            ("a.pth", b"PK\x03\x04................\0\0\0\0\0\0\x05\0\0\0a.npy", "NumPy"),
            ("a.bin", b"\x89MARGAY\n", "specialist"),
            ("a.pth", b"\xFF\xD8\xFF\xE0", "image"),
            ("a.tar.gz", b"\x1F\x8B\x08", "archive"),
            ("a.pth", b"{\"labels\": []}", "JSON"),
            ("a.h5", b"nothing", "HDF5"),
            ("a.keras", b"PK\x03\x04", "Keras"),
        ];
        for (name, head, what) in table {
            let found = by_content(Path::new(name), head);
            assert!(found.is_some_and(|f| f.what.contains(what)), "{name} {what}: {found:?}");
        }
        let own: [(&str, &[u8]); 3] = [
            ("a.pth", b"PK\x03\x04................\0\0\0\0\0\0\x0b\0\0\0zip/data.pkl"),
            ("a.pth", b"\x80\x02\x8a"),
            ("a.safetensors", b"\x40\0\0\0\0\0\0\0{\"a\":"),
        ];
        for (name, head) in own {
            assert_eq!(by_content(Path::new(name), head), None, "{name}");
        }
    }

    #[test]
    fn networks_that_are_no_classifier_are_told_by_their_keys() {
        let table: [(&[&str], &str); 9] = [
            (&["base_model.model.vit.layers.0.attention.q_proj.lora_A.weight"], "LoRA"),
            (&["backbone.body.conv1.weight", "rpn.head.conv.0.0.weight"], "detection"),
            (&["0.weight", "22.dfl.conv.weight"], "detection"),
            (&["class_embed.weight", "bbox_embed.layers.0.weight"], "detection"),
            (&["conv1.weight", "aux_classifier.0.weight"], "segmentation"),
            (&["visual.transformer.resblocks.0.ln_1.weight", "text_projection"], "text tower"),
            (&["text_model.embeddings.token_embedding.weight"], "text model"),
            (&["blocks.0.norm1.weight", "decoder_embed.weight"], "autoencoder"),
            (&["time_embed.0.weight"], "diffusion"),
        ];
        for (keys, what) in table {
            let found = by_keys(&keys.iter().copied());
            assert!(found.is_some_and(|f| f.what.contains(what)), "{what}: {found:?}");
        }
        let classifiers: [&[&str]; 3] = [
            &["visual.trunk.blocks.0.norm1.weight", "head.weight"],
            &["layer1.0.conv1.weight", "fc.weight"],
            &["stages.0.blocks.0.mlp.grn.weight", "head.fc.weight"],
        ];
        for keys in classifiers {
            assert_eq!(by_keys(&keys.iter().copied()), None, "{keys:?}");
        }
        assert!(is_optimizer(["state.0.exp_avg", "state.0.step"].into_iter()));
        assert!(!is_optimizer(["state.0.exp_avg", "fc.weight"].into_iter()));
        assert!(by_class("ultralytics.nn.tasks.DetectionModel").is_some());
        assert!(by_class("torchvision.models.resnet.ResNet").is_none());
    }
}
