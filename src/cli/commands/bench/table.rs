//! Measurements as text.

use std::fmt::Write as _;

use margay_runtime::{LayerCost, Profile, Rival};

use super::Measured;
use super::contest::Spread;
use super::rivals::Standing;

/// The measurement as text.
pub fn table(measured: &Measured) -> String {
    let Measured { isa, precision, threads, batch, runs, .. } = measured;
    let mut text =
        format!("{isa}, {precision}, {threads} threads, batch {batch}, {runs} runs; ms per image\n\n");
    let names = measured.against.iter().map(|standing| standing.name.len());
    let width = names.max().unwrap_or(0).max("sparse".len());
    let _ = writeln!(
        text,
        "{:width$}    median       min       max{}",
        "",
        if measured.against.is_empty() { "" } else { "     ratio  95 % interval  answers" }
    );
    let rows = [("sparse", Some(measured.latency_ms.sparse)), ("dense", measured.latency_ms.dense)];
    for (name, Spread { median, min, max }) in rows.iter().filter_map(|(n, s)| Some((n, (*s)?))) {
        let _ = writeln!(text, "{name:<width$}  {median:>8.3}  {min:>8.3}  {max:>8.3}");
    }
    for standing in &measured.against {
        text += &row(standing, width);
    }
    if let Some(speedup) = measured.speedup {
        let _ = writeln!(text, "\nsparse is {speedup:.2} times as fast as dense");
    }
    if let Some(profile) = &measured.profile {
        text += &steps(profile);
    }
    text
}

/// One line for another engine.
fn row(standing: &Standing, width: usize) -> String {
    let Standing { name, latency_ms, ratio, agrees, largest_difference, error, .. } = standing;
    let (Some(Spread { median, min, max }), Some(ratio)) = (latency_ms, ratio) else {
        return format!("{name:<width$}  {}\n", error.as_deref().unwrap_or_default());
    };
    let answers = match (agrees, largest_difference) {
        (Some(true), Some(gap)) => format!("agree to {gap:.0e}"),
        (_, Some(gap)) => format!("DIFFER by {gap:.0e}"),
        _ => "not compared".to_owned(),
    };
    let [low, high] = ratio.interval;
    let version = standing.version.as_deref().unwrap_or_default();
    let times = format!("{median:>8.3}  {min:>8.3}  {max:>8.3}");
    format!("{name:<width$}  {times}  {:>8.2}  {low:>6.2}-{high:<6.2}  {answers} ({version})\n", ratio.median)
}

/// Comma-separated values, a line per layer and sparsity.
pub fn layers(costs: &[LayerCost]) -> String {
    let mut text = "weight,rows,columns,positions,sparsity,kernel,ms\n".to_owned();
    for LayerCost { weight, matrix: [rows, columns], shape, sparsity, kernel, ms } in costs {
        let positions: usize = shape.iter().product::<usize>() / rows.max(&1);
        let _ = writeln!(text, "{weight},{rows},{columns},{positions},{sparsity},{kernel},{ms:.4}");
    }
    text
}

/// One line per step of the plan, with its share of the time.
fn steps(profile: &Profile) -> String {
    let sum: f64 = profile.steps.iter().map(|step| step.median_ms).sum();
    let names: Vec<String> = profile.steps.iter().map(|step| step.nodes.join("+")).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0).clamp(5, 40);
    let (gflops, gbytes) = (profile.peak_gflops, profile.peak_gbytes);
    let mut text = format!("\npeak of one core: {gflops:.1} GFLOP/s, {gbytes:.1} GB/s from memory\n");
    let _ = writeln!(
        text,
        "\n{:<width$}  {:<15} {:<16} {:>8} {:>9}   time  FLOP/s  bandwidth  next best",
        "step", "shape", "kernel", "density", "ms"
    );
    for (step, name) in profile.steps.iter().zip(&names) {
        let density = step.density.map_or_else(String::new, |d| format!("{:.1} %", 100.0 * d));
        let share = 100.0 * step.median_ms / sum.max(f64::MIN_POSITIVE);
        let kernel = way(&step.kernel, step.strip);
        let (ms, shape) = (step.median_ms, format!("{:?}", step.shape));
        let [compute, memory] = [profile.compute_share(step), profile.memory_share(step)].map(|s| 100.0 * s);
        let _ = writeln!(
            text,
            "{name:<width$}  {shape:<15} {kernel:<16} {density:>8} {ms:>9.3} {share:>4.1} % {compute:>5.1} % {memory:>8.1} %{}",
            step.rival.as_ref().map_or_else(String::new, next_best)
        );
    }
    text
}

/// A kernel and the width of its strips.
fn way(kernel: &str, strip: Option<usize>) -> String {
    strip.map_or_else(|| kernel.to_owned(), |strip| format!("{kernel} × {strip}"))
}

/// Another way to run a step: its time over that of the way in use, marked where it is faster.
fn next_best(rival: &Rival) -> String {
    let mark = if rival.is_faster { "  FASTER" } else { "" };
    format!("  {:.2} {}{mark}", rival.ms / rival.chosen_ms, way(&rival.kernel, rival.strip))
}
