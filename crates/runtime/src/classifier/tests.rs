use std::collections::BTreeMap;

use margay_core::{GraphBuilder, Limits, Linear, Op, Params, Preprocess, Provenance, Resize, Shape};
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

fn new(model: &SparseModel) -> Result<Classifier, ClassifierError> {
    Classifier::from_model(model, &SessionOptions { threads: 1, ..SessionOptions::default() })
}

#[test]
fn names_what_is_on_a_photo() {
    let mut classifier = new(&colours(Resize::ShortSide(5))).unwrap();
    for (colour, label) in [([200, 30, 40], "red"), ([0, 90, 20], "green"), ([10, 0, 250], "blue")] {
        let prediction = classifier.classify(&photo(colour)).unwrap();
        assert_eq!((prediction.best().label, prediction.note()), (label, None));
    }
}

#[test]
fn a_batch_gives_the_logits_of_its_photos() {
    let mut classifier = new(&colours(Resize::Squash)).unwrap();
    let photos = [photo([255, 0, 0]), photo([0, 0, 255])];
    let mut images = vec![0.0; 2 * classifier.preprocessor().image_len()];
    for (photo, slot) in photos.iter().zip(images.chunks_exact_mut(48)) {
        classifier.preprocessor().run(photo, slot);
    }
    let logits = classifier.logits(&images).unwrap();
    for (photo, logits) in photos.iter().zip(logits.chunks_exact(3)) {
        assert_eq!(classifier.classify(photo).unwrap().logits(), logits);
    }
    assert!(matches!(classifier.logits(&images[1..]), Err(RuntimeError::InputLength { .. })));
}

#[test]
fn opens_a_file_and_names_one_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("colours.margay");
    colours(Resize::Squash).write(&path).unwrap();
    let mut classifier = Classifier::open(&path, &SessionOptions::default()).unwrap();
    assert_eq!(classifier.classify(&photo([0, 255, 0])).unwrap().best().label, "green");
    let error = Classifier::open(dir.path().join("none.margay"), &SessionOptions::default()).unwrap_err();
    assert!(error.to_string().contains("none.margay"), "{error}");
}

#[test]
fn a_model_that_contradicts_itself_is_refused() {
    let refused = |change: &dyn Fn(&mut SparseModel)| {
        let mut model = colours(Resize::Squash);
        change(&mut model);
        match new(&model) {
            Err(ClassifierError::Format(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(&|model| drop(model.labels.pop())).contains("2 labels for 3 classes"));
    assert!(refused(&|model| model.preprocess.size = [4, 5]).contains("makes [4, 5] pixels"));
    for side in [0, 40, usize::MAX] {
        let fit = Resize::Fit { sides: [4, side], fill: [0; 3] };
        for resize in [Resize::ShortSide(side), Resize::SquashTo([side, 4]), fit] {
            let text = refused(&|model| model.preprocess.resize = resize);
            assert!(text.contains("resizes to"), "{text}");
        }
    }
}

#[test]
fn a_model_that_takes_too_much_is_refused() {
    let model = colours(Resize::Squash);
    let options = SessionOptions { limits: Limits::with_memory(100), ..SessionOptions::default() };
    let error = Classifier::from_model(&model, &options).unwrap_err();
    assert!(matches!(error, ClassifierError::Runtime(RuntimeError::Limit(_))), "{error:?}");
}

#[test]
fn a_network_that_overflows_has_no_answer() {
    let mut model = colours(Resize::Squash);
    let weight = ArrayD::from_elem(IxDyn(&[3, 3]), f32::MAX);
    model.weights.insert("fc.weight".to_owned(), margay_core::Weight::Dense(weight));
    let mut classifier = new(&model).unwrap();
    assert!(matches!(classifier.classify(&photo([255; 3])), Err(RuntimeError::NotANumber)));
}

#[test]
fn files_are_answered_in_order_whatever_the_threads_and_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for at in 0..150_u8 {
        let path = dir.path().join(format!("{at}.bmp"));
        match at {
            7 => fs_err::write(&path, "no photo").unwrap(),
            9 => {}
            _ => image::RgbImage::from_pixel(5, 3, image::Rgb([at, 100, 2])).save(&path).unwrap(),
        }
        paths.push(path);
    }
    let model = colours(Resize::Squash);
    let normal = model.preprocess.normalization;
    let answers = |threads, memory| {
        let limits = Limits::with_memory(memory);
        let options = SessionOptions { threads, limits, ..SessionOptions::default() };
        let mut classifier = Classifier::from_model(&model, &options).unwrap();
        let told = |answer: Result<Prediction, PredictionError>| {
            answer.map(|prediction| prediction.logits().to_vec()).map_err(|error| error.to_string())
        };
        (classifier.batch(), classifier.classify_files(&paths).into_iter().map(told).collect::<Vec<_>>())
    };
    let (batch, all) = answers(1, Limits::DEFAULT.memory);
    assert_eq!((batch, all.len()), (BATCH as usize, paths.len()));
    for (at, answer) in all.iter().enumerate() {
        match answer {
            Ok(logits) => {
                // The mean of the red plane, as the preprocessing normalises it and bf16 stores it.
                let red = (at as f32 / 255.0 - normal.mean[0]) / normal.std[0];
                assert!((logits[0] - red).abs() < 0.01, "{at}: {logits:?} {red}");
            }
            Err(error) if at == 7 => assert!(error.contains("not a JPEG"), "{error}"),
            Err(error) => assert!(at == 9 && error.starts_with("cannot be read"), "{at}: {error}"),
        }
    }
    let (small, few_at_a_time) = answers(3, 60_000);
    assert!(small < BATCH as usize, "{small} at a time");
    assert_eq!(few_at_a_time, all);
}
