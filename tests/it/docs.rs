//! The tables and plots of docs/results.md are those of the runs that are kept in docs/runs.

use std::path::Path;

use assert_cmd::Command;

/// Lines say which version made them; a release alone makes no table stale.
fn as_of_this_version(runs: &str) -> String {
    let lines = runs.lines().map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["version"] = env!("CARGO_PKG_VERSION").into();
        line.to_string() + "\n"
    });
    lines.collect()
}

/// Says of long texts only where they begin to differ.
fn assert_same(again: &Path, told: &Path) {
    let [now, before] = [again, told].map(|path| fs_err::read_to_string(path).unwrap());
    let differ = now.lines().zip(before.lines()).find(|(now, before)| now != before);
    assert!(now == before, "{} is not of the runs, --splice again: {differ:#?}", told.display());
}

#[test]
fn tables_and_plots_are_those_of_the_runs_that_are_kept() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = tempfile::tempdir().unwrap();
    let page = scratch.path().join("results.md");
    fs_err::copy(project.join("docs/results.md"), &page).unwrap();
    let mut checked = 0;
    for kept in fs_err::read_dir(project.join("docs/runs")).unwrap() {
        let kept = kept.unwrap();
        let name = kept.file_name().into_string().unwrap();
        let out = scratch.path().join(&name);
        fs_err::create_dir(&out).unwrap();
        let runs = fs_err::read_to_string(kept.path().join("runs.jsonl")).unwrap();
        fs_err::write(out.join("runs.jsonl"), as_of_this_version(&runs)).unwrap();
        let recipe = project.join("examples/recipes").join(&name).with_extension("toml");
        let mut command = Command::cargo_bin("margay").expect("the binary is built");
        command.args(["experiment", "--tables", "--out"]).arg(&out).arg("--splice").arg(&page).arg(recipe);
        command.assert().success();
        checked += 1;
    }
    assert!(checked > 0, "docs/runs is empty");
    assert_same(&page, &project.join("docs/results.md"));
    for plot in fs_err::read_dir(scratch.path().join("images")).unwrap() {
        let plot = plot.unwrap();
        assert_same(&plot.path(), &project.join("docs/images").join(plot.file_name()));
    }
}

#[test]
fn the_books_table_of_options_is_what_the_program_lists() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/book/src/options.md");
    let listed = Command::cargo_bin("margay")
        .expect("the binary is built")
        .args(["list", "--options"])
        .output()
        .unwrap();
    let table = String::from_utf8(listed.stdout).unwrap();
    assert!(
        table.contains("| `recovery.batch` | `--batch` | 32 | 1 to 65536 | Images per finetuning step |"),
        "{table}"
    );
    let told = fs_err::read_to_string(&page).unwrap();
    let (_, kept) =
        told.split_once("<!-- margay list --options -->\n\n").expect("the page has a place for the table");
    assert!(kept == table, "{} is not what `margay list --options` prints", page.display());
}

/// Paths below the project's folders that a text names; those with a place to fill in, such as `<name>` or `NAME`, are none.
fn paths(text: &str) -> Vec<&str> {
    let starts = ["src/", "crates/", "docs/", "tests/", "examples/", "scripts/", "models/", "fuzz/"];
    let word = |c: char| c.is_alphanumeric() || "_-./*".contains(c);
    let words = text.split(|c: char| !word(c) && !"<>".contains(c)).map(|word| word.trim_end_matches('.'));
    let filled = |path: &&str| !path.contains(['<', '*']) && !path.contains("NAME");
    words.filter(|path| starts.iter().any(|start| path.starts_with(start))).filter(filled).collect()
}

#[test]
fn files_that_documents_name_exist() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![project.join("README.md"), project.join("CONTRIBUTING.md")];
    for folder in ["docs", "docs/book/src"] {
        let entries = fs_err::read_dir(project.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        documents.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    let mut checked = 0;
    for document in documents {
        let text = fs_err::read_to_string(&document).unwrap();
        for path in paths(&text) {
            // Links of a page are as seen from it.
            let beside = document.parent().unwrap().join(path);
            assert!(project.join(path).exists() || beside.exists(), "{} names {path}", document.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked} paths: the search proves nothing");
}
