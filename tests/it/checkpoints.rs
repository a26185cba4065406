//! Lines of Python in error messages do what they say.

use std::path::Path;
use std::process::Command;

/// A module `torch` for the lines that are printed: programs are text, state dicts are pickled.
const TORCH: &str = "\
import pickle
class _Program:
    def __init__(self, path): self.path = path
    def state_dict(self): return {'read': open(self.path, 'rb').read()}
class jit:
    @staticmethod
    def load(path, map_location=None):
        assert map_location == 'cpu'
        return _Program(path)
def save(value, path):
    with open(path, 'wb') as file: pickle.dump(value, file)
";

/// The lines that the refusal of a file prints.
fn printed(file: &Path) -> String {
    let mut command = assert_cmd::Command::cargo_bin("margay").expect("the binary is built");
    let output = command.arg("inspect").arg(file).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.lines()
        .skip_while(|line| !line.trim().starts_with("import "))
        .fold(String::new(), |all, line| all + line.trim() + "\n")
}

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

#[test]
fn the_lines_that_save_a_programs_weights_run() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("torch.py"), TORCH).unwrap();
    for name in ["plain.pt", "two words.pt", "quote \" and \\ and 'é'.pt"] {
        let file = folder.path().join(name);
        fs_err::copy(golden("torchscript.pt"), &file).unwrap();
        let lines = printed(&file);
        assert!(lines.starts_with("import torch\n") && lines.lines().count() == 3, "{lines}");
        let python = Command::new("python3").arg("-c").arg(&lines).env("PYTHONPATH", folder.path()).output();
        let Ok(output) = python else {
            eprintln!("skipped: there is no python3 to run the lines");
            return;
        };
        assert!(output.status.success(), "{lines}\n{}", String::from_utf8_lossy(&output.stderr));
        let saved = fs_err::read(file.with_extension("weights.pth")).unwrap();
        assert!(saved.len() > 100, "{name}");
    }
}

#[test]
fn what_would_run_code_prints_no_lines() {
    for name in ["runs_code.pth", "runs_code_legacy.pth"] {
        assert_eq!(printed(&golden(name)), "", "{name}");
    }
}
