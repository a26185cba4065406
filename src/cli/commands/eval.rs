//! `margay eval`: accuracy of a model file on a folder of photos.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use margay_core::{SparseModel, nearest_name};
use margay_runtime::{Classifier, highest};
use serde::Serialize;
use toml::Table;

use super::engine::{EngineArgs, classifier, read_adapted};
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, OrFail};
use crate::cli::settings::{in_range, within};
use crate::data::{Dataset, Sample};
use crate::labels::{from_names, match_each};
use crate::names;
use crate::options::{Flags, Given, Opt, Options};
use crate::progress::Progress;
use crate::recipe::ClassSpec;
use crate::record::{BadPhoto, Evaluation, LeftOutKind, NotedPhoto};

/// Confusions listed in the table.
const CONFUSIONS: usize = 8;

/// Measures a specialist on labelled photos
///
/// DATA holds one folder per class. Where it has a val/ folder (or valid/, validation/, …, else test/) only that is
/// used, else every photo.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  margay eval out/specialist.margay data/ --min-top1 0.8 --json")]
pub struct EvalArgs {
    /// Model file written by `margay compress`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Folder of an adapter that `margay adapt` made for this model
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Folder with one folder per class, optionally under train/ and val/
    #[arg(value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    folders: Given<FolderFlags>,
    /// Print the measurement as JSON
    #[arg(long)]
    json: bool,
    /// End with exit code 1 if fewer than this fraction of the answers are right
    #[arg(long, value_name = "FRACTION")]
    min_top1: Option<f64>,
    /// End with exit code 4 if a photo could not be read
    #[arg(long)]
    strict: bool,
}

/// How folders are the model's classes.
#[derive(Clone, Debug, Default)]
struct FolderFlags;

impl Flags for FolderFlags {
    fn options() -> Vec<Opt> {
        ClassSpec::options().into_iter().filter(|option| option.key != "fit-head").collect()
    }

