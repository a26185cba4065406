//! Every choice of a run from its three sources: flag, then recipe file, then default.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use margay_core::{input, nearest_name};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::exit::{Failure, OrFail};
use crate::allocate::ALLOCATORS;
use crate::options::{self, Flags, Given, Opt, Options, merge};
use crate::preprocess::PRESETS;
use crate::recipe::{ClassSpec, InputSpec, Job, Recipe, Schedule};

/// Recipes, experiments and documents longer than this are none.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Accuracy that `compress` may lose if nobody says so.
const MAX_DROP: f64 = 0.03;

/// The options of a command that takes recipes.
pub trait JobFlags: Flags {
    /// What the options make.
    type Recipe: DeserializeOwned;
    /// The command that its recipes name.
    const JOB: Job;

    /// What holds where a recipe does not say it.
    fn beneath() -> Table {
        Self::defaults()
    }
}

/// A recipe file and flags over it.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RecipeArgs<F: JobFlags> {
    /// Recipe file (TOML) with any of the values below; flags win over it
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    #[command(flatten)]
    pub given: Given<F>,
}

/// Options of `margay compress`.
#[derive(Clone, Debug, Default)]
pub struct CompressFlags;

impl Flags for CompressFlags {
    fn options() -> Vec<Opt> {
        Recipe::options()
    }

    fn defaults() -> Table {
        let mut recipe = unnamed();
        recipe.prune.max_drop = Some(MAX_DROP);
        recipe.to_table()
    }
}

impl JobFlags for CompressFlags {
    type Recipe = Recipe;
    const JOB: Job = Job::Compress;

    /// A recipe without a limit has none.
    fn beneath() -> Table {
        unnamed().to_table()
    }
}

/// Options of `margay front`, which is told its targets and has no limit.
#[derive(Clone, Debug, Default)]
pub struct FrontFlags;

impl JobFlags for FrontFlags {
    type Recipe = Recipe;
    const JOB: Job = Job::Compress;
}

impl Flags for FrontFlags {
    fn options() -> Vec<Opt> {
        Recipe::options().into_iter().filter(|option| option.path() != "prune.max-drop").collect()
    }

    fn defaults() -> Table {
        unnamed().to_table()
    }
}

/// The defaults of a recipe that has no files yet.
pub fn unnamed() -> Recipe {
    Recipe::new(PathBuf::new(), PathBuf::new())
}

/// Flag > recipe file > default, every value checked.
pub fn resolve<F: JobFlags>(args: &RecipeArgs<F>, threads: Option<usize>) -> Result<F::Recipe, Failure> {
    let mut told = "the recipe is incomplete".to_owned();
    let base = match &args.recipe {
        None => F::defaults(),
        Some(path) => {
            told = format!("{} is no recipe", path.display());
            let file: Table = read_text(path, "could not read the recipe")?.parse().or_usage(&told)?;
            check_job(&file, F::JOB, path)?;
            let mut base = F::beneath();
            merge(&mut base, &file);
            base
        }
    };
    let mut table = args.given.over(base);
    if let Some(threads) = threads {
        table.insert("threads".to_owned(), Value::Integer(threads as i64));
    }
    for key in ["model", "data"] {
        if table.get(key).is_some_and(|value| value.as_str() == Some("")) {
            return Err(missing(key));
        }
    }
    table.try_into().map_err(|error: toml::de::Error| {
        let hint = suggestion(error.message());
        let failure = Err::<(), _>(error).or_usage(&told).unwrap_err();
        Failure { hint, ..failure }
    })
}

/// A recipe of another command would be read as something that it is not.
fn check_job(file: &Table, job: Job, path: &Path) -> Result<(), Failure> {
    let Some(Value::String(named)) = file.get("job") else { return Ok(()) };
    let own = Value::try_from(job).expect("a job is a word");
    if own.as_str() == Some(named) {
        return Ok(());
    }
    let message = format!("{} is a recipe of `margay {named}`", path.display());
    Err(Failure::usage(message).hint(format!("margay {named} --recipe {}", path.display())))
}

/// Checks the range of every number.
pub fn in_range<T: Options + Serialize>(options: &T) -> Result<(), Failure> {
    options::check(options).map_err(|error| Failure::usage(error.to_string()))
}

/// Text that the user names. A path that is wrong is wrong usage; what is there and cannot be used is bad input.
pub fn read_text(path: &Path, context: &str) -> Result<String, Failure> {
    let text = input::read_to_string(path, MAX_TEXT_BYTES);
    match &text {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::FileTooLarge) => {
            text.or_bad_input(context)
        }
        _ => text.or_usage(context),
    }
}

