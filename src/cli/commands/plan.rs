//! The plan of a dry run.

use std::fmt::Write as _;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::pipeline::Plan;

/// Prints a plan.
pub fn show(plan: &Plan, json: bool, context: &Context) -> Result<Exit, Failure> {
    context.printer.show(json, plan, table)?;
    Ok(Exit::Success)
}

fn table(plan: &Plan) -> String {
    let Plan { architecture, image: [height, width], classes, val, layers, prunable, all, macs, bytes } =
        plan;
    let mut text = format!("{architecture}, input {height} x {width}\n\n");
    let name = classes.iter().map(|(name, ..)| name.chars().count()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "{:<name$}  shots  held out", "class");
    for (class, calibration, heldout) in classes {
        let _ = writeln!(text, "{class:<name$}  {calibration:>5}  {heldout:>8}");
    }
    let _ = writeln!(text, "{val} photos in val\n");
    let name = layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "{:<name$}  {:>10}  {:>10}  density", "layer", "weights", "kept");
    for layer in layers {
        let density = 100.0 * layer.kept as f64 / layer.weights.max(1) as f64;
        let _ = writeln!(
            text,
            "{:<name$}  {:>10}  {:>10}  {density:>5.1} %",
            layer.name, layer.weights, layer.kept
        );
    }
    text.push('\n');
    for (name, [dense, sparse]) in [
        ("prunable weights", prunable.map(|n| n as f64)),
        ("all weights", all.map(|n| n as f64)),
        ("multiply-adds", macs.map(|n| n as f64)),
    ] {
        let _ = writeln!(text, "{name:<16}  {dense} -> {sparse} ({:.1}x)", dense / sparse.max(1.0));
    }
    let _ = writeln!(text, "memory            about {:.1} GB", *bytes as f64 / 1e9);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::PlannedLayer;

    #[test]
    fn the_table_adds_up() {
        let plan = Plan {
            architecture: "resnet18".into(),
            image: [64, 64],
            classes: vec![("fox".into(), 13, 3)],
            val: 40,
            layers: vec![PlannedLayer { name: "layer1.0.conv1".into(), weights: 1000, kept: 50 }],
            prunable: [1000, 50],
            all: [1200, 250],
            macs: [9000, 900],
            bytes: 2_000_000_000,
        };
        let text = table(&plan);
        for part in ["fox       13         3", "5.0 %", "1000 -> 50 (20.0x)", "1200 -> 250 (4.8x)", "2.0 GB"]
        {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }
}
