use std::fmt::Write;

use super::format::{ABSENT, bytes, count, fold, interval, maybe_percent, milliseconds, points, signed};
use super::words::{ClassChange, caveats, class_changes};
use crate::record::{Evaluation, Nonzeros, Pair, Paired, RunRecord};

/// Most classes named in the line of losses.
const NAMED: usize = 4;

/// The headline table for a terminal, with a line on the classes that lost most.
pub fn table(record: &RunRecord) -> String {
    let rows = rows(record);
    let width = |c: usize| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &rows {
        let mut line = format!("{:<1$}", row[0], width(0));
        for (c, cell) in row.iter().enumerate().skip(1) {
            let _ = write!(line, "   {cell:>0$}", width(c));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text.push('\n');
    text += &beside(&record.nonzeros);
    text += &paired(record);
    let _ = writeln!(text, "{}", losses(&class_changes(record)));
    for caveat in caveats(record) {
        text += &caveat;
        text.push('\n');
    }
    text
}

fn rows(record: &RunRecord) -> [[String; 6]; 4] {
    let row = |name: &str, eval: &Evaluation, rest: [String; 3]| {
        let [nonzeros, size, time] = rest;
        let sure = if eval.total > 0 { interval(eval.top1_interval) } else { ABSENT.to_owned() };
        [name.to_owned(), maybe_percent(eval.top1), sure, nonzeros, size, time]
    };
    let (nonzeros, size, time) = (&record.nonzeros, &record.bytes, &record.latency_ms);
    let times = |text: String, before: f64, after: f64| format!("{text} ({})", fold(before, after));
    let kept = times(count(nonzeros.sparse), nonzeros.dense as f64, nonzeros.sparse as f64);
    let small = times(bytes(size.sparse), size.dense as f64, size.sparse as f64);
    let fast = times(milliseconds(time.sparse), time.dense, time.sparse);
    [
        ["", "top-1", "95 % interval", "non-zeros", "size", "latency"].map(str::to_owned),
        row("dense", &record.dense, [count(nonzeros.dense), bytes(size.dense), milliseconds(time.dense)]),
        row("one-shot", &record.oneshot, [kept.clone(), ABSENT.to_owned(), ABSENT.to_owned()]),
        row("specialist", &record.specialist, [kept, small, fast]),
    ]
}

/// How many of the prunable weights stay, where the compression counts others, too.
fn beside(nonzeros: &Nonzeros) -> String {
    let Pair { dense, sparse } = nonzeros.prunable;
    if nonzeros.dense == dense {
        return String::new();
    }
    let fewer = fold(dense as f64, sparse as f64);
    format!("Of {} prunable weights {} stay ({fewer}); the others all stay.\n", count(dense), count(sparse))
}

/// What the specialist wins or loses on the same images, and how sure that is.
fn paired(record: &RunRecord) -> String {
    let Some(Paired { lost, won, top1, cross_entropy }) = record.specialist.against_dense else {
        return String::new();
    };
    let [low, high] = top1.interval.map(points);
    let [least, most] = cross_entropy.interval.map(signed);
    format!(
        "Against dense, image by image: {} points (95 % interval {low} to {high}; {lost} lost, {won} won), cross-entropy {} \
         ({least} to {most}).\n",
        points(top1.mean),
        signed(cross_entropy.mean)
    )
}

fn losses(changes: &[ClassChange]) -> String {
    let lost: Vec<String> = changes
        .iter()
        .take_while(|change| change.drop > 0.0)
        .take(NAMED)
        .map(|change| {
            let (dense, specialist) = (change.dense, change.specialist);
            let [before, after] = [dense.recall, specialist.recall].map(maybe_percent);
            format!("{} {before} → {after} ({} points, n = {})", dense.label, change.gain(), dense.total)
        })
        .collect();
    if lost.is_empty() {
        "No class lost recall.".to_owned()
    } else {
        format!("Lost most: {}", lost.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn columns_line_up_and_losses_are_named() {
        insta::assert_snapshot!(table(&sample()), @r"
                      top-1   95 % interval         non-zeros               size          latency
        dense        93.8 %     83.2–97.9 %           700.0 k            2.81 MB          1.90 ms
        one-shot     83.3 %     70.4–91.3 %   35.00 k (20.0×)                  –                –
        specialist   85.4 %     72.8–92.8 %   35.00 k (20.0×)   180.5 kB (15.6×)   0.50 ms (3.8×)

        Against dense, image by image: −8.3 points (95 % interval −18.1 to +2.1; 5 lost, 1 won), cross-entropy +0.104 (−0.019 to +0.227).
        Lost most: hare 91.7 % → 58.3 % (−33.3 points, n = 12), fox 100.0 % → 91.7 % (−8.3 points, n = 12)
        Without val images, so unknown: lynx.
        ");
    }

    #[test]
    fn nothing_measured_is_a_dash_and_no_panic() {
        let mut record = sample();
        record.dense = Evaluation::default();
        record.oneshot = Evaluation::default();
        record.specialist = Evaluation::default();
        let text = table(&record);
        assert!(
            text.contains('–') && !text.contains("NaN") && text.contains("No class lost recall."),
            "{text}"
        );
    }
}
