use super::super::Kind;
use super::super::testing::{class, photo};
use super::*;
use crate::progress::Silent;

fn spec() -> ClassSpec {
    ClassSpec::default()
}

fn level(level: usize) -> ClassSpec {
    ClassSpec { level: Some(level), ..spec() }
}

/// A folder with such class folders, and a few photos in each.
fn folders(classes: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in classes {
        class(&dir.path().join(name), 3);
    }
    dir
}

fn scan(dir: &tempfile::TempDir) -> Result<Dataset, DataError> {
    Dataset::scan(dir.path(), 0, &spec())
}

/// Numbers of photos to learn from and to evaluate on.
fn sizes(dataset: &Dataset) -> (usize, usize) {
    (dataset.train.len(), dataset.val.len())
}

fn refused_as_cameras(dir: &tempfile::TempDir, known: &[&str]) -> bool {
    let known: Vec<Label> = known.iter().map(|name| (*name).to_owned().into()).collect();
    matches!(scan(dir).unwrap().check_classes(&known), Err(DataError::Cameras { .. }))
}

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
    let dataset = Dataset::scan(dir.path(), 7, &spec()).unwrap();
    assert_eq!(dataset.classes, ["1", "10", "2", "fox"]);
    assert_eq!(dataset.split, SplitOrigin::Drawn);
    let counts = |samples: &[Sample]| [0, 1, 2, 3].map(|c| samples.iter().filter(|s| s.class == c).count());
    assert_eq!(counts(&dataset.val), [3, 1, 1, 1]);
    assert_eq!(counts(&dataset.train), [6, 1, 2, 4]);
    assert_eq!(dataset.warnings, [DataWarning::Optimistic]);
    assert!(dataset.split.record().optimistic);
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
    let first = Dataset::scan(one.path(), 7, &spec()).unwrap();
    let second = Dataset::scan(two.path(), 7, &spec()).unwrap();
    assert_eq!(names(&first.val, 1), names(&second.val, 1));
    assert_ne!(names(&first.val, 0), names(&first.val, 1), "classes are drawn independently");
    let other = Dataset::scan(one.path(), 8, &spec()).unwrap();
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
    let dataset = Dataset::scan(dir.path(), 0, &spec()).unwrap();
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
    assert_eq!(dataset.left_out.count(Kind::Split), 9);
}

#[test]
fn one_split_alone_is_understood() {
    let dir = tempfile::tempdir().unwrap();
    class(&dir.path().join("a/train/fox"), 6);
    let train = Dataset::scan(&dir.path().join("a"), 0, &spec()).unwrap();
    assert_eq!((train.train.len(), train.val.len(), train.split), (4, 2, SplitOrigin::Drawn));
    assert_eq!(train.warnings, [DataWarning::Optimistic, DataWarning::OneClass { class: "fox".into() }]);
    class(&dir.path().join("b/val/fox"), 6);
    let val = Dataset::scan(&dir.path().join("b"), 0, &spec()).unwrap();
    assert_eq!((val.train.len(), val.val.len(), val.classes.len()), (0, 6, 1));
}

#[test]
fn a_class_may_be_called_train() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bus", "train", "tram"] {
        class(&dir.path().join(name), 3);
    }
    assert_eq!(Dataset::scan(dir.path(), 0, &spec()).unwrap().classes, ["bus", "train", "tram"]);
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
    let dataset = Dataset::scan(dir.path(), 1, &spec()).unwrap();
    assert_eq!(dataset.classes, ["Fuchs (männlich) 狐", "owl"]);
    assert_eq!(dataset.all().iter().filter(|sample| sample.class == 0).count(), 3);
    let counted = [Kind::Video, Kind::System, Kind::Hidden, Kind::Other];
    assert_eq!(counted.map(|kind| dataset.left_out.count(kind)), [1, 3, 2, 1], "{}", dataset.left_out);
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_followed_if_asked_for() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    class(&dir.path().join("data/fox"), 3);
    class(&dir.path().join("elsewhere/nest"), 3);
    symlink(dir.path().join("data"), dir.path().join("data/fox/loop")).unwrap();
    symlink(dir.path().join("elsewhere"), dir.path().join("data/owl")).unwrap();
    symlink(dir.path().join("elsewhere"), dir.path().join("elsewhere/nest/up")).unwrap();
    let inside = Dataset::scan(&dir.path().join("data"), 0, &spec()).unwrap();
    assert_eq!((inside.classes.clone(), inside.left_out.count(Kind::Link)), (vec!["fox".to_owned()], 2));
    let follow = ClassSpec { follow_links: true, ..spec() };
    let dataset = Dataset::scan(&dir.path().join("data"), 0, &follow).unwrap();
    let count = |class| dataset.all().iter().filter(|sample| sample.class == class).count();
    assert_eq!((dataset.classes.clone(), count(0), count(1)), (vec!["fox".into(), "owl".into()], 3, 3));
}

