use super::*;

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn read(text: impl AsRef<[u8]>) -> Result<Vec<String>, LabelError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels");
    fs_err::write(&path, text).unwrap();
    read_labels(&path)
}

#[test]
fn reads_lists_objects_and_text() {
    let expected = owned(&["red fox", "Ära", "owl"]);
    for text in [
        "[\"red fox\", \"Ära\",\n\"owl\"]",
        "{\"2\": \"owl\", \"0\": \"red fox\", \"1\": \"Ära\"}",
        "red fox\n  Ära\r\nowl\n\n",
        "\u{feff}red fox\nÄra\nowl",
    ] {
        assert_eq!(read(text).unwrap(), expected, "{text}");
    }
    let many: Vec<String> = (0..12).map(|i| format!("\"{i}\": \"class {i}\"")).collect();
    let names = read(format!("{{{}}}", many.join(","))).unwrap();
    assert_eq!(names[2], "class 2", "indices are numbers, not text");
}

#[test]
fn every_defect_has_its_error() {
    assert!(matches!(read("[1, 2]"), Err(LabelError::Json { .. })));
    assert!(matches!(read("[\"a\""), Err(LabelError::Json { .. })));
    assert!(matches!(read("{\"a\": \"b\"}"), Err(LabelError::Json { .. })));
    assert!(matches!(read("{\"0\": \"a\", \"2\": \"b\"}"), Err(LabelError::Gap { missing: 1, .. })));
    assert!(matches!(read([0xFF, 0xFE]), Err(LabelError::NotText { .. })));
    assert!(matches!(read("a\n\nb"), Err(LabelError::Blank { index: 1, .. })));
    assert!(matches!(read(""), Err(LabelError::Blank { index: 0, .. })));
    assert!(matches!(read("[]"), Err(LabelError::Blank { index: 0, .. })));
    assert!(matches!(read_labels(Path::new("no/such/file")), Err(LabelError::Io(_))));
    let three = owned(&["a", "b", "c"]);
    let path = Path::new("names.json");
    assert!(check_count(path, &three, 3).is_ok());
    let error = check_count(path, &three, 4).unwrap_err();
    assert!(matches!(error, LabelError::Count { names: 3, outputs: 4, .. }));
    assert!(error.to_string().contains("`names.json`"), "{error}");
}

#[test]
fn a_subset_of_the_labels_slices_the_head() {
    let labels = owned(&["red_fox", "Tawny Owl", "tench, Tinca tinca", "roe-deer", "Owl", "owl"]);
    let plan = match_classes(&owned(&["Roe deer", "owl", "red_fox", "tawny_owl", "tinca_tinca"]), &labels);
    assert_eq!(plan, HeadPlan::Slice(vec![3, 5, 0, 1, 2]));
    assert_eq!(plan.explain(5), None);
}

#[test]
fn what_does_not_match_is_named_with_the_nearest_label() {
    let labels = owned(&["red_fox", "owl", "crane", "crane"]);
    let HeadPlan::Probe(unmatched) = match_classes(&owned(&["owl", "red_foks", "crane"]), &labels) else {
        panic!("these need a new head")
    };
    let nearest = |class: &str, label: &str, matches| Unmatched {
        class: class.into(),
        nearest: Some(label.into()),
        matches,
    };
    assert_eq!(unmatched, [nearest("red_foks", "red_fox", 0), nearest("crane", "crane", 2)]);
    let text = HeadPlan::Probe(unmatched).explain(3).unwrap();
    assert!(text.contains("2 of 3") && text.contains("`red_foks` (nearest label: `red_fox`)"), "{text}");
}

#[test]
fn two_classes_cannot_share_a_label() {
    let plan = match_classes(&owned(&["Red Fox", "owl", "red_fox"]), &owned(&["red-fox", "owl"]));
    let HeadPlan::Probe(unmatched) = plan else { panic!("one output cannot serve two classes") };
    assert_eq!(unmatched.iter().map(|u| u.matches).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn labels_that_match_nothing_say_so() {
    let plan = match_classes(&owned(&["0001", "0002"]), &owned(&["owl", "fox"]));
    let text = plan.explain(2).unwrap();
    assert!(text.starts_with("no class is among the labels"), "{text}");
    let none = match_classes(&owned(&["a"]), &[]);
    assert!(matches!(none, HeadPlan::Probe(unmatched) if unmatched[0].nearest.is_none()));
}