    fn defaults() -> Table {
        Table::try_from(ClassSpec::default()).expect("options have a place in TOML")
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    data: String,
    #[serde(flatten)]
    evaluation: Evaluation,
    bad_photos: Vec<BadPhoto>,
    left_out: Vec<LeftOutKind>,
    noted_photos: Vec<NotedPhoto>,
    warnings: Vec<String>,
}

pub fn run(args: &EvalArgs, context: &Context) -> Result<Exit, Failure> {
    if let Some(least) = args.min_top1 {
        within("min-top1", least, 0.0..=1.0)?;
    }
    let model = read_adapted(&args.model, args.adapter.as_deref(), &args.engine.limits())?;
    let mut progress = context.progress();
    let spec: ClassSpec =
        args.folders.over(FolderFlags::defaults()).try_into().expect("flags are read by their options");
    in_range(&spec)?;
    let dataset =
        Dataset::scan_for_evaluation(&args.data, &spec).or_bad_input("could not use the data folder")?;
    dataset.tell(&mut progress);
    let truth = Truth::new(&dataset, &model, &spec, &mut progress)?;
    let options = args.engine.options(context);
    let mut classifier = classifier(&model, &options)?;
    let Outcome { evaluation, bad_photos, noted_photos } =
        evaluate(&mut classifier, &args.data, &truth, &mut progress);
    dataset.left_out.tell(&mut progress);
    let measured = Measured {
        model: names::path(&args.model),
        data: names::path(&args.data),
        evaluation,
        bad_photos,
        left_out: dataset.left_out.kinds(),
        noted_photos,
        warnings: progress.warnings().to_vec(),
    };
    context.printer.show(args.json, &measured, table)?;
    let noted = measured.noted_photos.len();
    if noted > 0 {
        context.printer.warn(&format!("{noted} photos are truncated or damaged and were judged as they are"));
    }
    verdict(args, &measured, context)
}

fn verdict(args: &EvalArgs, measured: &Measured, context: &Context) -> Result<Exit, Failure> {
    let Some(top1) = measured.evaluation.top1 else {
        return Err(Failure::new(Exit::BadInput, "none of the photos could be evaluated"));
    };
    if let Some(least) = args.min_top1.filter(|least| top1 < *least) {
        context.printer.warn(&format!("top-1 {:.1} % is below {:.1} %", 100.0 * top1, 100.0 * least));
        return Ok(Exit::GateFailed);
    }
    let strict = args.strict && !measured.bad_photos.is_empty();
    Ok(if strict { Exit::BadPhotos } else { Exit::Success })
}

/// What the folders say, in terms of the model's labels.
struct Truth {
    /// Names of the answers: the model's labels, those that one folder stands for joined under its name.
    names: Vec<String>,
    /// The model's outputs behind each answer.
    outputs: Vec<Vec<usize>>,
    /// Photos, with positions in `names` for classes.
    samples: Vec<Sample>,
}

impl Truth {
    /// Photos of the classes that the model knows; the others are warned about and left out.
    fn new(
        dataset: &Dataset,
        model: &SparseModel,
        spec: &ClassSpec,
        progress: &mut dyn Progress,
    ) -> Result<Self, Failure> {
        let labels = from_names(model.labels.clone());
        dataset.check_classes(&labels).or_bad_input("could not use the data folder")?;
        let found =
            match_each(&dataset.classes, &labels, spec).or_bad_input("could not use the class folders")?;
        let (mut names, mut outputs) = (Vec::new(), Vec::new());
        for (at, label) in model.labels.iter().enumerate() {
            let joined = found.iter().position(|outputs| outputs.len() > 1 && outputs.contains(&at));
            match joined {
                Some(class) if found[class][0] != at => {}
                Some(class) => {
                    names.push(dataset.classes[class].clone());
                    outputs.push(found[class].clone());
                }
                None => {
                    names.push(label.clone());
                    outputs.push(vec![at]);
                }
            }
        }
        let positions: Vec<Option<usize>> = found
            .iter()
            .map(|found| outputs.iter().position(|outputs| !found.is_empty() && outputs == found))
            .collect();
        for (class, _) in dataset.classes.iter().zip(&positions).filter(|(_, position)| position.is_none()) {
            let near = nearest_name(class, model.labels.iter().map(String::as_str));
            let near =
                near.map_or_else(String::new, |near| format!(" (nearest label: `{near}`; --map says it)"));
            progress.warn(&format!("the model does not know class `{class}`{near}: its photos are ignored"));
        }
        let moved = dataset
            .val
            .iter()
            .filter_map(|s| Some(Sample { class: positions[s.class]?, path: s.path.clone() }));
        let samples: Vec<Sample> = moved.collect();
        if samples.is_empty() {
            return Err(Failure::new(Exit::BadInput, "the data holds no photos of the model's classes")
                .hint(format!("the model knows {}", model.labels.join(", "))));
        }
        Ok(Self { names, outputs, samples })
    }

