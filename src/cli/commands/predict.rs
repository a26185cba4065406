//! `margay predict`: labels for photos, as CSV or JSON, a bounded number at a time.

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use margay_runtime::{Prediction, PredictionError};
use serde::Serialize;

use super::engine::{EngineArgs, classifier, read_adapted};
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, OrFail};
use crate::cli::output::OutputFile;
use crate::data::Photos;
use crate::progress::Progress;

use self::listing::Listing;

mod listing;
mod rows;

/// Labels photos with a specialist
///
/// Writes one row per photo: path, best labels with probabilities, error, note. A photo that cannot be read
/// keeps its row, with the reason in the column `error`, and the run goes on. A photo that is truncated or damaged
/// is answered if at least half of its rows are sound; the column `note` tells. Files below a folder that are no
/// photos are counted by kind at the end.
///
/// Paths are those inside the folder, if one folder is given, else as they are given. The same file has one row,
/// however often it is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  margay predict out/specialist.margay photos/ -o labels.csv")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct PredictArgs {
    /// Model file written by `margay compress`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Folder of an adapter that `margay adapt` made for this model
    #[arg(long, value_name = "FOLDER")]
    adapter: Option<PathBuf>,
    #[command(flatten)]
    engine: EngineArgs,
    /// Photos, or folders that are searched for photos
    #[arg(value_name = "PHOTOS", required = true)]
    photos: Vec<PathBuf>,
    /// File to write instead of stdout; .json means --json
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace that file if it exists
    #[arg(long, requires = "out")]
    force: bool,
    /// Write a JSON list instead of CSV
    #[arg(long)]
    json: bool,
    /// Number of labels per photo
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    top: u16,
    /// Follow links that lead out of the folders
    #[arg(long)]
    follow_links: bool,
    /// Write whole paths
    #[arg(long)]
    absolute: bool,
    /// End with exit code 4 if a photo could not be read
    #[arg(long)]
    strict: bool,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    Json,
}

/// What is known of one photo.
#[derive(Debug, Serialize)]
struct Row {
    path: String,
    label: Option<String>,
    probability: Option<f32>,
    top: Vec<Ranked>,
    error: Option<String>,
    note: Option<String>,
}

/// A label and its probability.
#[derive(Debug, Serialize)]
struct Ranked {
    label: String,
    probability: f32,
}

pub fn run(args: &PredictArgs, context: &Context) -> Result<Exit, Failure> {
    let model = read_adapted(&args.model, args.adapter.as_deref(), &args.engine.limits())?;
    let options = args.engine.options(context);
    let mut classifier = classifier(&model, &options)?;
    let mut progress = context.progress();
    let found = Photos::find(&args.photos, args.follow_links).or_bad_input("could not use the photos")?;
    found.tell(&mut progress);
    let photos = Listing::new(&args.photos, found.paths(), args.absolute);
    let top = usize::from(args.top).min(classifier.labels().len());
    let mut sink = Sink::open(args, top, context)?;
    let mut counts = Counts { duplicates: photos.duplicates, ..Counts::default() };
    progress.start("predict", photos.files.len() as u64);
    for (files, names) in photos.groups(classifier.batch()) {
        for (name, answer) in names.iter().zip(classifier.classify_files(files)) {
            let row = row(name, answer, top);
            if let Some(error) = &row.error {
                progress.warn(&format!("`{name}` {error}"));
            }
            counts.add(&row);
            sink.write(&row)?;
        }
        progress.advance(files.len() as u64);
    }
    progress.finish();
    sink.finish()?;
    found.left_out.tell(&mut progress);
    context.printer.note(&counts.tell());
    Ok(if counts.failed > 0 && args.strict { Exit::BadPhotos } else { Exit::Success })
}

