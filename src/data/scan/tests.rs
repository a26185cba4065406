use super::super::testing::{class, photo};
use super::*;

fn names(samples: &[Sample], class: usize) -> Vec<String> {
    let of_class = samples.iter().filter(|sample| sample.class == class);
    of_class.map(|sample| sample.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn classes_are_in_lexicographic_order_and_a_third_goes_to_val() {
    let dir = tempfile::tempdir().unwrap();
    for (name, count) in [("2", 3), ("10", 2), ("1", 9), ("fox", 5)] {
        class(&dir.path().join(name), count);
    }
    let dataset = Dataset::scan(dir.path(), 7, &ClassSpec::default()).unwrap();
    assert_eq!(dataset.classes, ["1", "10", "2", "fox"]);
    assert_eq!(dataset.split, SplitOrigin::Drawn);
    let counts = |samples: &[Sample]| [0, 1, 2, 3].map(|c| samples.iter().filter(|s| s.class == c).count());
    assert_eq!(counts(&dataset.val), [3, 1, 1, 1]);
    assert_eq!(counts(&dataset.train), [6, 1, 2, 4]);
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
    assert!(dataset.val.iter().all(|sample| !dataset.train.contains(sample)));
    assert_eq!(dataset.all().len(), 19);
}

#[test]
fn the_split_depends_on_the_seed_and_the_class_only() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    class(&one.path().join("fox"), 30);
    class(&one.path().join("owl"), 30);
    // The same photos written in the reverse order, beside another class.
    for i in (0..30).rev() {
        photo(&two.path().join(format!("owl/{i:03}.png")), 8, 8, [i, 0, 0]);
    }
    class(&two.path().join("bear"), 4);
    let first = Dataset::scan(one.path(), 7, &ClassSpec::default()).unwrap();
    let second = Dataset::scan(two.path(), 7, &ClassSpec::default()).unwrap();
    assert_eq!(names(&first.val, 1), names(&second.val, 1));
    assert_ne!(names(&first.val, 0), names(&first.val, 1), "classes are drawn independently");
    let other = Dataset::scan(one.path(), 8, &ClassSpec::default()).unwrap();
    assert_ne!(names(&first.val, 1), names(&other.val, 1));
}

#[test]
fn train_and_val_folders_are_the_split() {
    let dir = tempfile::tempdir().unwrap();
    for (name, count) in [
        ("train/fox", 4),
        ("train/owl", 3),
        ("val/owl", 2),
        ("val/bear", 5),
        ("test/fox", 9),
        ("train/hare", 1),
    ] {
        class(&dir.path().join(name), count);
    }
    fs_err::create_dir_all(dir.path().join("val/fox")).unwrap();
    fs_err::create_dir_all(dir.path().join("val/nothing")).unwrap();
    let dataset = Dataset::scan(dir.path(), 0, &ClassSpec::default()).unwrap();
    assert_eq!(dataset.classes, ["fox", "hare", "owl"]);
    assert_eq!((dataset.train.len(), dataset.val.len()), (8, 2));
    assert_eq!(dataset.split, SplitOrigin::Folders);
    assert!(dataset.val.iter().all(|sample| sample.class == 2));
    let missing = |class: &str| DataWarning::MissingInVal { class: class.into() };
    assert_eq!(
        dataset.warnings,
        [
            DataWarning::OnlyInVal { class: "bear".into(), images: 5 },
            missing("fox"),
            DataWarning::OneImage { class: "hare".into() },
            missing("hare"),
        ]
    );
    assert!(dataset.notes[0].contains("test"), "{:?}", dataset.notes);
}

#[test]
fn one_split_alone_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    class(&dir.path().join("a/train/fox"), 6);
    let train = Dataset::scan(&dir.path().join("a"), 0, &ClassSpec::default()).unwrap();
    assert_eq!((train.train.len(), train.val.len(), train.split), (4, 2, SplitOrigin::Drawn));
    assert_eq!(train.warnings, [DataWarning::OneClass { class: "fox".into() }]);
    class(&dir.path().join("b/val/fox"), 6);
    let val = Dataset::scan(&dir.path().join("b"), 0, &ClassSpec::default()).unwrap();
    assert_eq!((val.train.len(), val.val.len(), val.classes.len()), (0, 6, 1));
}

#[test]
fn a_class_may_be_called_train() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bus", "train", "tram"] {
        class(&dir.path().join(name), 3);
    }
    assert_eq!(Dataset::scan(dir.path(), 0, &ClassSpec::default()).unwrap().classes, ["bus", "train", "tram"]);
}

