//! Results that nobody measured.

use super::{ClassChange, Experiment, Line, Measured, Outcome, Results, Run, Trainable};
use crate::record::{Evaluation, Nonzeros, Paired, Stages};

/// Two adapters, one of them with two ranks, on three seeds.
pub(super) fn experiment() -> Experiment {
    let text = "[experiment]\nname = 'try'\nreference = 'lora'\n[checkpoints.small]\nmodel = 'small.pth'\n
        [tasks.birds]\ndata = 'birds'\n[recipe.recovery]\npilot = false\n
        [[sweep]]\ncheckpoint = 'small'\ntask = 'birds'\nshots = 5\nadapter = ['none', 'lora']\nseed = [0, 1, 2]\n
        [[sweep]]\ncheckpoint = 'small'\ntask = 'birds'\nshots = 5\nadapter = 'rosa'\nr = [2, 4]\nseed = [0, 1, 2]\n";
    Experiment::parse(text).unwrap()
}

/// `right` of 100 fine, and a class that is always wrong.
pub(super) fn line(run: &Run, right: usize) -> Line {
    let labels = ["common".to_owned(), "rare".to_owned()];
    let hits = |right: usize, rare: usize| -> Vec<bool> {
        (0..100).map(|i| if i < 90 { i < right } else { i - 90 < rare }).collect()
    };
    let evaluation = |right: usize, rare: usize| {
        let truth: Vec<usize> = (0..100).map(|i| usize::from(i >= 90)).collect();
        let answer = |(class, hit): (&usize, bool)| if hit { *class } else { 1 - class };
        let answers: Vec<usize> = truth.iter().zip(hits(right, rare)).map(answer).collect();
        Evaluation::from_predictions(&labels, &truth, &answers)
    };
    let none = [0.0; 100];
    let against_dense = Paired::of([&hits(80, 5), &hits(right, 1)], [&none, &none]);
    let (dense, specialist) = (evaluation(80, 5), Evaluation { against_dense, ..evaluation(right, 1) });
    let [worst, largest_drop] = ClassChange::of(&dense, &specialist);
    let mut seconds = Stages::default();
    seconds.add("adapt", 20.0);
    seconds.add("evaluate", 1.0);
    let mut shared_seconds = Stages::default();
    shared_seconds.add("prune", 40.0);
    let measured = Measured {
        oneshot: evaluation(30, 0),
        dense,
        specialist,
        worst,
        largest_drop,
        trainable: Trainable { layers: 60, beside: 10, all: 10_000 },
        nonzeros: Nonzeros::default(),
        same_support: true,
        choices: Vec::new(),
        latency_ms: None,
        seconds,
        shared_seconds,
        peak_rss_bytes: None,
        warnings: Vec::new(),
    };
    Line::new(run, Outcome::Measured(Box::new(measured)))
}

/// Every run of [`experiment`] with more right answers for later rows and seeds.
pub(super) fn results(runs: &[Run]) -> Results {
    let mut results = Results::default();
    for run in runs {
        let row = match (run.adapter(), run.recipe.adapt.r) {
            ("none", _) => 40,
            ("lora", _) => 60,
            (_, r) => 60 + r,
        };
        results.insert(line(run, row + run.recipe.seed as usize));
    }
    results
}