#[test]
fn splits_have_many_names_in_any_case() {
    for [train, val] in [
        ["train", "valid"],
        ["training", "validation"],
        ["Train", "Val"],
        ["TRAIN", "TEST"],
        ["Training", "Testing"],
        ["train_set", "dev"],
        ["train ", "holdout"],
        ["train2017", "val2017"],
    ] {
        let dir =
            folders(&["fox", "owl"].map(|class| format!("{train}/{class}")).each_ref().map(String::as_str));
        class(&dir.path().join(val).join("owl"), 2);
        let dataset = scan(&dir).unwrap();
        assert_eq!(dataset.classes, ["fox", "owl"], "{train} {val}");
        assert_eq!((sizes(&dataset), dataset.split), ((6, 2), SplitOrigin::Folders), "{train} {val}");
        let judged = Dataset::scan_for_evaluation(dir.path(), &spec()).unwrap();
        assert_eq!((judged.classes, judged.val.len()), (vec!["owl".to_owned()], 2), "{train} {val}");
    }
}

#[test]
fn of_three_splits_test_is_left_out_and_of_two_it_is_val() {
    let dir = folders(&["train/fox", "train/owl", "valid/fox", "valid/owl", "test/fox", "test/owl"]);
    let dataset = scan(&dir).unwrap();
    assert_eq!((sizes(&dataset), dataset.left_out.count(Kind::Split)), ((6, 6), 6));
    assert!(dataset.val.iter().all(|sample| sample.path.starts_with(dir.path().join("valid"))));
    fs_err::remove_dir_all(dir.path().join("valid")).unwrap();
    let dataset = scan(&dir).unwrap();
    assert!(dataset.val.iter().all(|sample| sample.path.starts_with(dir.path().join("test"))));
    fs_err::remove_dir_all(dir.path().join("train")).unwrap();
    assert_eq!(sizes(&scan(&dir).unwrap()), (0, 6));
}

#[test]
fn a_split_without_class_folders_is_told_and_left_out() {
    let dir = folders(&["train/fox", "train/owl", "test"]);
    let dataset = scan(&dir).unwrap();
    assert_eq!(sizes(&dataset), (4, 2), "a third is drawn");
    assert_eq!((dataset.split, dataset.left_out.count(Kind::Split)), (SplitOrigin::Drawn, 3));
    let flat = folders(&["train", "valid", "test"]);
    assert!(matches!(scan(&flat), Err(DataError::SplitsWithoutClasses { splits }) if splits.len() == 3));
    assert_eq!(Dataset::scan(flat.path(), 0, &level(1)).unwrap().classes.len(), 3, "if they are classes");
    let mixed = folders(&["train/fox", "train/owl", "extra"]);
    assert!(matches!(scan(&mixed), Err(DataError::SplitAmongOthers { .. })));
}

#[test]
fn splits_may_lie_in_the_class_folders() {
    let dir = folders(&["fox/train", "fox/val", "owl/Train", "owl/Val", "owl/test"]);
    let dataset = scan(&dir).unwrap();
    assert_eq!((dataset.classes.clone(), sizes(&dataset)), (vec!["fox".into(), "owl".into()], (6, 6)));
    assert_eq!((dataset.split, dataset.left_out.count(Kind::Split)), (SplitOrigin::Folders, 3));
}

#[test]
fn folders_around_the_classes_are_no_class() {
    for classes in [
        ["dataset/fox", "dataset/owl"],
        ["dataset/dataset/fox", "dataset/dataset/owl"],
        ["a/images/fox", "a/images/owl"],
        ["dataset/1", "dataset/2"],
    ] {
        let dataset = scan(&folders(&classes)).unwrap();
        assert_eq!(dataset.classes.len(), 2, "{classes:?}");
        assert!(dataset.notes[0].contains("is the folder that is read"), "{:?}", dataset.notes);
    }
    let dir =
        folders(&["in/dataset/train/images/fox", "in/dataset/train/images/owl", "in/dataset/val/images/fox"]);
    assert_eq!(sizes(&scan(&dir).unwrap()), (6, 3));
    assert_eq!(scan(&folders(&["fox"])).unwrap().classes, ["fox"], "a class alone");
    assert_eq!(scan(&folders(&["fox/site1/cam1"])).unwrap().classes, ["fox"]);
    assert!(matches!(scan(&folders(&["images"])), Err(DataError::NoClasses { photos: 3, .. })));
}

