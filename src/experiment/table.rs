use std::fmt::Write as _;

use super::facts::fold;
use super::{Estimate, Group, Row, Summary};

/// What stands where a figure is absent.
const ABSENT: &str = "–";

/// Tables in Markdown, one per group, each with its plot from the folder `plots`.
pub fn markdown(summary: &Summary, plots: &str) -> String {
    let mut text = String::new();
    if !summary.description.is_empty() {
        let _ = writeln!(text, "{}\n", summary.description.trim());
    }
    if summary.done < summary.runs {
        let _ = writeln!(text, "*{} of {} runs are done.*\n", summary.done, summary.runs);
    }
    for group in &summary.groups {
        let _ = writeln!(text, "### {}\n", group.title());
        table(&mut text, summary, group);
        let _ = writeln!(text, "\n![{}]({plots}{}.svg)\n", group.title(), slug(summary, group));
    }
    for (run, error) in &summary.failed {
        let _ = writeln!(text, "* failed: {run}: {error}");
    }
    text.trim_end().to_owned() + "\n"
}

/// Name of a group's plot, without its extension.
pub fn slug(summary: &Summary, group: &Group) -> String {
    let text = format!("{} {}", summary.name, group.title()).replace('×', "x").to_lowercase();
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-")
}

impl Group {
    /// What the runs of the group share, in a line.
    pub fn title(&self) -> String {
        let shots = self.shots.map(|shots| match shots {
            0 => "all photos".to_owned(),
            1 => "1 shot".to_owned(),
            _ => format!("{shots} shots"),
        });
        let own = [self.checkpoint.clone(), self.task.clone()];
        let common = shots.into_iter().chain(self.compression.map(fold));
        let other = self.settings.iter().map(|(axis, value)| format!("{axis} {value}"));
        own.into_iter().chain(common).chain(other).collect::<Vec<_>>().join(" · ")
    }

    /// Mean top-1 of the dense network over the rows.
    pub(super) fn dense(&self) -> f64 {
        self.rows.iter().map(|row| row.dense.mean).sum::<f64>() / self.rows.len().max(1) as f64
    }

    /// Whether a row knows what changed image by image.
    pub(super) fn paired(&self) -> bool {
        self.rows.iter().any(|row| row.against_dense.is_some())
    }

    /// Whether a row was timed.
    pub(super) fn timed(&self) -> bool {
        self.rows.iter().any(|row| row.latency_ms.is_some())
    }

    /// Whether any row was recovered; what was not ends where pruning left it.
    pub(super) fn recovered(&self) -> bool {
        self.rows.iter().any(|row| row.trained + row.beside > 0.0)
    }
}

fn table(text: &mut String, summary: &Summary, group: &Group) {
    let columns = columns(summary, group);
    let mut head: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    head.extend(["seeds", "dense", "one-shot"].map(str::to_owned));
    if group.recovered() {
        head.push("final".to_owned());
    }
    if group.paired() {
        head.push("against dense".to_owned());
    }
    head.extend(summary.reference.iter().map(|name| format!("against {name}")));
    head.extend(["worst class", "largest drop"].map(str::to_owned));
    if group.timed() {
        head.push("ms an image".to_owned());
    }
    if group.recovered() {
        head.extend(["trained", "seconds"].map(str::to_owned));
    }
    line(text, &head);
    line(text, &vec!["---".to_owned(); head.len()]);
    for row in &group.rows {
        line(text, &cells(row, &columns, group, summary.reference.is_some()));
    }
}

fn line(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// What tells the rows of a group apart; the adapter even if there is only one row.
pub(super) fn columns<'a>(summary: &'a Summary, group: &Group) -> Vec<&'a str> {
    let varies = |axis: &str| {
        let mut values = group.rows.iter().filter_map(|row| row.settings.get(axis));
        values.next().is_some_and(|first| values.any(|value| value != first))
    };
    let columns = summary.columns.iter().map(String::as_str);
    columns.filter(|axis| *axis == "adapter" || varies(axis)).collect()
}

fn cells(row: &Row, columns: &[&str], group: &Group, compared: bool) -> Vec<String> {
    let recovered = group.recovered();
    let setting = |axis: &&str| row.settings.get(*axis).cloned().unwrap_or_else(|| ABSENT.to_owned());
    let mut cells: Vec<String> = columns.iter().map(setting).collect();
    cells.push(row.seeds.len().to_string());
    cells.extend([&row.dense, &row.oneshot].map(percent));
    if recovered {
        cells.push(percent(&row.top1));
    }
    if group.paired() {
        cells.push(row.against_dense.as_ref().map_or_else(|| ABSENT.to_owned(), points));
    }
    if compared {
        cells.push(row.difference.as_ref().map_or_else(|| ABSENT.to_owned(), points));
    }
    let maybe = |estimate: &Option<Estimate>| estimate.as_ref().map_or_else(|| ABSENT.to_owned(), percent);
    cells.extend([maybe(&row.worst_recall), maybe(&row.largest_drop)]);
    if group.timed() {
        let times = |[dense, sparse]: [f64; 2]| format!("{dense:.1} → {sparse:.1}");
        cells.push(row.latency_ms.map_or_else(|| ABSENT.to_owned(), times));
    }
    if recovered {
        cells.push(format!("{:.2} + {:.2} %", 100.0 * row.trained, 100.0 * row.beside));
        cells.push(format!("{:.0}", row.seconds.mean));
    }
    cells
}

/// `63.1 ± 0.8`, in per cent.
pub(super) fn percent(estimate: &Estimate) -> String {
    format!("{:.1}{}", 100.0 * estimate.mean, half_width(estimate))
}

/// `+1.2 ± 0.4`, in percentage points.
fn points(estimate: &Estimate) -> String {
    let rounded = (1000.0 * estimate.mean).round() / 10.0;
    let sign = if rounded < 0.0 { "−" } else { "+" };
    format!("{sign}{:.1}{}", rounded.abs(), half_width(estimate))
}

fn half_width(estimate: &Estimate) -> String {
    estimate.half_width.map_or_else(String::new, |half| format!(" ± {:.1}", 100.0 * half))
}
