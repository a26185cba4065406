use margay_core::Preprocess;

use super::super::testing::photo;
use super::*;
use crate::progress::Silent;

/// Photos of red `i` for `i` in `0..count`; classes alternate.
fn samples(folder: &std::path::Path, count: usize) -> Vec<Sample> {
    let make = |i: usize| {
        let path = folder.join(format!("{i:03}.png"));
        photo(&path, 4, 4, [i as u8, 0, 0]);
        Sample { path, class: i % 2 }
    };
    (0..count).map(make).collect()
}

fn red(loaded: &Loaded, preprocessor: &Preprocessor) -> Vec<u8> {
    let normalization = preprocessor.spec().normalization;
    let byte = |value: f32| ((value * normalization.std[0] + normalization.mean[0]) * 255.0).round() as u8;
    loaded.images.outer_iter().map(|image| byte(image[[0, 2, 1]])).collect()
}

#[test]
fn order_is_kept_and_bad_photos_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let samples = samples(dir.path(), 70);
    let bad = [0, 33, 69];
    for i in bad {
        fs_err::write(&samples[i].path, [0xFF, 0xD8, 0xFF, 0xE0]).unwrap();
    }
    let preprocessor = Preprocessor::new(&Preprocess::squash(4));
    let loaded = load(&samples, &preprocessor, &mut Silent).unwrap();
    let good: Vec<usize> = (0..70).filter(|i| !bad.contains(i)).collect();
    assert_eq!(loaded.len(), 67);
    assert_eq!(loaded.images.shape(), [67, 3, 4, 4]);
    assert!(loaded.images.is_standard_layout());
    assert_eq!(red(&loaded, &preprocessor), good.iter().map(|i| *i as u8).collect::<Vec<_>>());
    assert_eq!(loaded.classes, good.iter().map(|i| i % 2).collect::<Vec<_>>());
    assert_eq!(loaded.paths, good.iter().map(|i| samples[*i].path.clone()).collect::<Vec<_>>());
    let skipped: Vec<_> = loaded.bad.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(skipped, bad.map(|i| samples[i].path.clone()));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let samples = samples(dir.path(), 40);
    let preprocessor = Preprocessor::new(&Preprocess::torchvision(7));
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| load(&samples, &preprocessor, &mut Silent).unwrap().images)
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn a_class_without_a_readable_photo_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let samples = samples(dir.path(), 4);
    for i in [1, 3] {
        fs_err::write(&samples[i].path, "").unwrap();
    }
    let preprocessor = Preprocessor::new(&Preprocess::squash(4));
    let loaded = load(&samples, &preprocessor, &mut Silent).unwrap();
    let names = ["fox".to_owned(), "owl".to_owned(), "not asked for".to_owned()];
    let error = loaded.check_classes(&samples, &names).unwrap_err();
    assert!(
        matches!(&error, DataError::UnreadableClass { class, count: 2, .. } if class == "owl"),
        "{error}"
    );
    assert!(error.to_string().contains("001.png"), "{error}");
    let error = load(&[samples[1].clone(), samples[3].clone()], &preprocessor, &mut Silent).unwrap_err();
    assert!(matches!(error, DataError::NothingReadable { count: 2, .. }));
    assert!(load(&[], &preprocessor, &mut Silent).unwrap().is_empty());
}

#[test]
fn a_shared_small_square_is_the_hint() {
    let dir = tempfile::tempdir().unwrap();
    let hint = |sizes: &[[u32; 2]]| {
        let make = |(i, [width, height]): (usize, &[u32; 2])| {
            let path = dir.path().join(format!("{i}.png"));
            photo(&path, *width, *height, [0; 3]);
            Sample { path, class: 0 }
        };
        image_size_hint(&sizes.iter().enumerate().map(make).collect::<Vec<_>>())
    };
    assert_eq!(hint(&[[64, 64], [64, 64]]), Some(64));
    assert_eq!(hint(&[[224, 224]]), Some(224));
    assert_eq!(hint(&[[64, 64], [64, 63]]), None);
    assert_eq!(hint(&[[64, 32], [64, 32]]), None);
    assert_eq!(hint(&[[225, 225]]), None);
    assert_eq!(hint(&[]), None);
}
