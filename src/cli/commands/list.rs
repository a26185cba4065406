//! `margay list`: what this build knows, from the tables.

use std::fmt::Write as _;

use margay_core::Preprocess;
use margay_runtime::Isa;
use serde::Serialize;

use crate::allocate::ALLOCATORS;
use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::cli::settings::unnamed;
use crate::models::ARCHITECTURES;
use crate::options::{self, Listed};
use crate::peers::PEERS;
use crate::preprocess::{PRESETS, Preset};
use crate::recipe::Recipe;

/// Lists architectures, solvers, allocators, adapters, engines, presets, devices and kernels of this build
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  margay list --json\n  margay list --options\n  margay list --schema > recipe.schema.json"
)]
pub struct ListArgs {
    /// List the options of recipes instead, as a Markdown table: keys, flags, defaults, ranges
    #[arg(long)]
    options: bool,
    /// Print a JSON schema of recipes instead, for editors that check TOML
    #[arg(long, conflicts_with = "options")]
    schema: bool,
    /// Print the lists as JSON
    #[arg(long)]
    json: bool,
}

/// Everything there is to choose from.
#[derive(Debug, Serialize)]
struct Lists {
    architectures: Vec<Entry>,
    solvers: Vec<Entry>,
    allocators: Vec<Entry>,
    adapters: Vec<Entry>,
    engines: Vec<Entry>,
    preprocessing: Vec<Prepared>,
    devices: Vec<String>,
    instruction_sets: Vec<String>,
}

/// A name and a line about it.
#[derive(Debug, Serialize)]
struct Entry {
    name: &'static str,
    about: String,
}

/// A preset of preprocessing.
#[derive(Debug, Serialize)]
struct Prepared {
    #[serde(flatten)]
    entry: Entry,
    source: &'static str,
    spec: &'static Preprocess,
}

pub fn run(args: &ListArgs, context: &Context) -> Result<Exit, Failure> {
    if args.schema {
        context.printer.show(true, &options::schema::<Recipe>(&unnamed().to_table()), |_| String::new())?;
    } else if args.options {
        context.printer.show(args.json, &options::listed::<Recipe>(&unnamed().to_table()), |listed| {
            option_table(listed)
        })?;
    } else {
        context.printer.show(args.json, &lists(), table)?;
    }
    Ok(Exit::Success)
}

fn lists() -> Lists {
    Lists {
        architectures: ARCHITECTURES
            .iter()
            .map(|family| Entry { name: family.name(), about: family.variants().join(", ") })
            .collect(),
        solvers: solvers(),
        allocators: ALLOCATORS
            .iter()
            .map(|allocator| Entry { name: allocator.name(), about: allocator.about().to_owned() })
            .collect(),
        adapters: adapters(),
        engines: PEERS.iter().map(|peer| Entry { name: peer.name, about: peer.about.to_owned() }).collect(),
        preprocessing: PRESETS.iter().map(prepared).collect(),
        devices: devices(),
        instruction_sets: Isa::ALL.iter().filter(|isa| isa.is_available()).map(ToString::to_string).collect(),
    }
}

fn prepared(preset: &'static Preset) -> Prepared {
    let Preset { name, about, source, spec, resamples: _ } = preset;
    Prepared { entry: Entry { name, about: (*about).to_owned() }, source, spec }
}

#[cfg(feature = "torch")]
fn solvers() -> Vec<Entry> {
    let entry = |s: &&dyn crate::prune::Solver| Entry { name: s.name(), about: s.about().to_owned() };
    crate::prune::SOLVERS.iter().map(entry).collect()
}

#[cfg(not(feature = "torch"))]
fn solvers() -> Vec<Entry> {
    Vec::new()
}

#[cfg(feature = "torch")]
fn adapters() -> Vec<Entry> {
    let entry = |a: &&dyn crate::adapt::Adapter| Entry { name: a.name(), about: a.about().to_owned() };
    crate::adapt::ADAPTERS.iter().map(entry).collect()
}

#[cfg(not(feature = "torch"))]
fn adapters() -> Vec<Entry> {
    Vec::new()
}

#[cfg(feature = "torch")]
fn devices() -> Vec<String> {
    crate::torch::cuda::load_cuda_part();
    let gpus = if tch::Cuda::is_available() { tch::Cuda::device_count() } else { 0 };
    std::iter::once("cpu".to_owned()).chain((0..gpus).map(|n| format!("cuda:{n}"))).collect()
}

#[cfg(not(feature = "torch"))]
fn devices() -> Vec<String> {
    Vec::new()
}

/// A number without rows of zeros.
fn number(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e5).contains(&value) { format!("{value:e}") } else { value.to_string() }
}

/// Keys and flags as the book has them.
fn option_table(options: &[Listed]) -> String {
    let mut text = "| key | flags | default | range | |\n|---|---|---|---|---|\n".to_owned();
    let code = |texts: &[String]| texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(" ");
    for Listed { key, flags, default, range, choices, about } in options {
        let range = match range {
            Some([least, most]) => format!("{} to {}", number(*least), number(*most)),
            None => code(choices),
        };
        let default = default.as_deref().unwrap_or_default();
        let cells =
            [&format!("`{key}`"), &code(flags), default, &range, about].map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn table(lists: &Lists) -> String {
    let mut text = String::new();
    let sections = [
        ("architectures", &lists.architectures),
        ("solvers", &lists.solvers),
        ("allocators", &lists.allocators),
        ("adapters", &lists.adapters),
        ("engines to compare with", &lists.engines),
    ];
    for (title, entries) in sections {
        let _ = writeln!(text, "{title}");
        if entries.is_empty() {
            text += "  none: this build has no libtorch\n";
        }
        for Entry { name, about } in entries {
            let _ = writeln!(text, "  {name:<12} {about}");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "preprocessing");
    let width = lists.preprocessing.iter().map(|p| p.entry.name.len()).max().unwrap_or(0);
    for Prepared { entry: Entry { name, about }, .. } in &lists.preprocessing {
        let _ = writeln!(text, "  {name:<width$} {about}");
    }
    text.push('\n');
    let devices =
        if lists.devices.is_empty() { "none: this build has no libtorch" } else { &lists.devices.join(", ") };
    let _ = writeln!(text, "devices           {devices}");
    let _ = writeln!(text, "instruction sets  {}", lists.instruction_sets.join(", "));
    text
}
