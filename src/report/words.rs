//! What the figures say, in words: what was won, what was lost, and how sure that is.

use super::format::{bytes, fold, interval, maybe_percent, milliseconds, percent, points};
use crate::record::{ClassRecall, RunRecord};

/// Fewer val images than this say little about a class.
const FEW: usize = 10;

/// Recall of a class before and after.
pub(super) struct ClassChange<'a> {
    pub(super) dense: &'a ClassRecall,
    pub(super) specialist: &'a ClassRecall,
    /// Recall lost; negative if won.
    pub(super) drop: f64,
    /// Images that went from right to wrong, and back.
    pub(super) flips: [usize; 2],
}

impl ClassChange<'_> {
    /// Recall won in percentage points, with its sign.
    pub(super) fn gain(&self) -> String {
        points(-self.drop)
    }
}

/// The classes that have val images, the largest loss of recall first.
pub(super) fn class_changes(record: &RunRecord) -> Vec<ClassChange<'_>> {
    let pairs = record.dense.classes.iter().zip(&record.specialist.classes);
    let mut changes: Vec<ClassChange> = pairs
        .filter_map(|(dense, specialist)| {
            let drop = dense.recall? - specialist.recall?;
            Some(ClassChange { dense, specialist, drop, flips: flips(record, Some(&dense.label)) })
        })
        .collect();
    changes.sort_by(|a, b| b.drop.total_cmp(&a.drop).then_with(|| a.dense.label.cmp(&b.dense.label)));
    changes
}

/// Changed answers of a class (or of all) that went from right to wrong, and from wrong to right.
fn flips(record: &RunRecord, label: Option<&str>) -> [usize; 2] {
    let of_class = || record.changed.iter().filter(|c| label.is_none_or(|label| c.label == label));
    [
        of_class().filter(|c| c.dense.label == c.label).count(),
        of_class().filter(|c| c.specialist.label == c.label).count(),
    ]
}

/// Probability that chance alone splits `a + b` flips at least this unevenly (two-sided sign test).
///
/// The models see the same images, so only the images that changed sides bear evidence (`McNemar` 1947).
pub(super) fn sign_test(a: usize, b: usize) -> f64 {
    let n = a + b;
    let ln_half_power = n as f64 * 0.5_f64.ln();
    let mut ln_choose = 0.0;
    let mut tail = 0.0;
    for k in 0..=a.min(b) {
        tail += f64::exp(ln_choose + ln_half_power);
        ln_choose += ((n - k) as f64 / (k + 1) as f64).ln();
    }
    f64::min(2.0 * tail, 1.0)
}

/// The first sentence: how small, how fast, how good.
pub(super) fn verdict(record: &RunRecord) -> String {
    let (dense, specialist) = (&record.dense, &record.specialist);
    format!(
        "With {} of the weights ({} fewer), the specialist answers {} of {} val images right (95 % \
         interval {}); the dense model {}. Its file has {} instead of {}, and an image takes {} instead of {}.",
        percent(record.nonzeros.sparse as f64 / (record.nonzeros.dense as f64).max(1.0)),
        fold(record.nonzeros.dense as f64, record.nonzeros.sparse as f64),
        maybe_percent(specialist.top1),
        specialist.total,
        interval(specialist.top1_interval),
        maybe_percent(dense.top1),
        bytes(record.bytes.sparse),
        bytes(record.bytes.dense),
        milliseconds(record.latency_ms.sparse),
        milliseconds(record.latency_ms.dense),
    )
}

/// Whether the change of accuracy is more than sampling noise.
pub(super) fn evidence(record: &RunRecord) -> String {
    let [worse, better] = flips(record, None);
    let complete = record.dense.correct + better == record.specialist.correct + worse;
    if record.specialist.total == 0 || !complete {
        return String::new();
    }
    if worse + better == 0 {
        return "No val image changed between right and wrong.".to_owned();
    }
    let p = sign_test(worse, better);
    let meaning =
        if p < 0.05 { "more than sampling noise explains" } else { "no more than sampling noise explains" };
    format!(
        "{} went from right to wrong and {} from wrong to right: {meaning} (sign test, p = {}).",
        images(worse),
        images(better),
        if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") },
    )
    .replace("p = <", "p <")
}

