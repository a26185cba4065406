use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::error::{Kept, OutputError};
use super::goal::{Goal, Kind};
use super::place::{Moves, System, rename_without_flags};
use super::staging::Staging;
use super::*;

const MARK: Existing = Existing::YieldsWith("mark");

fn names(folder: &Path) -> Vec<String> {
    let names =
        fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn read(path: impl AsRef<Path>) -> String {
    fs_err::read_to_string(path.as_ref()).unwrap()
}

/// A folder with a file in it.
fn folder(path: &Path, file: &str) {
    fs_err::create_dir_all(path).unwrap();
    fs_err::write(path.join(file), file).unwrap();
}

/// A folder that is being written, with a file in it.
fn begun(goal: &Path, existing: Existing) -> OutputFolder {
    let out = OutputFolder::create(goal, existing).unwrap();
    fs_err::write(out.path().join("new"), "new").unwrap();
    out
}

fn begun_file(goal: &Path, existing: Existing) -> OutputFile {
    let mut out = OutputFile::create(goal, existing).unwrap();
    out.write_all(b"new").unwrap();
    out
}

/// Where a result was kept whose goal has appeared meanwhile.
fn kept(error: OutputError) -> PathBuf {
    match error {
        OutputError::Elsewhere { kept, why: Kept::Appeared(_), source: None } => kept,
        other => panic!("{other:?}"),
    }
}

#[test]
fn outputs_appear_only_when_complete() {
    let root = tempfile::tempdir().unwrap();
    let goals = ["out", "file"].map(|name| root.path().join(name));
    let (out, file) = (begun(&goals[0], Existing::Stays), begun_file(&goals[1], Existing::Stays));
    assert!(goals.iter().all(|goal| !goal.exists()));
    assert_eq!(out.commit().unwrap(), goals[0]);
    file.commit().unwrap();
    assert_eq!(names(root.path()), ["file", "out"]);
    assert_eq!((read(goals[0].join("new")), read(&goals[1])), ("new".to_owned(), "new".to_owned()));
}

#[test]
fn dropped_outputs_leave_nothing() {
    let root = tempfile::tempdir().unwrap();
    drop(begun(&root.path().join("out"), Existing::Stays));
    drop(begun_file(&root.path().join("file"), Existing::Stays));
    assert!(names(root.path()).is_empty());
}

#[test]
fn what_stands_at_a_goal_is_judged_before_the_work() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    folder(&at("full"), "a");
    folder(&at("earlier"), "mark");
    fs_err::create_dir(at("empty")).unwrap();
    fs_err::write(at("text"), "a").unwrap();
    fs_err::write(at("blank"), "").unwrap();
    let says = |goal: &str, existing| match OutputFolder::create(&at(goal), existing) {
        Ok(_) => "fine".to_owned(),
        Err(error) => error.to_string().replace(&format!("{}/", root.path().display()), ""),
    };
    assert_eq!(says("empty", Existing::Stays), "fine");
    assert_eq!(says("full", Existing::Stays), "full exists and is not an empty folder");
    assert_eq!(says("full", MARK), "full exists and is no earlier output: there is no `mark` in it");
    assert_eq!(says("earlier", Existing::Stays), "earlier exists and is not an empty folder");
    assert_eq!(says("earlier", MARK), "fine");
    assert_eq!(says("text", MARK), "text is no folder, but a folder is to be written there");
    assert!(says("no/such/out", MARK).starts_with("there is no folder no/such for "));
    let says = |goal: &str, existing| match OutputFile::create(&at(goal), existing) {
        Ok(_) => "fine".to_owned(),
        Err(error) => error.to_string().replace(&format!("{}/", root.path().display()), ""),
    };
    assert_eq!(says("blank", Existing::Stays), "fine");
    assert_eq!(says("text", Existing::Stays), "text exists");
    assert_eq!(says("text", Existing::Yields), "fine");
    assert_eq!(says("empty", Existing::Yields), "empty is a folder, but a file is to be written");
    assert_eq!(says("new/", Existing::Yields), "new/ is a folder, but a file is to be written");
    assert!(says("text/file", Existing::Yields).starts_with("there is no folder text for "));
    assert_eq!(read(at("text")), "a");
    assert_eq!(names(root.path()), ["blank", "earlier", "empty", "full", "text"]);
    assert!(OutputFile::create(Path::new(".."), Existing::Stays).is_err());
}