#[test]
fn classes_may_be_nested() {
    let dir = folders(&["fox/site1", "fox/site2/100RECNX", "owl/site1", "owl/north"]);
    let dataset = scan(&dir).unwrap();
    dataset.check_classes(&[]).unwrap();
    assert_eq!((dataset.classes.clone(), dataset.all().len()), (vec!["fox".into(), "owl".into()], 12));
    let deep =
        Dataset::scan(folders(&["Mammalia/fox", "Aves/owl", "Mammalia/hare"]).path(), 0, &level(2)).unwrap();
    assert_eq!(deep.classes, ["fox", "hare", "owl"]);
}

#[test]
fn cameras_are_no_classes_unless_they_are() {
    for cameras in [
        &["CAM1/fox", "CAM2/fox", "CAM2/owl"][..],
        &["CAM1", "CAM2"],
        &["north/fox", "north/owl", "south/fox"],
        &["DCIM/100RECNX", "DCIM/101RECNX"],
        &["100RECNX", "101RECNX"],
        &["creek/DCIM/100RECNX", "ridge/DCIM/100RECNX"],
        &["creek/100RECNX", "ridge/100RECNX"],
        &["fox", "owl/fox"],
    ] {
        let dir = folders(cameras);
        assert!(refused_as_cameras(&dir, &[]), "{cameras:?}");
        Dataset::scan(dir.path(), 0, &level(1)).unwrap().check_classes(&[]).unwrap();
    }
    let dir = folders(&["CAM1/fox", "CAM2/fox", "CAM2/owl"]);
    let inner = Dataset::scan(dir.path(), 0, &level(2)).unwrap();
    inner.check_classes(&[]).unwrap();
    assert_eq!((inner.classes.clone(), inner.all().len()), (vec!["fox".into(), "owl".into()], 9));
    // Labels of the model say what classes are.
    let ages = folders(&["fox/adult", "fox/juvenile", "owl/adult"]);
    assert!(refused_as_cameras(&ages, &[]) && !refused_as_cameras(&ages, &["owl", "fox", "hare"]));
    let places = folders(&["creek/fox", "creek/owl", "ridge/hare"]);
    assert!(!refused_as_cameras(&places, &[]) && refused_as_cameras(&places, &["owl", "fox", "hare"]));
}

#[test]
fn one_name_in_several_spellings_is_one_class() {
    let dir = folders(&["Fox", "fox/a", "fox/b", "Ba\u{308}r", "owl"]);
    let mut expected = vec!["Bär", "fox", "owl"];
    class(&dir.path().join("owl "), 2);
    let dataset = scan(&dir).unwrap();
    assert_eq!(dataset.classes, expected);
    assert_eq!(dataset.all().len(), 9 + 3 + 5);
    let twins: Vec<&DataWarning> =
        dataset.warnings.iter().filter(|warning| matches!(warning, DataWarning::Twins { .. })).collect();
    assert_eq!(twins.len(), 2, "{twins:?}");
    // The spelling of the photos to learn from counts.
    let split = folders(&["train/fox", "train/B\u{e4}r", "val/FOX", "val/Ba\u{308}r"]);
    expected.pop();
    let dataset = scan(&split).unwrap();
    assert_eq!(
        (dataset.classes.clone(), sizes(&dataset)),
        (expected.iter().map(|s| (*s).to_owned()).collect(), (6, 6))
    );
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
}

#[test]
fn names_are_what_people_make_them() {
    let long = "ü".repeat(100);
    let names = ["10", "2", "a, b", "\"quoted\"", "🦊", "שועל", "-v", "=1+1", "O'Neil's fox", long.as_str()];
    let dir = folders(&names);
    let dataset = scan(&dir).unwrap();
    let mut expected = names.to_vec();
    expected.sort_unstable();
    assert_eq!(dataset.classes, expected);
    assert_eq!(dataset.all().len(), 30);
}