fn row(name: &str, answer: Result<Prediction, PredictionError>, top: usize) -> Row {
    let path = name.to_owned();
    let prediction = match answer {
        Ok(prediction) => prediction,
        Err(error) => {
            let error = Some(error.to_string());
            return Row { path, label: None, probability: None, top: Vec::new(), error, note: None };
        }
    };
    let ranked = prediction.top(top).into_iter();
    let top: Vec<Ranked> =
        ranked.map(|best| Ranked { label: best.label.to_owned(), probability: best.probability }).collect();
    let (label, probability) = top.first().map(|best| (best.label.clone(), best.probability)).unzip();
    Row { path, label, probability, top, error: None, note: prediction.note().map(ToString::to_string) }
}

/// What became of the photos.
#[derive(Debug, Default)]
struct Counts {
    answered: usize,
    noted: usize,
    failed: usize,
    duplicates: usize,
}

impl Counts {
    fn add(&mut self, row: &Row) {
        let (failed, noted) = (row.error.is_some(), row.note.is_some());
        self.failed += usize::from(failed);
        self.answered += usize::from(!failed);
        self.noted += usize::from(noted);
    }

    fn tell(&self) -> String {
        use std::fmt::Write as _;

        let Self { answered, noted, failed, duplicates } = self;
        let all = answered + failed;
        let photos = if all == 1 { "photo" } else { "photos" };
        let mut text = format!("{all} {photos}: {answered} answered");
        if *noted > 0 {
            let _ = write!(text, ", {noted} of them truncated or damaged (column `note`)");
        }
        if *failed > 0 {
            let _ = write!(text, ", {failed} unreadable (column `error`)");
        }
        if *duplicates > 0 {
            let _ = write!(text, "; {duplicates} duplicates of paths left out");
        }
        text
    }
}

/// Where rows go: a file that appears when it is complete, or stdout as they come.
struct Sink<'a> {
    file: Option<OutputFile>,
    context: &'a Context,
    format: Format,
    top: usize,
    written: usize,
}

impl<'a> Sink<'a> {
    fn open(args: &PredictArgs, top: usize, context: &'a Context) -> Result<Self, Failure> {
        let named_json = args.out.as_ref().is_some_and(|p| p.extension().is_some_and(|e| e == "json"));
        let format = if args.json || named_json { Format::Json } else { Format::Csv };
        let file = args
            .out
            .as_deref()
            .map(|goal| OutputFile::create(goal, args.force, &context.printer))
            .transpose()?;
        let mut sink = Self { file, context, format, top, written: 0 };
        if format == Format::Csv {
            sink.put(&rows::csv_header(top))?;
        }
        Ok(sink)
    }

    fn write(&mut self, row: &Row) -> Result<(), Failure> {
        let text = match self.format {
            Format::Csv => rows::csv(row, self.top),
            Format::Json => rows::json(row, self.written == 0).or_io("could not write JSON")?,
        };
        self.written += 1;
        self.put(&text)
    }

    fn finish(mut self) -> Result<(), Failure> {
        match (self.format, self.written) {
            (Format::Json, 0) => self.put("[]\n")?,
            (Format::Json, _) => self.put("\n]\n")?,
            (Format::Csv, _) => {}
        }
        self.file.map_or(Ok(()), OutputFile::commit)
    }

    fn put(&mut self, text: &str) -> Result<(), Failure> {
        match &mut self.file {
            Some(file) => file.write_all(text.as_bytes()).or_io("could not write the predictions"),
            None => self.context.printer.data(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_tell_what_became_of_every_photo() {
        let mut counts = Counts::default();
        let row = |error: Option<&str>, note: Option<&str>| Row {
            path: "a".into(),
            label: None,
            probability: None,
            top: Vec::new(),
            error: error.map(Into::into),
            note: note.map(Into::into),
        };
        counts.add(&row(None, None));
        assert_eq!(counts.tell(), "1 photo: 1 answered");
        counts.add(&row(None, Some("damaged")));
        counts.add(&row(Some("is empty"), None));
        counts.duplicates = 2;
        assert_eq!(
            counts.tell(),
            "3 photos: 2 answered, 1 of them truncated or damaged (column `note`), 1 unreadable (column `error`); \
             2 duplicates of paths left out"
        );
    }
}