#[test]
fn camera_folders_odd_names_and_other_files() {
    let dir = tempfile::tempdir().unwrap();
    let fox = dir.path().join("Fuchs (männlich) 狐");
    for name in
        ["Kamera 1/100RECNX/IMG_0001.PNG", "Kamera 2/IMG_0001.JpEg", "a.webp", ".hidden.png", "._a.png"]
    {
        photo(&fox.join(name), 8, 8, [1, 2, 3]);
    }
    for name in ["clip.MP4", "Thumbs.db", "notes.txt", ".DS_Store"] {
        fs_err::write(fox.join(name), "x").unwrap();
    }
    class(&dir.path().join(".cache"), 2);
    class(&dir.path().join("owl"), 3);
    let dataset = Dataset::scan(dir.path(), 1, &ClassSpec::default()).unwrap();
    assert_eq!(dataset.classes, ["Fuchs (männlich) 狐", "owl"]);
    assert_eq!(dataset.all().iter().filter(|sample| sample.class == 0).count(), 3);
    let notes = dataset.notes.join("\n");
    assert!(notes.contains("1 videos") && notes.contains("1 .db, 1 .txt"), "{notes}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_once() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    class(&dir.path().join("data/fox"), 3);
    class(&dir.path().join("elsewhere/nest"), 3);
    symlink(dir.path().join("data"), dir.path().join("data/fox/loop")).unwrap();
    symlink(dir.path().join("elsewhere"), dir.path().join("data/owl")).unwrap();
    symlink(dir.path().join("elsewhere"), dir.path().join("elsewhere/nest/up")).unwrap();
    let dataset = Dataset::scan(&dir.path().join("data"), 0, &ClassSpec::default()).unwrap();
    let count = |class| dataset.all().iter().filter(|sample| sample.class == class).count();
    assert_eq!(dataset.classes, ["fox", "owl"]);
    assert_eq!(count(1), 3);
    // The loop leads through `data` to `owl` once more, and not for ever.
    assert_eq!(count(0), 6);
}

#[test]
fn every_defect_has_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let scan = |name: &str| Dataset::scan(&dir.path().join(name), 0, &ClassSpec::default());
    assert!(matches!(scan("missing"), Err(DataError::NotAFolder { .. })));
    fs_err::create_dir(dir.path().join("empty")).unwrap();
    assert!(matches!(scan("empty"), Err(DataError::NoClasses { .. })));
    photo(&dir.path().join("flat/a.png"), 8, 8, [0; 3]);
    assert!(matches!(scan("flat"), Err(DataError::NoClasses { .. })));
    for folder in ["classes", "split/train"] {
        class(&dir.path().join(folder).join("fox"), 2);
        fs_err::create_dir_all(dir.path().join(folder).join("owl/cam1")).unwrap();
    }
    class(&dir.path().join("split/val/fox"), 2);
    for name in ["classes", "split"] {
        let error = scan(name).unwrap_err();
        assert!(matches!(&error, DataError::EmptyClass { class, .. } if class == "owl"), "{error}");
    }
    fs_err::create_dir_all(dir.path().join("void/val/fox")).unwrap();
    assert!(matches!(scan("void"), Err(DataError::NoClasses { .. })));
}

#[cfg(unix)]
#[test]
fn a_class_name_has_to_be_unicode() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    fs_err::create_dir(dir.path().join(std::ffi::OsStr::from_bytes(b"f\xFFx"))).unwrap();
    assert!(matches!(Dataset::scan(dir.path(), 0, &ClassSpec::default()), Err(DataError::ClassName { .. })));
}

#[test]
fn photos_without_labels_are_none_of_the_evaluation_split() {
    let dir = tempfile::tempdir().unwrap();
    for (name, count) in [("photos/fox", 9), ("photos/owl", 6), ("more/deep/down", 4)] {
        class(&dir.path().join(name), count);
    }
    let dataset = Dataset::scan(&dir.path().join("photos"), 0, &ClassSpec::default()).unwrap();
    // Another way to the same files.
    let around = dir.path().join("more/../photos");
    let found = dataset.unlabelled(&around, 100, 0).unwrap();
    assert_eq!(found.len(), 10, "two thirds of either class");
    let real = |sample: &Sample| sample.path.canonicalize().unwrap();
    assert!(found.iter().all(|photo| dataset.val.iter().all(|val| real(val) != real(photo))));
    assert_eq!(dataset.unlabelled(dir.path(), 100, 0).unwrap().len(), 14);
    let some = dataset.unlabelled(dir.path(), 5, 3).unwrap();
    assert_eq!((some.len(), some.is_sorted()), (5, true));
    let split = dir.path().join("split");
    class(&split.join("train/fox"), 2);
    class(&split.join("val/fox"), 2);
    let split = Dataset::scan(&split, 0, &ClassSpec::default()).unwrap();
    let error = split.unlabelled(&split.root.join("val"), 5, 0).unwrap_err();
    assert!(matches!(error, DataError::OnlyVal { .. }), "{error}");
}