#[test]
fn what_appears_meanwhile_stays_and_the_result_gets_another_name() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let out = begun(&at("out"), MARK);
    folder(&at("out"), "notes.txt");
    folder(&at("out-2"), "of another");
    assert_eq!(kept(out.commit().unwrap_err()), at("out-3"));
    assert_eq!(
        (names(&at("out")), names(&at("out-3"))),
        (vec!["notes.txt".to_owned()], vec!["new".to_owned()])
    );

    let out = begun(&at("file-there"), Existing::Stays);
    fs_err::write(at("file-there"), "theirs").unwrap();
    assert_eq!(kept(out.commit().unwrap_err()), at("file-there-2"));
    assert_eq!(read(at("file-there")), "theirs");

    let file = begun_file(&at("labels.csv"), Existing::Stays);
    fs_err::write(at("labels.csv"), "theirs").unwrap();
    assert_eq!(kept(file.commit().unwrap_err()), at("labels-2.csv"));
    assert_eq!((read(at("labels.csv")), read(at("labels-2.csv"))), ("theirs".to_owned(), "new".to_owned()));
    assert!(names(root.path()).iter().all(|name| !name.starts_with('.')));
}

#[test]
fn what_is_empty_or_an_earlier_output_gives_way_at_the_end() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let out = begun(&at("out"), Existing::Stays);
    fs_err::create_dir(at("out")).unwrap();
    out.commit().unwrap();
    fs_err::write(at("out/mark"), "").unwrap();
    begun(&at("out"), MARK).commit().unwrap();
    assert_eq!(names(&at("out")), ["new"]);

    let file = begun_file(&at("file"), Existing::Stays);
    fs_err::write(at("file"), "").unwrap();
    file.commit().unwrap();
    fs_err::write(at("file"), "older").unwrap();
    begun_file(&at("file"), Existing::Yields).commit().unwrap();
    assert_eq!(read(at("file")), "new");
    assert_eq!(names(root.path()), ["file", "out"]);
}

#[cfg(unix)]
#[test]
fn links_lead_to_their_ends() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(at(to), at(from)).unwrap();
    fs_err::create_dir_all(at("disk/out")).unwrap();
    link("disk/out", "out");
    link("nowhere", "dangling");
    for goal in ["out", "out/"] {
        begun(&at(goal), Existing::Stays).commit().unwrap();
        assert_eq!(names(&at("disk/out")), ["new"]);
        fs_err::remove_file(at("disk/out/new")).unwrap();
    }
    assert!(at("out").is_symlink());
    let error = OutputFolder::create(&at("dangling"), MARK).unwrap_err();
    assert!(error.to_string().ends_with("is a link that leads nowhere"), "{error}");
    // One that appears meanwhile stays.
    let (out, file) = (begun(&at("late"), MARK), begun_file(&at("late.csv"), Existing::Stays));
    link("disk", "late");
    link("disk", "late.csv");
    assert_eq!(kept(out.commit().unwrap_err()), at("late-2"));
    assert_eq!(kept(file.commit().unwrap_err()), at("late-2.csv"));
    assert!(at("late").is_symlink() && at("late.csv").is_symlink());
    assert_eq!(names(&at("disk")), ["out"]);
}

#[cfg(unix)]
#[test]
fn a_living_run_is_left_alone_and_a_dead_one_is_cleared_away() {
    let root = tempfile::tempdir().unwrap();
    let goal = root.path().join("out");
    let living = begun(&goal, Existing::Stays);
    assert!(matches!(OutputFolder::create(&goal, MARK), Err(OutputError::Busy(path)) if path == goal));
    assert_eq!(read(living.path().join("new")), "new");
    drop(living);
    // A kill runs no destructor: the name stays, the lock goes.
    let dead = root.path().join(".out.aB3dE6gH.margay-partial");
    folder(&dead, "stale");
    let dead_file = root.path().join(".out.00000000.margay-partial");
    fs_err::write(&dead_file, "stale").unwrap();
    let out = begun(&goal, Existing::Stays);
    assert_eq!(out.leftovers().removed, [dead_file, dead]);
    out.commit().unwrap();
    assert_eq!((names(root.path()), names(&goal)), (vec!["out".to_owned()], vec!["new".to_owned()]));

    let file = root.path().join("file");
    let living = begun_file(&file, Existing::Stays);
    assert!(matches!(OutputFile::create(&file, Existing::Yields), Err(OutputError::Busy(_))));
    write(&file, "shared").unwrap();
    assert!(matches!(living.commit(), Err(OutputError::Elsewhere { .. })));
    assert_eq!(read(&file), "shared");
}

