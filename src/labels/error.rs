use std::io;
use std::path::PathBuf;

/// Why class names are unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The file cannot be read; the message names it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file has a form, but names are not found in it.
    #[error("`{}` holds no class names that are understood: {reason}; {FORMS}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The numbers of the names leave a gap.
    #[error("`{}` has {count} names, but none for index {missing}", path.display())]
    Gap {
        /// The file.
        path: PathBuf,
        /// Names there are.
        count: usize,
        /// The first index without a name.
        missing: usize,
    },
    /// The file is not text.
    #[error("`{}` is neither UTF-8 nor UTF-16 text: save it as UTF-8", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A name is blank, or there is none at all.
    #[error("`{}` has no name at index {index}", path.display())]
    Blank {
        /// The file.
        path: PathBuf,
        /// Where a name was expected.
        index: usize,
    },
    /// There are not as many names as the checkpoint has outputs.
    #[error(
        "`{}` has {names} class names for a head of {outputs} outputs; give the names of the checkpoint, one \
         per output, not those of the photos", path.display()
    )]
    Count {
        /// The file.
        path: PathBuf,
        /// Names there are.
        names: usize,
        /// Outputs of the head.
        outputs: usize,
    },
    /// The checkpoint's head would be thrown away although its labels seem to be meant.
    #[error(
        "{} of {classes} classes are not among the checkpoint's labels, but these are near:\n{}\
         rename the folders, or say what is meant ({}); --fit-head fits a new head instead",
        pairs.len(), side_by_side(pairs), flags(pairs)
    )]
    Spelling {
        /// Each such class with the labels that are near.
        pairs: Vec<(String, Vec<String>)>,
        /// Classes there are.
        classes: usize,
    },
    /// Several labels fit a class, and which one is meant is not said.
    #[error(
        "class `{class}` fits the checkpoint's outputs {outputs:?}, which are named alike: say which, as in `--map \
         '{class}={}'` (several, joined by commas, count as one); --fit-head fits a new head instead", outputs[0]
    )]
    Ambiguous {
        /// Name of the class.
        class: String,
        /// Outputs of the checkpoint that fit.
        outputs: Vec<usize>,
    },
    /// One output stands for several classes, and cannot tell them apart.
    #[error(
        "the folders {} all mean the checkpoint's label `{label}`, and one output cannot tell them apart: merge the \
         folders, or fit a new head with --fit-head",
        quoted(classes)
    )]
    Shared {
        /// The label.
        label: String,
        /// Its classes.
        classes: Vec<String>,
    },
    /// A mapping names a class that has no folder.
    #[error("`--map {class}=…` names no class of the photos{}; they are {}", near(nearest.as_deref()), quoted(classes))]
    NoClass {
        /// What was named.
        class: String,
        /// The class that looks most like it.
        nearest: Option<String>,
        /// The first classes there are.
        classes: Vec<String>,
    },
    /// A mapping names a label that the checkpoint has not.
    #[error(
        "`--map {class}={label}` names no label of the checkpoint{}; an output may also be given by its number",
        near(nearest.as_deref())
    )]
    NoLabel {
        /// The class.
        class: String,
        /// What was named.
        label: String,
        /// The label that looks most like it.
        nearest: Option<String>,
    },
    /// A mapping fits several labels.
    #[error("`--map {class}={label}` fits the outputs {outputs:?} of the checkpoint: give the number of one")]
    ManyLabels {
        /// The class.
        class: String,
        /// What was named.
        label: String,
        /// Outputs that fit.
        outputs: Vec<usize>,
    },
    /// A mapping without names to map to.
    #[error("--map needs the checkpoint's class names, and it has none: give --labels")]
    NoNames,
}

const FORMS: &str = "give a text file with a name per line, a JSON list, {\"0\": name, …}, {name: 0, …}, a config.json \
                     with id2label, a Keras class index, a YAML file with names, or a CSV file with a column of names";

/// The most pairs that a message shows.
const PAIRS: usize = 20;

fn side_by_side(pairs: &[(String, Vec<String>)]) -> String {
    let width = pairs.iter().take(PAIRS).map(|(class, _)| class.chars().count()).max().unwrap_or(0).max(6);
    let rows =
        pairs.iter().take(PAIRS).map(|(class, near)| format!("  {class:<width$}  {}\n", near.join(" | ")));
    let rest = pairs.len().saturating_sub(PAIRS);
    let more = if rest > 0 { format!("  and {rest} more\n") } else { String::new() };
    format!("  {:<width$}  label\n", "folder") + &rows.collect::<String>() + &more
}

fn flags(pairs: &[(String, Vec<String>)]) -> String {
    let flags = pairs.iter().take(3).map(|(class, near)| {
        let near: Vec<&str> =
            near.iter().map(|label| label.split(',').next().unwrap_or(label).trim()).collect();
        format!("--map '{class}={}'", near.join(","))
    });
    flags.collect::<Vec<_>>().join(" ")
}

fn near(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(" (did you mean `{nearest}`?)"))
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
