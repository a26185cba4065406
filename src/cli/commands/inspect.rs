//! `margay inspect`: what a model file or a checkpoint holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use margay_core::{Graph, Limits, Preprocess, Provenance, Shape, SparseModel, Weight};
use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure, OrFail};
use crate::cli::limits::LimitArgs;
use crate::names;

use super::engine::read_model;

/// Input for which a checkpoint's graph is built where nothing says otherwise, in pixels.
const IMAGE: [usize; 2] = [224, 224];

/// Shows what a model file or checkpoint holds
///
/// FILE is a .margay file, a checkpoint (.safetensors, .pth, .pt, .bin, .ckpt), an index of shards or the
/// folder of a repository.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  margay inspect out/specialist.margay --layers")]
pub struct InspectArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The layer that is the checkpoint's classifier, or none [default: the only one that can be]
    #[arg(long, value_name = "LAYER")]
    head: Option<String>,
    /// List every weight
    #[arg(long)]
    layers: bool,
    #[command(flatten)]
    limits: LimitArgs,
    /// Print everything as JSON
    #[arg(long)]
    json: bool,
}

/// What is known of a file.
#[derive(Debug, Serialize)]
struct Facts {
    file: String,
    format: &'static str,
    bytes: u64,
    architecture: String,
    input: [usize; 2],
    classes: usize,
    labels: Option<Vec<String>>,
    parameters: usize,
    nonzeros: usize,
    prunable: Counted,
    layers: Vec<Layer>,
    library: Option<&'static str>,
    preprocess: Option<Preprocess>,
    preprocess_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Found>,
    provenance: BTreeMap<&'static str, String>,
}

/// How a checkpoint was read.
#[derive(Debug, Serialize)]
struct Found {
    /// Dictionaries, modules and wrappers around the network.
    taken_off: Vec<String>,
    /// The layer that classifies.
    head: Option<String>,
    notes: Vec<String>,
}

/// Weights of all prunable layers.
#[derive(Debug, Default, Serialize)]
struct Counted {
    weights: usize,
    nonzeros: usize,
    sparsity: f64,
}

/// One weight.
#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    shape: Vec<usize>,
    stored: &'static str,
    prunable: bool,
    weights: usize,
    nonzeros: usize,
    sparsity: f64,
}

pub fn run(args: &InspectArgs, context: &Context) -> Result<Exit, Failure> {
    let facts = if args.file.extension().is_some_and(|e| e == "margay") {
        of_model(&args.file, &args.limits.limits())?
    } else {
        of_checkpoint(&args.file, args.head.as_deref())?
    };
    context.printer.show(args.json, &facts, |facts| table(facts, args.layers))?;
    Ok(Exit::Success)
}

fn of_model(path: &Path, limits: &Limits) -> Result<Facts, Failure> {
    let model = read_model(path, limits)?;
    let SparseModel { graph, weights, labels, preprocess, provenance } = model;
    let count = |name: &str| match weights.get(name) {
        Some(Weight::Dense(values)) => ("dense", values.iter().filter(|v| **v != 0.0).count()),
        Some(Weight::Csr(csr)) => ("sparse", csr.nnz()),
        None => ("missing", 0),
    };
    let Provenance { generator, source, source_sha256, recipe, licence } = provenance;
    let origin = [
        ("generator", Some(generator)),
        ("source", Some(source)),
        ("source_sha256", Some(source_sha256)),
        ("licence", licence),
        ("recipe", Some(recipe)),
    ];
    let bytes = fs_err::metadata(path).or_bad_input("could not read the file")?.len();
    let facts = facts(path, "margay", bytes, &graph, count);
    Ok(Facts {
        labels: Some(labels),
        preprocess: Some(preprocess),
        provenance: origin.into_iter().filter_map(|(k, v)| Some((k, v.filter(|v| !v.is_empty())?))).collect(),
        ..facts
    })
}

fn of_checkpoint(path: &Path, head: Option<&str>) -> Result<Facts, Failure> {
    let what = "could not read the checkpoint";
    let checkpoint = Checkpoint::open_with(path, head).or_bad_input(what)?;
    let found = found(&checkpoint);
    let known = checkpoint.preprocess();
    let said = known.as_ref().map(|known| known.spec.size);
    let image = said.or_else(|| checkpoint.native_size()).unwrap_or(IMAGE);
    let bytes = checkpoint.bytes().or_bad_input(what)?;
    let config = checkpoint.config_file().map(|path| ("config", path.display().to_string()));
    let model = checkpoint.into_model(image).or_bad_input(what)?;
    let count = |name: &str| {
        let value = model.params.get(name);
        (model.dtype.name(), value.map_or(0, |values| values.iter().filter(|v| **v != 0.0).count()))
    };
    let facts = facts(path, "checkpoint", bytes, &model.graph, count);
    let (preprocess, preprocess_from) = known.map(|known| (known.spec, known.file)).unzip();
    Ok(Facts {
        labels: model.labels,
        library: Some(model.library),
        found: Some(found),
        preprocess,
        preprocess_from,
        provenance: [("sha256", model.sha256)].into_iter().chain(config).collect(),
        ..facts
    })
}