#[test]
fn names_of_others_are_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let others = [
        ".out.7.tmp",
        ".out.1234567.margay-partial",
        ".out.12345678.margay-partial.txt",
        ".out.b.12345678.margay-partial",
        ".outer.12345678.margay-partial",
        "out.12345678.margay-partial",
    ];
    for name in &others {
        folder(&root.path().join(name), "theirs");
    }
    let out = begun(&root.path().join("out"), Existing::Stays);
    assert!(out.leftovers().removed.is_empty());
    out.commit().unwrap();
    assert_eq!(names(&root.path().join("out")), ["new"]);
    assert!(others.iter().all(|name| root.path().join(name).join("theirs").exists()));
}

#[test]
fn long_names_and_any_bytes_are_names() {
    let root = tempfile::tempdir().unwrap();
    for name in ["ö".repeat(125), "x".repeat(250)] {
        begun(&root.path().join(&name), Existing::Stays).commit().unwrap();
        assert_eq!(names(&root.path().join(&name)), ["new"]);
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::ffi::OsStrExt as _;
        let name = std::ffi::OsStr::from_bytes(b"f\xffx");
        begun_file(&root.path().join(name), Existing::Stays).commit().unwrap();
        assert_eq!(read(root.path().join(name)), "new");
    }
}

/// A pipe, a device and this process's own streams are written as they stand.
#[cfg(unix)]
#[test]
fn streams_are_written_as_they_stand() {
    use std::os::fd::AsRawFd as _;

    let root = tempfile::tempdir().unwrap();
    let pipe = root.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || std::fs::read_to_string(pipe).unwrap()
    });
    begun_file(&pipe, Existing::Stays).commit().unwrap();
    assert_eq!(reader.join().unwrap(), "new");
    begun_file(Path::new("/dev/null"), Existing::Stays).commit().unwrap();
    assert_eq!(names(root.path()), ["pipe"]);
    #[cfg(target_os = "linux")]
    {
        let full = begun_file(Path::new("/dev/full"), Existing::Stays).commit().unwrap_err();
        assert_eq!(io::Error::from(full).kind(), ErrorKind::StorageFull);
        // Redirected to a file, to whose end is written.
        let redirected = root.path().join("redirected");
        fs_err::write(&redirected, "before ").unwrap();
        let open = std::fs::File::open(&redirected).unwrap();
        let name = format!("/proc/self/fd/{}", open.as_raw_fd());
        begun_file(Path::new(&name), Existing::Stays).commit().unwrap();
        assert_eq!(read(&redirected), "before new");
    }
}

#[test]
fn errors_of_a_library_call_keep_their_kind_and_origin() {
    let root = tempfile::tempdir().unwrap();
    let error = write(root.path().join("no/file"), "x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(OutputError::is_in(&error));
    assert!(!OutputError::is_in(&io::Error::from(ErrorKind::NotFound)));
}

/// A system without some steps that is killed before one of them.
struct Faulty {
    exchanges: bool,
    flags: bool,
    left: Cell<usize>,
    /// Done right before an exchange.
    before: RefCell<Option<Box<dyn FnOnce()>>>,
}

impl Faulty {
    fn new(exchanges: bool, left: usize) -> Self {
        Self { exchanges, flags: true, left: Cell::new(left), before: RefCell::default() }
    }

    fn step(&self) {
        assert!(self.left.get() > 0, "killed");
        self.left.set(self.left.get() - 1);
    }
}

impl Moves for Faulty {
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        if self.flags { System.rename_new(from, to) } else { rename_without_flags(from, to) }
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        if !self.exchanges {
            return Err(ErrorKind::Unsupported.into());
        }
        self.step();
        if let Some(before) = self.before.take() {
            before();
        }
        System.exchange(one, other)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        System.rename(from, to)
    }
}

