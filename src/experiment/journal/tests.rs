use super::super::testing::{experiment, line};
use super::*;

fn runs() -> Vec<Run> {
    experiment().runs(&[]).unwrap()
}

fn keys(folder: &Path) -> Vec<String> {
    Results::read(folder).unwrap().iter().map(|line| line.key.clone()).collect()
}

#[test]
fn a_line_read_back_is_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs.jsonl");
    let [measured, failed] = [line(&runs()[0], 50), Line::new(&runs()[1], Outcome::Error("diverged".into()))];
    let mut journal = Journal::open(&path).unwrap();
    journal.append(&measured).unwrap();
    journal.append(&failed).unwrap();
    assert_eq!(lines(&path, &fs_err::read(&path).unwrap()).unwrap(), [measured, failed]);
}

#[test]
fn an_option_that_margay_has_got_since_changes_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let text = serde_json::to_string(&line(&runs()[0], 50)).unwrap();
    let option = "\"damping\":0.1,";
    assert!(text.contains(option), "{text}");
    fs_err::write(dir.path().join("runs.jsonl"), text.replace(option, "") + "\n").unwrap();
    assert_eq!(keys(dir.path()), [runs()[0].key.clone()]);
    fs_err::write(dir.path().join("runs.jsonl"), text.replace(option, "\"damping\":0.2,") + "\n").unwrap();
    assert_ne!(keys(dir.path()), [runs()[0].key.clone()], "another default then");
}

#[test]
fn a_torn_line_is_left_out_and_cut() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs.jsonl");
    Journal::open(&path).unwrap().append(&line(&runs()[0], 50)).unwrap();
    let whole = fs_err::read(&path).unwrap();
    fs_err::write(&path, [whole.as_slice(), &whole[..whole.len() / 2]].concat()).unwrap();
    assert_eq!(keys(dir.path()), [runs()[0].key.clone()]);
    Journal::open(&path).unwrap().append(&line(&runs()[1], 50)).unwrap();
    assert_eq!(lines(&path, &fs_err::read(&path).unwrap()).unwrap().len(), 2);
}

#[test]
fn a_broken_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs_err::write(dir.path().join("runs.jsonl"), "\n{\"key\": 3}\n").unwrap();
    let error = Results::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("runs.jsonl, line 2"), "{error}");
}

#[test]
fn one_process_at_a_time_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs.jsonl");
    let _first = Journal::open(&path).unwrap();
    assert!(matches!(Journal::open(&path), Err(ExperimentError::Busy(_))));
}

#[test]
fn shards_are_read_together_and_a_success_stays() {
    let dir = tempfile::tempdir().unwrap();
    let runs = runs();
    for (shard, run) in ["runs-1-of-2.jsonl", "runs-2-of-2.jsonl"].iter().zip(&runs) {
        Journal::open(&dir.path().join(shard)).unwrap().append(&line(run, 50)).unwrap();
    }
    let mut results = Results::read(dir.path()).unwrap();
    assert_eq!(results.iter().count(), 2);
    results.insert(Line::new(&runs[0], Outcome::Error("late".into())));
    results.insert(Line::new(&runs[2], Outcome::Error("failed".into())));
    assert!(results.get(&runs[0].key).unwrap().measured().is_some());
    results.forget_failures();
    assert!(results.get(&runs[2].key).is_none());
}

#[test]
fn classes_that_suffer_are_named() {
    let Outcome::Measured(measured) = line(&runs()[0], 85).outcome else { panic!("measured") };
    let [worst, lost] = [measured.worst.unwrap(), measured.largest_drop.unwrap()];
    assert_eq!((worst.label.as_str(), worst.specialist), ("rare", 0.1));
    assert_eq!((lost.label.as_str(), lost.loss()), ("rare", 0.4));
}
