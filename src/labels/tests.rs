use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::recipe::ClassSpec;

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn labels(names: &[&str]) -> Vec<Label> {
    from_names(owned(names))
}

fn read_as(name: &str, text: impl AsRef<[u8]>) -> Result<Vec<Label>, LabelError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs_err::write(&path, text).unwrap();
    read_labels(&path)
}

fn read(text: impl AsRef<[u8]>) -> Result<Vec<Label>, LabelError> {
    read_as("labels", text)
}

fn names(labels: &[Label]) -> Vec<&str> {
    labels.iter().map(|label| label.name.as_str()).collect()
}

fn mapping(pairs: &[(&str, &[&str])]) -> ClassSpec {
    let map: BTreeMap<String, Vec<String>> =
        pairs.iter().map(|(class, labels)| ((*class).to_owned(), owned(labels))).collect();
    ClassSpec { map, ..ClassSpec::default() }
}

fn plan(classes: &[&str], labels: &[Label]) -> Result<HeadPlan, LabelError> {
    plan_head(&owned(classes), labels, &ClassSpec::default())
}

fn fitted(classes: &[&str], labels: &[Label]) -> Vec<Unmatched> {
    let spec = ClassSpec { fit_head: true, ..ClassSpec::default() };
    match plan_head(&owned(classes), labels, &spec).unwrap() {
        HeadPlan::Probe(unmatched) => unmatched,
        HeadPlan::Slice(rows) => panic!("these need a new head: {rows:?}"),
    }
}

fn rows(plan: &HeadPlan) -> Vec<Vec<usize>> {
    assert_ne!(plan.kind(), "probe", "{plan:?}");
    plan.rows()
}

#[test]
fn every_form_of_a_list_is_read() {
    let utf16: Vec<u8> =
        "\u{feff}red fox\r\nÄra\r\nowl\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let texts: &[(&str, &[u8])] = &[
        ("a.json", "[\"red fox\", \"Ära\",\n\"owl\"]".as_bytes()),
        ("a.json", "{\"2\": \"owl\", \"0\": \"red fox\", \"1\": \"Ära\"}".as_bytes()),
        ("a.json", "{\"1\": \"red fox\", \"2\": \"Ära\", \"3\": \"owl\"}".as_bytes()),
        ("a.json", "{\"owl\": 2, \"red fox\": 0, \"A\u{308}ra\": 1}".as_bytes()),
        ("class_to_idx.json", "{\"class_to_idx\": {\"owl\": \"2\", \"red fox\": \"0\", \"Ära\": \"1\"}}".as_bytes()),
        ("config.json", "{\"model_type\": \"vit\", \"id2label\": {\"0\": \"red fox\", \"1\": \"Ära\", \"2\": \"owl\"}, \
          \"label2id\": {\"owl\": 2}}".as_bytes()),
        ("a.json", "{\"id_to_labels\": {\"0\": \"red fox\", \"1\": \"Ära\", \"2\": \"owl\"}}".as_bytes()),
        ("a.json", "{\"pretrained_cfg\": {\"label_names\": [\"red fox\", \"Ära\", \"owl\"]}}".as_bytes()),
        ("a.json", "[{\"id\": 2, \"name\": \"owl\"}, {\"id\": 0, \"name\": \"red fox\"}, {\"id\": 1, \"name\": \"Ära\"}]".as_bytes()),
        ("a.txt", "red fox\n  Ära\r\nowl\n\n".as_bytes()),
        ("a.names", "\u{feff}red fox\nÄra\nowl".as_bytes()),
        ("a.txt", "red fox\rÄra\rowl\r".as_bytes()),
        ("a.txt", &utf16),
        ("a.txt", "0 red fox\n1 Ära\n2 owl\n".as_bytes()),
        ("a.txt", "3: owl\n1: red fox\n2: 'Ära'\n".as_bytes()),
        ("a.txt", "red fox,0\nÄra,1\nowl,2\n".as_bytes()),
        ("a.csv", "id,class\n1,red fox\n2,Ära\n3,owl\n".as_bytes()),
        ("a.csv", "Name;Count\nred fox;9\nÄra;7\nowl;1\n".as_bytes()),
        ("a.csv", "red fox\nÄra\nowl\n".as_bytes()),
        ("data.yaml", "train: ../train\nnc: 3\nnames: ['red fox', Ära, owl]\n".as_bytes()),
        ("data.yml", "names:\n  0: red fox\n  1: Ära\n  2: owl\n".as_bytes()),
        ("python.txt", "{0: 'red fox',\n 1: \"Ära\",\n 2: 'owl'}".as_bytes()),
        ("python.txt", "['red fox', 'Ära', 'owl']".as_bytes()),
    ];
    for (name, text) in texts {
        let read = read_as(name, text).unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(text)));
        assert_eq!(names(&read), ["red fox", "Ära", "owl"], "{}", String::from_utf8_lossy(text));
    }
    let many: Vec<String> = (0..12).map(|i| format!("\"{i}\": \"class {i}\"")).collect();
    let read = read(format!("{{{}}}", many.join(","))).unwrap();
    assert_eq!(read[2].name, "class 2", "indices are numbers, not text");
}