fn found(checkpoint: &Checkpoint) -> Found {
    let prefix = Some(checkpoint.prefix()).filter(|prefix| !prefix.is_empty());
    Found {
        taken_off: prefix.into_iter().chain(checkpoint.wrappers()).map(str::to_owned).collect(),
        head: checkpoint.head().map(str::to_owned),
        notes: checkpoint.notes().into_iter().map(|note| note.text).collect(),
    }
}

/// Facts of a graph whose parameters `count` knows: how each is stored, and its non-zeros.
fn facts(
    path: &Path,
    format: &'static str,
    bytes: u64,
    graph: &Graph,
    count: impl Fn(&str) -> (&'static str, usize),
) -> Facts {
    let specs: Vec<_> = graph.params().collect();
    let layers: Vec<Layer> = graph
        .nodes()
        .iter()
        .filter(|n| n.matrix().is_some())
        .map(|node| {
            let weight = node.params().into_iter().find(|spec| spec.name == node.weight());
            let shape = weight.map_or_else(Vec::new, |spec| spec.shape);
            let (stored, nonzeros) = count(&node.weight());
            let weights: usize = shape.iter().product();
            let sparsity = sparsity(nonzeros, weights);
            Layer {
                name: node.name.clone(),
                shape,
                stored,
                prunable: node.is_prunable(),
                weights,
                nonzeros,
                sparsity,
            }
        })
        .collect();
    let prunable =
        layers.iter().filter(|l| l.prunable).fold((0, 0), |(w, n), l| (w + l.weights, n + l.nonzeros));
    let input = match graph.input {
        Shape::Map { height, width, .. } => [height, width],
        other => [other.positions(), other.features()],
    };
    Facts {
        file: names::path(path),
        format,
        bytes,
        architecture: graph.architecture.clone(),
        input,
        classes: graph.classes(),
        labels: None,
        parameters: specs.iter().map(|s| s.shape.iter().product::<usize>()).sum(),
        nonzeros: specs.iter().map(|s| count(&s.name).1).sum(),
        prunable: Counted {
            weights: prunable.0,
            nonzeros: prunable.1,
            sparsity: sparsity(prunable.1, prunable.0),
        },
        layers,
        library: None,
        preprocess: None,
        preprocess_from: None,
        found: None,
        provenance: BTreeMap::new(),
    }
}

fn sparsity(nonzeros: usize, weights: usize) -> f64 {
    if weights == 0 { 0.0 } else { 1.0 - nonzeros as f64 / weights as f64 }
}

fn table(facts: &Facts, layers: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("file", format!("{} ({}, {} bytes)", facts.file, facts.format, facts.bytes));
    let [height, width] = facts.input;
    let library = facts.library.map_or_else(String::new, |library| format!(" ({library})"));
    line("architecture", format!("{}{library}, input {height} x {width}", facts.architecture));
    line(
        "classes",
        match &facts.labels {
            Some(labels) => {
                let labels: Vec<_> = labels.iter().map(|label| names::line(label)).collect();
                format!("{}: {}", facts.classes, labels.join(", "))
            }
            None => format!("{}, without names", facts.classes),
        },
    );
    line("parameters", format!("{}, {} of them not zero", facts.parameters, facts.nonzeros));
    let Counted { weights, nonzeros, sparsity } = &facts.prunable;
    line("prunable", format!("{nonzeros} of {weights} stay: {:.2} % zeros", 100.0 * sparsity));
    line(
        "preprocessing",
        match (&facts.preprocess, &facts.preprocess_from) {
            (Some(spec), Some(file)) => format!("{spec} ({file})"),
            (Some(spec), None) => spec.to_string(),
            (None, _) => "nothing says; set it with --preprocess".to_owned(),
        },
    );
    if let Some(found) = &facts.found {
        if !found.taken_off.is_empty() {
            line("taken off", found.taken_off.join(", "));
        }
        line("classifier", found.head.clone().unwrap_or_else(|| "none".to_owned()));
        for note in &found.notes {
            line("note", note.clone());
        }
    }
    for (name, value) in &facts.provenance {
        if value.contains('\n') {
            line(&names::line(name), format!("\n{}", value.trim_end()));
        } else {
            line(&names::line(name), value.clone());
        }
    }
    if layers { text + "\n" + &layer_table(&facts.layers) } else { text }
}

fn layer_table(layers: &[Layer]) -> String {
    let width = layers.iter().map(|l| names::line(&l.name).len()).max().unwrap_or(0).max(5);
    let mut text =
        format!("{:<width$}  {:<18} {:>10} {:>9}  stored\n", "layer", "shape", "non-zero", "zeros");
    for Layer { name, shape, stored, nonzeros, sparsity, .. } in layers {
        let shape = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ");
        let _ = writeln!(
            text,
            "{:<width$}  {shape:<18} {nonzeros:>10} {:>7.2} %  {stored}",
            names::line(name),
            100.0 * sparsity
        );
    }
    text
}
