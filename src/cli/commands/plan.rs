//! The plan of a dry run.

use std::fmt::Write as _;

use crate::cli::Context;
use crate::cli::exit::{Exit, Failure};
use crate::pipeline::{Plan, PlannedClass};

/// Prints a plan.
pub fn show(plan: &Plan, json: bool, strict: bool, context: &Context) -> Result<Exit, Failure> {
    context.printer.show(json, plan, table)?;
    let bad = plan.bad_photos.len();
    if let Some(first) = plan.bad_photos.first() {
        let (path, reason) = (&first.path, &first.reason);
        context.printer.warn(&format!("{bad} photos cannot be read, such as `{path}`: {reason}"));
    }
    Ok(if strict && bad > 0 { Exit::BadPhotos } else { Exit::Success })
}

fn table(plan: &Plan) -> String {
    let Plan { architecture, image: [height, width], layers, prunable, all, macs, bytes, .. } = plan;
    let mut text = format!("{architecture}, input {height} x {width}\n\n");
    text += &classes(plan);
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

/// Where the head comes from, and what there is of each class.
fn classes(plan: &Plan) -> String {
    let Plan { head, classes, val, split, .. } = plan;
    let what = match head.as_str() {
        "sliced" => "the checkpoint's own outputs",
        "joined" => "the checkpoint's own outputs, some of them joined",
        _ => "new, fitted on the shots",
    };
    let mut text = format!("head {head}: {what}\n\n");
    let name = classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(5);
    let _ = writeln!(text, "{:<name$}  train    val  shots  held out  label", "class");
    for class in classes {
        let labels = if class.labels.is_empty() { "-".to_owned() } else { class.labels.join(" + ") };
        let PlannedClass { name: class, train, val, calibration, heldout, .. } = class;
        let _ =
            writeln!(text, "{class:<name$}  {train:>5}  {val:>5}  {calibration:>5}  {heldout:>8}  {labels}");
    }
    let drawn = if split.optimistic { ", drawn photo by photo: figures on them are optimistic" } else { "" };
    text + &format!("{val} photos in val{drawn}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::PlannedLayer;
    use crate::record::Split;

    #[test]
    fn the_table_adds_up() {
        let plan = Plan {
            architecture: "resnet18".into(),
            image: [64, 64],
            head: "joined".into(),
            classes: vec![PlannedClass {
                name: "fox".into(),
                labels: vec!["red fox".into(), "kit fox".into()],
                train: 50,
                val: 40,
                calibration: 13,
                heldout: 3,
            }],
            val: 40,
            split: Split { by: "photo".into(), optimistic: true },
            bad_photos: Vec::new(),
            left_out: Vec::new(),
            layers: vec![PlannedLayer { name: "layer1.0.conv1".into(), weights: 1000, kept: 50 }],
            prunable: [1000, 50],
            all: [1200, 250],
            macs: [9000, 900],
            bytes: 2_000_000_000,
        };
        let text = table(&plan);
        for part in [
            "fox       50     40     13         3  red fox + kit fox",
            "optimistic",
            "5.0 %",
            "1000 -> 50 (20.0x)",
            "1200 -> 250 (4.8x)",
            "2.0 GB",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }
}