#[test]
fn what_systems_make_is_no_class_and_no_photo() {
    let dir = folders(&[
        "fox",
        "owl",
        "$RECYCLE.BIN",
        "@eaDir",
        "__MACOSX",
        "lost+found",
        "#recycle",
        ".Trash-1000/x",
    ]);
    class(&dir.path().join("System Volume Information"), 2);
    class(&dir.path().join("fox/@eaDir/000.png"), 2);
    fs_err::write(dir.path().join("labels.csv"), "a").unwrap();
    fs_err::create_dir_all(dir.path().join("annotations")).unwrap();
    fs_err::write(dir.path().join("annotations/a.xml"), "a").unwrap();
    photo(&dir.path().join("loose.png"), 8, 8, [0; 3]);
    let dataset = scan(&dir).unwrap();
    assert_eq!((dataset.classes.clone(), dataset.all().len()), (vec!["fox".into(), "owl".into()], 6));
    let counted = [Kind::System, Kind::Other, Kind::NoClass, Kind::Loose];
    assert_eq!(counted.map(|kind| dataset.left_out.count(kind)), [8, 2, 1, 1], "{}", dataset.left_out);
}

#[cfg(unix)]
#[test]
fn locked_folders_are_skipped_and_told() {
    use std::os::unix::fs::PermissionsExt;
    let dir = folders(&["fox", "fox/sub", "owl", "hare"]);
    let lock = |mode: u32| {
        for name in ["fox/sub", "hare"] {
            fs_err::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    lock(0o000);
    let reads_all = fs_err::read_dir(dir.path().join("hare")).is_ok();
    let scanned = scan(&dir);
    lock(0o755);
    let dataset = scanned.unwrap();
    if reads_all {
        return;
    }
    assert_eq!((dataset.classes.clone(), dataset.all().len()), (vec!["fox".into(), "owl".into()], 6));
    assert_eq!((dataset.left_out.count(Kind::Locked), dataset.skipped.len()), (2, 2));
    assert!(dataset.warnings.contains(&DataWarning::LockedClass { class: "hare".into() }));
}

#[test]
fn every_defect_has_its_error() {
    let dir = tempfile::tempdir().unwrap();
    let scan = |name: &str| Dataset::scan(&dir.path().join(name), 0, &spec());
    assert!(matches!(scan("missing"), Err(DataError::NotAFolder { .. })));
    fs_err::create_dir(dir.path().join("empty")).unwrap();
    assert!(matches!(scan("empty"), Err(DataError::NoClasses { .. })));
    photo(&dir.path().join("flat/a.png"), 8, 8, [0; 3]);
    assert!(matches!(scan("flat"), Err(DataError::NoClasses { photos: 1, .. })));
    fs_err::create_dir_all(dir.path().join("phone/fox")).unwrap();
    fs_err::write(dir.path().join("phone/fox/a.HEIC"), "").unwrap();
    let error = scan("phone").unwrap_err();
    assert!(error.to_string().contains("1 HEIC photo"), "{error}");
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
    photo(&dir.path().join(std::ffi::OsStr::from_bytes(b"f\xFFx")).join("a.png"), 8, 8, [0; 3]);
    assert!(matches!(Dataset::scan(dir.path(), 0, &spec()), Err(DataError::ClassName { .. })));
}

#[test]
fn photos_without_labels_are_none_of_the_evaluation_split() {
    let dir = tempfile::tempdir().unwrap();
    for (name, count) in [("photos/fox", 9), ("photos/owl", 6), ("more/deep/down", 4)] {
        class(&dir.path().join(name), count);
    }
    let dataset = Dataset::scan(&dir.path().join("photos"), 0, &spec()).unwrap();
    // Another way to the same files.
    let around = dir.path().join("more/../photos");
    let found = dataset.unlabelled(&around, 100, 0, &mut Silent).unwrap();
    assert_eq!(found.len(), 10, "two thirds of either class");
    let real = |sample: &Sample| sample.path.canonicalize().unwrap();
    assert!(found.iter().all(|photo| dataset.val.iter().all(|val| real(val) != real(photo))));
    assert_eq!(dataset.unlabelled(dir.path(), 100, 0, &mut Silent).unwrap().len(), 14);
    let some = dataset.unlabelled(dir.path(), 5, 3, &mut Silent).unwrap();
    assert_eq!((some.len(), some.is_sorted()), (5, true));
    let split = dir.path().join("split");
    class(&split.join("train/fox"), 2);
    class(&split.join("val/fox"), 2);
    let split = Dataset::scan(&split, 0, &spec()).unwrap();
    let error = split.unlabelled(&split.root.join("val"), 5, 0, &mut Silent).unwrap_err();
    assert!(matches!(error, DataError::OnlyVal { .. }), "{error}");
}