/// What is left when the process dies after so many steps: nothing is cleared away.
fn killed_after(goal: &Goal, moves: &Faulty) {
    let staging = Staging::folder(goal.parent(), goal.name()).unwrap();
    fs_err::write(staging.path().join("mark"), "new").unwrap();
    let path = staging.path().to_owned();
    let dies = || super::place::put(moves, &path, goal);
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(dies));
    super::staging::forget(staging);
}

#[cfg(target_os = "linux")]
#[test]
fn a_kill_between_the_steps_leaves_the_old_or_the_new() {
    for exchanges in [true, false] {
        let mut seen = Vec::new();
        for steps in 0..4 {
            let root = tempfile::tempdir().unwrap();
            let goal = Goal::new(&root.path().join("out"), Kind::Folder, MARK).unwrap();
            fs_err::create_dir(&goal.path).unwrap();
            fs_err::write(goal.path.join("mark"), "old").unwrap();
            killed_after(&goal, &Faulty::new(exchanges, steps));
            if exchanges {
                assert!(goal.path.exists(), "after {steps} steps");
            }
            // The next run finds one of them in its place, and nothing else is left.
            let again = OutputFolder::create(&goal.path, MARK).unwrap();
            let found = read(goal.path.join("mark"));
            assert_eq!(again.leftovers().restored.len(), usize::from(!exchanges && steps == 2));
            drop(again);
            assert_eq!(names(root.path()), ["out"], "after {steps} steps");
            seen.push(found);
        }
        let expected = if exchanges { ["old", "old", "new", "new"] } else { ["old", "old", "old", "new"] };
        assert_eq!(seen, expected);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_comes_between_look_and_step_is_put_back() {
    let root = tempfile::tempdir().unwrap();
    let goal = Goal::new(&root.path().join("out"), Kind::Folder, MARK).unwrap();
    folder(&goal.path, "mark");
    let staging = Staging::folder(goal.parent(), goal.name()).unwrap();
    fs_err::write(staging.path().join("new"), "new").unwrap();
    let moves = Faulty::new(true, usize::MAX);
    let path = goal.path.clone();
    *moves.before.borrow_mut() = Some(Box::new(move || {
        fs_err::remove_file(path.join("mark")).unwrap();
        fs_err::write(path.join("notes.txt"), "theirs").unwrap();
    }));
    assert_eq!(kept(staging.settle(&goal, &moves).unwrap_err()), root.path().join("out-2"));
    assert_eq!(names(&goal.path), ["notes.txt"]);
    assert_eq!(names(&root.path().join("out-2")), ["new"]);
    assert_eq!(names(root.path()), ["out", "out-2"]);
}

#[test]
fn without_flags_nothing_is_replaced_either() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let moves = || Faulty { flags: false, ..Faulty::new(false, usize::MAX) };
    for (name, kind) in [("out", Kind::Folder), ("file", Kind::File)] {
        let goal = Goal::new(&at(name), kind, Existing::Stays).unwrap();
        let staged = || match kind {
            Kind::Folder => Staging::folder(goal.parent(), goal.name()).unwrap(),
            Kind::File => Staging::file(goal.parent(), goal.name()).unwrap().0,
        };
        staged().settle(&goal, &moves()).unwrap();
        // Empty, it gives way; then it does not.
        staged().settle(&goal, &moves()).unwrap();
        match kind {
            Kind::Folder => fs_err::write(goal.path.join("notes"), "theirs").unwrap(),
            Kind::File => fs_err::write(&goal.path, "theirs").unwrap(),
        }
        assert_eq!(kept(staged().settle(&goal, &moves()).unwrap_err()), at(&format!("{name}-2")));
    }
    assert_eq!((names(&at("out")), read(at("file"))), (vec!["notes".to_owned()], "theirs".to_owned()));
    assert_eq!(names(root.path()), ["file", "file-2", "out", "out-2"]);
}