fn images(count: usize) -> String {
    if count == 1 { "1 image".to_owned() } else { format!("{count} images") }
}

/// The class that pays most for the compression; it must not vanish in an average.
pub(super) fn worst_hit(changes: &[ClassChange]) -> String {
    let Some(worst) = changes.first() else {
        return "No class has val images, so nothing is known about any of them.".to_owned();
    };
    if worst.drop <= 0.0 {
        return "No class lost recall.".to_owned();
    }
    let side = |c: &ClassRecall| format!("{} ({} of {})", maybe_percent(c.recall), c.correct, c.total);
    let apart = worst.specialist.interval[1] < worst.dense.interval[0];
    format!(
        "Hardest hit: {}, whose recall went from {} to {}, {} points. {}",
        worst.dense.label,
        side(worst.dense),
        side(worst.specialist),
        worst.gain(),
        if apart {
            "The 95 % intervals do not overlap: the loss is real."
        } else {
            "The 95 % intervals overlap: more val images would tell how much of it is noise."
        },
    )
}

/// What the figures cannot tell, one sentence each.
pub(super) fn caveats(record: &RunRecord) -> Vec<String> {
    let named = |pick: &dyn Fn(&ClassRecall) -> bool| {
        let labels = record.specialist.classes.iter().filter(|c| pick(c)).map(|c| c.label.as_str());
        labels.collect::<Vec<_>>()
    };
    let missing = named(&|class| class.total == 0);
    let few = named(&|class| (1..FEW).contains(&class.total));
    let mut caveats = Vec::new();
    if record.data.split.as_ref().is_some_and(|split| split.optimistic) {
        caveats.push(
            "These figures are optimistic: val was drawn photo by photo from the folders that were learnt from, so that \
             photos of one place and day are on both sides."
                .to_owned(),
        );
    }
    if !missing.is_empty() {
        caveats.push(format!("Without val images, so unknown: {}.", missing.join(", ")));
    }
    if !few.is_empty() {
        caveats.push(format!("With fewer than {FEW} val images, so hardly known: {}.", few.join(", ")));
    }
    if record.parity.argmax_agreement < 1.0 {
        let agreed = percent(record.parity.argmax_agreement);
        caveats.push(format!("Runtime and torch give the same answer on {agreed} of the images only."));
    }
    caveats
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;
    use crate::record::Split;

    #[test]
    fn sign_test_matches_the_binomial() {
        // scipy.stats.binomtest(min(a, b), a + b).pvalue
        for (a, b, p) in [
            (0, 0, 1.0),
            (3, 3, 1.0),
            (1, 0, 1.0),
            (12, 7, 0.359_283_447),
            (0, 10, 0.001_953_125),
            (40, 80, 0.000_330_4),
        ] {
            assert!((sign_test(a, b) - p).abs() < 1e-6, "{a} {b}: {}", sign_test(a, b));
        }
        assert!((sign_test(5000, 5000) - 1.0).abs() < 1e-9 && sign_test(0, 5000) < 1e-9);
    }

    #[test]
    fn the_worst_class_is_named_and_the_unknown_ones_too() {
        let record = sample();
        let changes = class_changes(&record);
        assert!(worst_hit(&changes).starts_with("Hardest hit: hare"), "{}", worst_hit(&changes));
        assert_eq!(caveats(&record)[0], "Without val images, so unknown: lynx.");
        assert!(changes.iter().all(|change| change.dense.label != "lynx"));
        assert!(worst_hit(&[]).contains("No class has val images"));
    }

    #[test]
    fn a_split_by_photo_is_called_optimistic() {
        let mut record = sample();
        let told = |record: &RunRecord| caveats(record)[0].contains("optimistic");
        assert!(!told(&record));
        for (by, optimistic) in [("folders", false), ("photo", true)] {
            record.data.split = Some(Split { by: by.to_owned(), optimistic });
            assert_eq!(told(&record), optimistic);
        }
    }

    #[test]
    fn evidence_is_silent_where_the_changes_are_incomplete() {
        let mut record = sample();
        assert!(evidence(&record).contains("sign test"), "{}", evidence(&record));
        record.changed.pop();
        assert_eq!(evidence(&record), "");
    }
}
