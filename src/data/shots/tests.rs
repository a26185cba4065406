use std::path::Path;

use super::super::testing::class;
use super::*;

fn dataset(root: &Path, classes: &[(&str, usize)]) -> Dataset {
    for (name, count) in classes {
        class(&root.join("train").join(name), *count);
        class(&root.join("val").join(name), 1);
    }
    Dataset::scan(root, 0, &crate::recipe::ClassSpec::default()).unwrap()
}

fn of_class(samples: &[Sample], class: usize) -> Vec<String> {
    let mine = samples.iter().filter(|sample| sample.class == class);
    mine.map(|sample| sample.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn draws_k_per_class_and_holds_some_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = dataset(dir.path(), &[("fox", 30), ("owl", 20)]);
    let shots = FewShot::draw(&data, 10, 0.2, 3).unwrap();
    for class in 0..2 {
        let (learn, held) = (of_class(&shots.calibration, class), of_class(&shots.heldout, class));
        assert_eq!((learn.len(), held.len()), (8, 2));
        assert!(held.iter().all(|name| !learn.contains(name)));
    }
    assert!(shots.warnings.is_empty() && shots.bad.is_empty());
    let val: Vec<_> = data.val.iter().map(|sample| &sample.path).collect();
    assert!(shots.calibration.iter().chain(&shots.heldout).all(|sample| !val.contains(&&sample.path)));
}

#[test]
fn a_draw_depends_on_the_seed_and_its_own_class_only() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = dataset(one.path(), &[("fox", 30), ("owl", 30)]);
    let second = dataset(two.path(), &[("bear", 5), ("owl", 30), ("zebra", 2)]);
    let draw = |data: &Dataset, seed| FewShot::draw(data, 8, 0.25, seed).unwrap();
    let owls = of_class(&draw(&first, 5).calibration, 1);
    assert_eq!(owls, of_class(&draw(&second, 5).calibration, 1));
    assert_ne!(owls, of_class(&draw(&first, 6).calibration, 1));
    assert_ne!(owls, of_class(&draw(&first, 5).calibration, 0));
}

#[test]
fn the_draw_of_a_seed_never_changes() {
    let mut items: Vec<u32> = (0..10).collect();
    shuffle(&mut items, &mut generator(1, "shots", "fox"));
    assert_eq!(items, [6, 2, 3, 1, 0, 8, 9, 7, 5, 4]);
}

#[test]
fn too_few_photos_are_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let data = dataset(dir.path(), &[("fox", 2), ("owl", 1)]);
    let shots = FewShot::draw(&data, 4, 0.2, 0).unwrap();
    assert_eq!((of_class(&shots.calibration, 0).len(), of_class(&shots.heldout, 0).len()), (1, 1));
    assert_eq!((of_class(&shots.calibration, 1).len(), of_class(&shots.heldout, 1).len()), (1, 0));
    let few = |class: &str, available| DataWarning::FewImages { class: class.into(), available, wanted: 4 };
    let one = DataWarning::OneImage { class: "owl".into() };
    assert_eq!(shots.warnings, [few("fox", 2), few("owl", 1), one]);
}

#[test]
fn the_next_in_the_draw_replaces_an_unreadable_photo() {
    let dir = tempfile::tempdir().unwrap();
    let data = dataset(dir.path(), &[("fox", 6), ("owl", 4)]);
    let before = FewShot::draw(&data, 3, 0.0, 9).unwrap();
    let broken = before.calibration[1].path.clone();
    fs_err::write(&broken, "").unwrap();
    let after = FewShot::draw(&data, 3, 0.0, 9).unwrap();
    assert_eq!(after.bad.len(), 1);
    assert_eq!(after.bad[0].0, broken);
    assert!(matches!(&after.warnings[..], [DataWarning::BadPhoto { reason }] if reason.contains("0 bytes")));
    let foxes = of_class(&after.calibration, 0);
    assert_eq!(foxes.len(), 3);
    let kept = of_class(&before.calibration, 0);
    assert_eq!(foxes[..2], [kept[0].clone(), kept[2].clone()]);
    assert_eq!(of_class(&before.calibration, 1), of_class(&after.calibration, 1));
}

#[test]
fn zero_shots_take_every_photo() {
    let dir = tempfile::tempdir().unwrap();
    let data = dataset(dir.path(), &[("fox", 6), ("owl", 4)]);
    let shots = FewShot::draw(&data, 0, 0.5, 0).unwrap();
    assert_eq!((shots.calibration.len(), shots.heldout.len()), (5, 5));
}

#[test]
fn every_defect_has_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let data = dataset(dir.path(), &[("fox", 2), ("owl", 4)]);
    for bad in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(FewShot::draw(&data, 2, bad, 0), Err(DataError::HoldoutFraction { .. })), "{bad}");
    }
    let mut no_train = data.clone();
    no_train.train.clear();
    assert!(matches!(FewShot::draw(&no_train, 2, 0.0, 0), Err(DataError::NoTrain { .. })));
    for sample in data.train.iter().filter(|sample| sample.class == 0) {
        fs_err::write(&sample.path, "no image").unwrap();
    }
    let error = FewShot::draw(&data, 2, 0.0, 0).unwrap_err();
    assert!(
        matches!(&error, DataError::UnreadableClass { class, count: 2, .. } if class == "fox"),
        "{error}"
    );
}

#[test]
fn some_are_held_out_and_never_all() {
    let table = [(1, 0.5, 0), (2, 0.2, 1), (2, 0.9, 1), (16, 0.2, 3), (5, 0.99, 4), (5, 0.0, 0)];
    for (count, fraction, expected) in table {
        assert_eq!(held_out(count, fraction), expected, "{count} {fraction}");
    }
}
