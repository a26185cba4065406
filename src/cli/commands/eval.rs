//! `margay eval`: accuracy of a model file on a folder of photos.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use margay_core::SparseModel;
use serde::Serialize;

use super::engine::{Engine, EngineArgs, highest, read_adapted};
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, OrFail};
use crate::cli::settings::within;
use crate::data::{Dataset, HeadPlan, Sample, match_classes};
use crate::progress::Progress;
use crate::names;
use crate::record::{BadPhoto, Evaluation, NotedPhoto};

/// Photos decoded and classified at a time.
const GROUP: usize = 64;

/// Confusions listed in the table.
const CONFUSIONS: usize = 8;

/// Measures a specialist on labelled photos
///
/// DATA holds one folder per class. Where it has a val/ folder only that is used, else every photo.
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

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Measured {
    model: String,
    data: String,
    #[serde(flatten)]
    evaluation: Evaluation,
    bad_photos: Vec<BadPhoto>,
    noted_photos: Vec<NotedPhoto>,
    warnings: Vec<String>,
}

pub fn run(args: &EvalArgs, context: &Context) -> Result<Exit, Failure> {
    if let Some(least) = args.min_top1 {
        within("min-top1", least, 0.0..=1.0)?;
    }
    let model = read_adapted(&args.model, args.adapter.as_deref())?;
    let mut progress = context.progress();
    let samples = labelled_photos(args, &model, &mut progress)?;
    let options = args.engine.options(context);
    let mut engine = Engine::new(&model, &options)?;
    let Outcome { evaluation, bad_photos, noted_photos } =
        evaluate(&mut engine, &args.data, &samples, &mut progress)?;
    let measured = Measured {
        model: names::path(&args.model),
        data: names::path(&args.data),
        evaluation,
        bad_photos,
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

/// Photos of the classes that the model knows, with positions among its labels.
fn labelled_photos(
    args: &EvalArgs,
    model: &SparseModel,
    progress: &mut dyn Progress,
) -> Result<Vec<Sample>, Failure> {
    let dataset = Dataset::scan_for_evaluation(&args.data).or_bad_input("could not use the data folder")?;
    dataset.tell(progress);
    let mut samples = dataset.val.clone();
    let mut positions = Vec::with_capacity(dataset.classes.len());
    for class in &dataset.classes {
        let position = match match_classes(std::slice::from_ref(class), &model.labels) {
            HeadPlan::Slice(rows) => rows.first().copied(),
            HeadPlan::Probe(_) => None,
        };
        if position.is_none() {
            progress.warn(&format!("the model does not know class `{class}`: its photos are ignored"));
        }
        positions.push(position);
    }
    samples.retain(|sample| positions[sample.class].is_some());
    if samples.is_empty() {
        return Err(Failure::new(Exit::BadInput, "the data holds no photos of the model's classes")
            .hint(format!("the model knows {}", model.labels.join(", "))));
    }
    let moved = samples.into_iter().filter_map(|s| Some(Sample { class: positions[s.class]?, path: s.path }));
    Ok(moved.collect())
}

/// What the photos' answers come to.
struct Outcome {
    evaluation: Evaluation,
    bad_photos: Vec<BadPhoto>,
    noted_photos: Vec<NotedPhoto>,
}

fn evaluate(
    engine: &mut Engine,
    root: &Path,
    samples: &[Sample],
    progress: &mut dyn Progress,
) -> Result<Outcome, Failure> {
    let (mut truth, mut predicted) = (Vec::new(), Vec::new());
    let (mut bad_photos, mut noted_photos) = (Vec::new(), Vec::new());
    progress.start("evaluate", samples.len() as u64);
    for group in samples.chunks(GROUP) {
        let paths: Vec<PathBuf> = group.iter().map(|sample| sample.path.clone()).collect();
        for (sample, answered) in group.iter().zip(engine.answer(&paths)?) {
            let path = names::path(sample.path.strip_prefix(root).unwrap_or(&sample.path));
            match answered {
                Ok(answer) => {
                    truth.push(sample.class);
                    predicted.extend(highest(&answer.logits, 1));
                    noted_photos.extend(answer.note.map(|note| NotedPhoto { path, note: note.to_string() }));
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
    let evaluation = Evaluation::from_predictions(&engine.labels, &truth, &predicted);
    Ok(Outcome { evaluation, bad_photos, noted_photos })
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
    let width = evaluation.classes.iter().map(|c| names::line(&c.label).chars().count()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "{:<width$}  recall    95 % interval   photos", "class");
    for class in &evaluation.classes {
        let [low, high] = class.interval.map(percent);
        let _ = match class.recall.map(percent) {
            Some(recall) => writeln!(
                text,
                "{:<width$}  {recall:>5.1} %  {low:>5.1} to {high:>5.1}  {:>7}",
                names::line(&class.label), class.total
            ),
            None => writeln!(text, "{:<width$}  unknown                         0", names::line(&class.label)),
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
            noted_photos: Vec::new(),
            warnings: Vec::new(),
        };
        let text = table(&measured);
        assert!(text.starts_with("top-1 75.0 %"), "{text}");
        assert!(text.contains("1 x fox taken for hare"), "{text}");
        assert!(text.contains("lynx   unknown"), "{text}");
    }
}
