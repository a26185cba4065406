use std::collections::BTreeMap;

use margay_core::{GraphBuilder, Linear, Op, Params, Preprocess, Provenance, Resize, Shape};
use ndarray::{ArrayD, IxDyn};

use super::*;

/// The mean of each channel is the logit of its colour.
fn colours(resize: Resize) -> SparseModel {
    let (mut builder, input) = GraphBuilder::new("colours", Shape::map(3, 4, 4));
    let pool = builder.push("pool", Op::GlobalAvgPool, &[input]);
    let linear = Linear { in_features: 3, out_features: 3, bias: false };
    builder.push("fc", Op::Linear(linear), &[pool]);
    let mut params = Params::new();
    let weight = ArrayD::from_shape_fn(IxDyn(&[3, 3]), |at| f32::from(u8::from(at[0] == at[1])));
    params.insert("fc.weight", weight);
    let labels = ["red", "green", "blue"].map(str::to_owned).to_vec();
    let preprocess = Preprocess { resize, ..Preprocess::squash(4) };
    let graph = builder.finish().unwrap();
    SparseModel::pack(graph, &params, &BTreeMap::new(), labels, preprocess, Provenance::default()).unwrap()
}

fn photo(colour: [u8; 3]) -> Photo {
    Photo::from_rgb(5, 3, colour.repeat(15)).unwrap()
}

fn new(model: SparseModel) -> Result<Classifier, ClassifierError> {
    Classifier::from_model(model, &SessionOptions { threads: 1, ..SessionOptions::default() })
}

#[test]
fn names_what_is_on_a_photo() {
    let mut classifier = new(colours(Resize::ShortSide(5))).unwrap();
    for (colour, label) in [([200, 30, 40], "red"), ([0, 90, 20], "green"), ([10, 0, 250], "blue")] {
        let prediction = classifier.classify(&photo(colour)).unwrap();
        assert_eq!(prediction.label, label);
        assert_eq!(prediction.top[0], (prediction.label.clone(), prediction.probability));
        assert!(prediction.top.is_sorted_by(|a, b| a.1 >= b.1), "{prediction:?}");
        assert!((prediction.top.iter().map(|(_, p)| p).sum::<f32>() - 1.0).abs() < 1e-6);
    }
}

#[test]
fn a_batch_gives_the_logits_of_its_photos() {
    let mut classifier = new(colours(Resize::Squash)).unwrap();
    let photos = [photo([255, 0, 0]), photo([0, 0, 255])];
    let mut images = vec![0.0; 2 * classifier.preprocessor().image_len()];
    for (photo, slot) in photos.iter().zip(images.chunks_exact_mut(48)) {
        classifier.preprocessor().run(photo, slot);
    }
    let logits = classifier.logits(&images).unwrap();
    for (photo, logits) in photos.iter().zip(logits.chunks_exact(3)) {
        assert_eq!(classifier.classify(photo).unwrap(), Prediction::new(logits, classifier.labels()));
    }
    assert!(matches!(classifier.logits(&images[1..]), Err(RuntimeError::InputLength { .. })));
}

#[test]
fn opens_a_file_and_names_one_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("colours.margay");
    colours(Resize::Squash).write(&path).unwrap();
    let mut classifier = Classifier::open(&path, &SessionOptions::default()).unwrap();
    assert_eq!(classifier.classify(&photo([0, 255, 0])).unwrap().label, "green");
    let error = Classifier::open(dir.path().join("none.margay"), &SessionOptions::default()).unwrap_err();
    assert!(error.to_string().contains("none.margay"), "{error}");
}

#[test]
fn a_model_that_contradicts_itself_is_refused() {
    let mut model = colours(Resize::Squash);
    model.labels.pop();
    assert!(matches!(new(model), Err(ClassifierError::LabelCount { labels: 2, outputs: 3 })));
    let mut model = colours(Resize::Squash);
    model.preprocess.size = [4, 5];
    assert!(matches!(new(model), Err(ClassifierError::InputLength { made: 60, read: 48 })));
    for side in [0, 40, usize::MAX] {
        let fit = Resize::Fit { sides: [4, side], fill: [0; 3] };
        for resize in [Resize::ShortSide(side), Resize::SquashTo([side, 4]), fit] {
            let refused = new(colours(resize));
            assert!(matches!(refused, Err(ClassifierError::Resize { .. })), "{resize:?}");
        }
    }
}

#[test]
fn softmax_survives_large_logits() {
    let probabilities = softmax(&[1000.0, 1000.0, -1000.0]);
    assert_eq!(probabilities, [0.5, 0.5, 0.0]);
    assert!(softmax(&[]).is_empty());
}