#[test]
fn ids_of_synsets_are_names_beside_the_name() {
    let expected = [
        Label::with_alias("tench, Tinca tinca", "n01440764"),
        Label::with_alias("goldfish, Carassius auratus", "n01443537"),
    ];
    for (name, text) in [
        ("a.txt", "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"),
        ("a.txt", "n01440764\ttench, Tinca tinca\r\nn01443537\tgoldfish, Carassius auratus\r\n"),
        (
            "imagenet_class_index.json",
            "{\"1\": [\"n01443537\", \"goldfish, Carassius auratus\"], \"0\": [\"n01440764\", \"tench, Tinca tinca\"]}",
        ),
        ("a.json", "{\"n01443537\": \"goldfish, Carassius auratus\", \"n01440764\": \"tench, Tinca tinca\"}"),
        ("a.csv", "id,name\nn01440764,\"tench, Tinca tinca\"\nn01443537,\"goldfish, Carassius auratus\"\n"),
    ] {
        assert_eq!(read_as(name, text).unwrap(), expected, "{text}");
    }
    for classes in [["goldfish", "tench"], ["n01443537", "n01440764"], ["Carassius_auratus", "tinca tinca"]] {
        assert_eq!(rows(&plan(&classes, &expected).unwrap()), [[1], [0]]);
    }
    assert_eq!(
        names(&read("n01440764\nn01443537\n").unwrap()),
        ["n01440764", "n01443537"],
        "ids alone are names"
    );
}

#[test]
fn numbers_may_be_names_and_parts_of_names() {
    assert_eq!(names(&read("[281, 7]").unwrap()), ["281", "7"]);
    assert_eq!(names(&read("281\n7\n").unwrap()), ["281", "7"]);
    let cameras = read("cam 1\ncam 2\n").unwrap();
    assert_eq!(names(&cameras), ["cam 1", "cam 2"]);
    let numbered = read("1 person\n2 dogs\n").unwrap();
    assert_eq!(rows(&plan(&["2 dogs", "person"], &numbered).unwrap()), [[1], [0]]);
}

#[test]
fn every_defect_has_its_error() {
    let form = |text: &str| matches!(read(text), Err(LabelError::Form { .. }));
    assert!(form("[\"a\""));
    assert!(form("{\"a\": \"b\"}"));
    assert!(form("[null]"));
    assert!(form("<!DOCTYPE html><html></html>"));
    assert!(form("item {\n  id: 1\n  name: 'a'\n}\n"));
    assert!(matches!(read("{\"0\": \"a\", \"2\": \"b\"}"), Err(LabelError::Gap { missing: 1, .. })));
    assert!(matches!(read("{\"a\": 1, \"b\": 1}"), Err(LabelError::Gap { .. })));
    assert!(matches!(read([b'a', 0xE9]), Err(LabelError::NotText { .. })));
    assert!(matches!(read("a\0b"), Err(LabelError::NotText { .. })));
    assert!(matches!(read("a\n\nb"), Err(LabelError::Blank { index: 1, .. })));
    assert!(matches!(read(""), Err(LabelError::Blank { index: 0, .. })));
    assert!(matches!(read("[]"), Err(LabelError::Blank { index: 0, .. })));
    assert!(matches!(read("{}"), Err(LabelError::Blank { index: 0, .. })));
    assert!(matches!(read_labels(Path::new("no/such/file")), Err(LabelError::Io(_))));
    assert!(matches!(read_labels(Path::new(".")), Err(LabelError::Io(_))), "a folder");
    let three = labels(&["a", "b", "c"]);
    let path = Path::new("names.json");
    assert!(check_count(path, &three, 3).is_ok());
    let error = check_count(path, &three, 4).unwrap_err();
    assert!(matches!(error, LabelError::Count { names: 3, outputs: 4, .. }));
    assert!(error.to_string().contains("`names.json`"), "{error}");
}

#[test]
fn a_yaml_bomb_is_an_error() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let inner = vec![format!("*a{}", i - 1); 10].join(", ");
        writeln!(text, "a{i}: &a{i} [{inner}]").unwrap();
    }
    assert!(matches!(read_as("a.yaml", text), Err(LabelError::Form { .. })));
}

#[test]
fn a_subset_of_the_labels_slices_the_head() {
    let labels =
        labels(&["red_fox", "Tawny Owl", "tench, Tinca tinca", "roe-deer", "Owl", "owl", "Ba\u{308}r"]);
    let classes = ["Roe deer", "owl", "red_fox", "tawny_owl", "tinca_tinca", "Bär"];
    let plan = plan(&classes, &labels).unwrap();
    assert_eq!(rows(&plan), [[3], [5], [0], [1], [2], [6]]);
    assert_eq!((plan.kind(), plan.explain(6)), ("sliced", None));
    assert_eq!(plan.output_names(&owned(&classes)), classes);
}