fn missing(key: &str) -> Failure {
    Failure::usage(format!("no {key} is given"))
        .hint(format!("pass --{key}, or a --recipe that names its `{key}`"))
}

/// serde's message names the unknown word and the known ones in backticks: the nearest is the hint.
pub fn suggestion(message: &str) -> Option<String> {
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = words.next()?;
    nearest_name(unknown, words).map(|near| format!("did you mean `{near}`?"))
}

/// Checks every value, wherever it came from.
pub fn check(recipe: &Recipe) -> Result<(), Failure> {
    let Recipe { classes, input, prune, recovery, device, adapt, .. } = recipe;
    check_device(device)?;
    check_classes(classes)?;
    known("solver", &prune.solver, solver_names())?;
    known("allocation", &prune.allocation, Some(ALLOCATORS.iter().map(|a| a.name()).collect()))?;
    known("adapter", &adapt.method, adapter_names())?;
    check_input(input)?;
    in_range(recipe)?;
    if recovery.schedule == Schedule::Gradual && prune.target.is_some() {
        let message = "a gradual schedule halves weights, so that its target must be a number of weights";
        return Err(Failure::usage(message.to_owned()).hint("use --target 20x, or another --recovery"));
    }
    Ok(())
}

/// Checks where classes are, and that a mapping has a head to map to.
pub fn check_classes(classes: &ClassSpec) -> Result<(), Failure> {
    if let Some((class, _)) = classes.map.iter().find(|(_, labels)| labels.is_empty()) {
        return Err(Failure::usage(format!("classes.map names no label for `{class}`")));
    }
    if classes.fit_head && !classes.map.is_empty() {
        return Err(Failure::usage("a class cannot be mapped to labels of a head that is thrown away")
            .hint("leave out either fit-head or map"));
    }
    Ok(())
}

/// The preset exists.
pub fn check_input(input: &InputSpec) -> Result<(), Failure> {
    match &input.preprocess {
        Some(name) => known("preprocessing", name, Some(PRESETS.iter().map(|preset| preset.name).collect())),
        None => Ok(()),
    }
}

/// `auto`, `cpu`, `cuda` or `cuda:n`; whether the device exists is found out when it is used.
pub fn check_device(name: &str) -> Result<(), Failure> {
    let numbered = name.strip_prefix("cuda:").is_some_and(|n| n.parse::<u8>().is_ok());
    if numbered || ["auto", "cpu", "cuda"].contains(&name) {
        return Ok(());
    }
    Err(Failure::usage(format!("`{name}` is no device")).hint("use auto, cpu, cuda or cuda:n"))
}

/// Checks that a number is in a range; NaN never is.
pub fn within(name: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<(), Failure> {
    let range = [*range.start(), *range.end()];
    options::within(name, value, range).map_err(|error| Failure::usage(error.to_string()))
}

fn known(what: &str, name: &str, table: Option<Vec<&str>>) -> Result<(), Failure> {
    let Some(table) = table.filter(|table| !table.contains(&name)) else { return Ok(()) };
    let near = nearest_name(name, table.iter().copied());
    let hint = match near {
        Some(near) => format!("did you mean `{near}`? Known: {}", table.join(", ")),
        None => format!("known: {}", table.join(", ")),
    };
    Err(Failure::usage(format!("there is no {what} `{name}`")).hint(hint))
}

/// Names of the solvers; unknown in a build without libtorch, which cannot prune.
#[cfg_attr(feature = "torch", expect(clippy::unnecessary_wraps, reason = "absent without libtorch"))]
fn solver_names() -> Option<Vec<&'static str>> {
    #[cfg(feature = "torch")]
    return Some(crate::prune::SOLVERS.iter().map(|s| s.name()).collect());
    #[cfg(not(feature = "torch"))]
    None
}

/// Names of the adapters; unknown in a build without libtorch, which cannot train.
#[cfg_attr(feature = "torch", expect(clippy::unnecessary_wraps, reason = "absent without libtorch"))]
pub fn adapter_names() -> Option<Vec<&'static str>> {
    #[cfg(feature = "torch")]
    return Some(crate::adapt::ADAPTERS.iter().map(|a| a.name()).collect());
    #[cfg(not(feature = "torch"))]
    None
}

#[cfg(test)]
mod tests;
