use super::format::percent;
use crate::record::RunRecord;

/// Most confusions listed.
const LISTED: usize = 12;
/// Most classes that get a matrix.
const MATRIX: usize = 16;

/// Images of one class answered as another, before and after.
pub(super) struct Confusion {
    pub(super) truth: String,
    pub(super) answer: String,
    pub(super) dense: usize,
    pub(super) specialist: usize,
    pub(super) total: usize,
}

impl Confusion {
    /// `+4` or `−2`.
    pub(super) fn change(&self) -> String {
        signed(self.specialist as i64 - self.dense as i64)
    }

    /// `12.5 % of deer`.
    pub(super) fn share(&self) -> String {
        percent(self.specialist as f64 / self.total.max(1) as f64)
    }
}

/// The confusions that grew and those that shrank, the largest change first.
pub(super) fn changes(record: &RunRecord) -> [Vec<Confusion>; 2] {
    let classes = &record.specialist.classes;
    let cells = record.dense.confusion.iter().chain(&record.specialist.confusion);
    let mut pairs: Vec<(usize, usize)> =
        cells.map(|c| (c.truth, c.predicted)).filter(|(t, p)| t != p).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let all = pairs.into_iter().filter_map(|(truth, answer)| {
        Some(Confusion {
            truth: classes.get(truth)?.label.clone(),
            answer: classes.get(answer)?.label.clone(),
            dense: record.dense.confused(truth, answer),
            specialist: record.specialist.confused(truth, answer),
            total: classes.get(truth)?.total,
        })
    });
    let (mut grown, rest): (Vec<Confusion>, Vec<Confusion>) = all.partition(|c| c.specialist > c.dense);
    let mut shrunk: Vec<Confusion> = rest.into_iter().filter(|c| c.specialist < c.dense).collect();
    for list in [&mut grown, &mut shrunk] {
        list.sort_by_key(|c| std::cmp::Reverse(c.specialist.abs_diff(c.dense)));
        list.truncate(LISTED);
    }
    [grown, shrunk]
}

/// One cell of the matrix of changes.
pub(super) struct Cell {
    pub(super) text: String,
    /// `good`, `bad` or nothing: more right answers and fewer wrong ones are good.
    pub(super) class: &'static str,
    /// Strength of the colour, 0 to 100.
    pub(super) strength: usize,
    pub(super) title: String,
}

/// One row of the matrix of changes.
pub(super) struct Row {
    pub(super) label: String,
    pub(super) cells: Vec<Cell>,
}

/// Specialist minus dense, truth by answer; nothing where there are too many classes to read it.
pub(super) fn matrix(record: &RunRecord) -> Vec<Row> {
    let classes = &record.specialist.classes;
    if classes.len() > MATRIX || record.dense.classes.len() != classes.len() {
        return Vec::new();
    }
    let change = |truth, answer| {
        record.specialist.confused(truth, answer) as i64 - record.dense.confused(truth, answer) as i64
    };
    let range = || 0..classes.len();
    let largest = range().flat_map(|t| range().map(move |p| change(t, p).unsigned_abs())).max().unwrap_or(0);
    let cell = |truth: usize, answer: usize| {
        let (delta, specialist) = (change(truth, answer), record.specialist.confused(truth, answer));
        Cell {
            text: if delta != 0 {
                signed(delta)
            } else if specialist > 0 {
                "±0".to_owned()
            } else {
                String::new()
            },
            class: match (delta, (delta > 0) == (truth == answer)) {
                (0, _) => "",
                (_, true) => "good",
                (_, false) => "bad",
            },
            strength: 15 + (60 * delta.unsigned_abs() / largest.max(1)) as usize,
            title: format!(
                "{} answered as {}: {} → {}",
                classes[truth].label,
                classes[answer].label,
                record.dense.confused(truth, answer),
                specialist
            ),
        }
    };
    range()
        .map(|truth| Row {
            label: classes[truth].label.clone(),
            cells: range().map(|answer| cell(truth, answer)).collect(),
        })
        .collect()
}

fn signed(change: i64) -> String {
    if change < 0 { format!("−{}", change.unsigned_abs()) } else { format!("+{change}") }
}

#[cfg(test)]
mod tests {
    use super::super::sample::sample;
    use super::*;

    #[test]
    fn growth_and_shrinkage_are_told_apart() {
        let [grown, shrunk] = changes(&sample());
        let brief = |c: &Confusion| format!("{}→{} {} {}", c.truth, c.answer, c.change(), c.share());
        let grown: Vec<String> = grown.iter().map(brief).collect();
        assert_eq!(grown, ["hare→empty +3 25.0 %", "fox→hare +1 8.3 %", "hare→fox +1 16.7 %"]);
        assert_eq!(shrunk.iter().map(brief).collect::<Vec<_>>(), ["empty→deer −1 0.0 %"]);
    }

    #[test]
    fn fewer_right_answers_are_bad_and_fewer_wrong_ones_good() {
        let rows = matrix(&sample());
        let cell = |t: usize, p: usize| (rows[t].cells[p].text.as_str(), rows[t].cells[p].class);
        assert_eq!(
            [cell(3, 3), cell(3, 1), cell(1, 0), cell(0, 4)],
            [("−4", "bad"), ("+3", "bad"), ("−1", "good"), ("±0", "")]
        );
    }
}