    /// The answer that logits of the model are.
    fn answer(&self, logits: &[f32]) -> usize {
        let joined = |outputs: &Vec<usize>| match outputs.as_slice() {
            [one] => logits[*one],
            many => log_sum_exp(many.iter().map(|at| logits[*at])),
        };
        highest(&self.outputs.iter().map(joined).collect::<Vec<_>>(), 1)[0]
    }
}

/// The logit of several classes as one.
fn log_sum_exp(logits: impl Iterator<Item = f32> + Clone) -> f32 {
    let most = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    most + logits.map(|logit| (logit - most).exp()).sum::<f32>().ln()
}

/// What the photos' answers come to.
struct Outcome {
    evaluation: Evaluation,
    bad_photos: Vec<BadPhoto>,
    noted_photos: Vec<NotedPhoto>,
}

fn evaluate(classifier: &mut Classifier, root: &Path, truth: &Truth, progress: &mut dyn Progress) -> Outcome {
    let (mut classes, mut predicted) = (Vec::new(), Vec::new());
    let (mut bad_photos, mut noted_photos) = (Vec::new(), Vec::new());
    progress.start("evaluate", truth.samples.len() as u64);
    for group in truth.samples.chunks(classifier.batch()) {
        let paths: Vec<PathBuf> = group.iter().map(|sample| sample.path.clone()).collect();
        for (sample, answer) in group.iter().zip(classifier.classify_files(&paths)) {
            let path = names::path(sample.path.strip_prefix(root).unwrap_or(&sample.path));
            match answer {
                Ok(prediction) => {
                    classes.push(sample.class);
                    predicted.push(truth.answer(prediction.logits()));
                    let note = prediction.note().map(ToString::to_string);
                    noted_photos.extend(note.map(|note| NotedPhoto { path, note }));
                }
                Err(error) => {
                    progress.warn(&format!("skipped a photo: `{path}` {error}"));
                    bad_photos.push(BadPhoto { path, reason: error.to_string() });
                }
            }
        }
        progress.advance(group.len() as u64);
    }
    progress.finish();
    let evaluation = Evaluation::from_predictions(&truth.names, &classes, &predicted);
    Outcome { evaluation, bad_photos, noted_photos }
}

fn table(measured: &Measured) -> String {
    let evaluation = &measured.evaluation;
    let mut text = String::new();
    let percent = |fraction: f64| 100.0 * fraction;
    if let Some(top1) = evaluation.top1 {
        let [low, high] = evaluation.top1_interval.map(percent);
        let (right, total) = (evaluation.correct, evaluation.total);
        let top1 = percent(top1);
        let _ =
            writeln!(text, "top-1 {top1:.1} % (95 % interval {low:.1} to {high:.1}), {right} of {total}\n");
    }
    let width =
        evaluation.classes.iter().map(|c| names::line(&c.label).chars().count()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "{:<width$}  recall    95 % interval   photos", "class");
    for class in &evaluation.classes {
        let [low, high] = class.interval.map(percent);
        let _ = match class.recall.map(percent) {
            Some(recall) => writeln!(
                text,
                "{:<width$}  {recall:>5.1} %  {low:>5.1} to {high:>5.1}  {:>7}",
                names::line(&class.label),
                class.total
            ),
            None => {
                writeln!(text, "{:<width$}  unknown                         0", names::line(&class.label))
            }
        };
    }
    text + &confusions(evaluation)
}

/// The most frequent wrong answers.
fn confusions(evaluation: &Evaluation) -> String {
    let mut wrong: Vec<_> = evaluation.confusion.iter().filter(|cell| cell.truth != cell.predicted).collect();
    wrong.sort_by_key(|cell| (std::cmp::Reverse(cell.count), cell.truth, cell.predicted));
    if wrong.is_empty() {
        return String::new();
    }
    let name = |class: usize| names::line(&evaluation.classes[class].label);
    let lines = wrong
        .iter()
        .take(CONFUSIONS)
        .map(|cell| format!("{:>5} x {} taken for {}\n", cell.count, name(cell.truth), name(cell.predicted)));
    "\nmost frequent confusions\n".to_owned() + &lines.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_recalls_confusions_and_what_is_unknown() {
        let labels: Vec<String> = ["fox", "hare", "lynx"].map(String::from).into();
        let measured = Measured {
            model: "m".into(),
            data: "d".into(),
            evaluation: Evaluation::from_predictions(&labels, &[0, 0, 0, 1], &[0, 0, 1, 1]),
            bad_photos: Vec::new(),
            left_out: Vec::new(),
            noted_photos: Vec::new(),
            warnings: Vec::new(),
        };
        let text = table(&measured);
        assert!(text.starts_with("top-1 75.0 %"), "{text}");
        assert!(text.contains("1 x fox taken for hare"), "{text}");
        assert!(text.contains("lynx   unknown"), "{text}");
    }
}