#[test]
fn a_head_is_not_thrown_away_over_spelling() {
    let names = labels(&["red_fox", "kit fox", "owl", "roe deer", "crane"]);
    let error = plan(&["owl", "red_foxx", "fox", "walrus"], &names).unwrap_err();
    let LabelError::Spelling { pairs, classes: 4 } = &error else { panic!("{error}") };
    let expected = [("red_foxx", vec!["red_fox"]), ("fox", vec!["red_fox", "kit fox"])];
    assert_eq!(pairs.len(), 2, "{pairs:?}");
    for ((class, near), (folder, labels)) in pairs.iter().zip(expected) {
        assert_eq!((class.as_str(), near), (folder, &owned(&labels)));
    }
    let text = error.to_string();
    assert!(text.contains("  red_foxx  red_fox\n  fox       red_fox | kit fox\n"), "{text}");
    assert!(text.contains("--map 'fox=red_fox,kit fox'") && text.contains("--fit-head"), "{text}");
    let unmatched = fitted(&["owl", "red_foxx", "fox", "walrus"], &names);
    assert_eq!(unmatched.len(), 3);
    let text = HeadPlan::Probe(unmatched).explain(4).unwrap();
    assert!(text.contains("3 of 4") && text.contains("`red_foxx` (nearest label: `red_fox`)"), "{text}");
}

#[test]
fn other_classes_than_the_checkpoints_get_a_new_head_without_a_question() {
    let names = labels(&["owl", "fox", "red deer"]);
    // `deer` could be a red deer, but nothing else says that the labels are meant.
    for classes in [&["0001", "0002"][..], &["deer", "walrus"], &["owl", "walrus"]] {
        let plan = plan(classes, &names).unwrap();
        assert_eq!(plan.kind(), "probe", "{classes:?}");
    }
    let text = plan(&["0001", "0002"], &names).unwrap().explain(2).unwrap();
    assert!(text.starts_with("no class is among the labels"), "{text}");
    assert!(
        matches!(plan(&["a"], &[]).unwrap(), HeadPlan::Probe(unmatched) if unmatched[0].nearest.is_none())
    );
}

#[test]
fn labels_that_are_named_alike_are_told_apart_by_number() {
    let names = labels(&["owl", "crane", "crane"]);
    let error = plan(&["owl", "crane"], &names).unwrap_err();
    assert!(matches!(&error, LabelError::Ambiguous { outputs, .. } if *outputs == [1, 2]), "{error}");
    assert_eq!(fitted(&["owl", "crane"], &names)[0].matches, 2);
    let with = |labels: &[&str]| plan_head(&owned(&["owl", "crane"]), &names, &mapping(&[("crane", labels)]));
    assert_eq!(rows(&with(&["2"]).unwrap()), [[0], [2]]);
    assert_eq!(rows(&with(&["1", "2"]).unwrap()), [vec![0], vec![1, 2]]);
    assert!(matches!(with(&["crane"]), Err(LabelError::ManyLabels { .. })));
}

#[test]
fn one_output_cannot_tell_two_classes_apart() {
    let names = labels(&["red-fox", "owl"]);
    let error = plan(&["Red Fox", "owl", "red_fox"], &names).unwrap_err();
    assert!(
        matches!(&error, LabelError::Shared { classes, .. } if *classes == ["Red Fox", "red_fox"]),
        "{error}"
    );
    let spec = mapping(&[("vixen", &["red fox"]), ("dog", &["red fox"])]);
    let error = plan_head(&owned(&["vixen", "dog"]), &names, &spec).unwrap_err();
    assert!(matches!(error, LabelError::Shared { .. }), "{error}");
    let fitted = fitted(&["Red Fox", "owl", "red_fox"], &names);
    assert_eq!(fitted.iter().map(|u| u.matches).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn several_labels_may_be_one_class() {
    let names = labels(&["red fox, Vulpes vulpes", "hare", "kit fox", "fox"]);
    let classes = owned(&["Fox", "hare"]);
    let plan = plan_head(&classes, &names, &mapping(&[("fox", &["red_fox", "Kit Fox"])])).unwrap();
    assert_eq!((rows(&plan), plan.kind()), (vec![vec![0, 2], vec![1]], "joined"));
    assert_eq!(plan.output_names(&classes), ["red fox, Vulpes vulpes", "kit fox", "hare"]);
    let refused = |spec: &ClassSpec| plan_head(&classes, &names, spec).unwrap_err().to_string();
    let text = refused(&mapping(&[("fixx", &["red fox"])]));
    assert!(text.contains("no class of the photos"), "{text}");
    let text = refused(&mapping(&[("fox", &["kitt fox"])]));
    assert!(text.contains("did you mean `kit fox`"), "{text}");
}
