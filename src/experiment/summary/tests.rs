use super::super::testing::{experiment, line, results};
use super::super::{Line, Outcome, Plan, Trainable, groups, markdown, plot, slug};
use super::*;

fn summary() -> Summary {
    let experiment = experiment();
    let runs = experiment.runs(&[]).unwrap();
    Summary::new(&experiment, &runs, &results(&runs)).unwrap()
}

#[test]
fn rows_are_means_over_seeds() {
    let summary = summary();
    assert_eq!((summary.done, summary.runs, summary.groups.len()), (12, 12, 1));
    assert_eq!(summary.columns, ["adapter", "r"]);
    let rows = &summary.groups[0].rows;
    let adapters: Vec<_> = rows.iter().map(|row| row.adapter().unwrap()).collect();
    assert_eq!(adapters, ["none", "lora", "rosa", "rosa"]);
    // 60, 61 and 62 of the common class, 1 of the rare one.
    assert!((rows[1].top1.mean - 0.62).abs() < 1e-12);
    assert!((rows[1].top1.half_width.unwrap() - 0.01 * 4.302_653 / 3.0_f64.sqrt()).abs() < 1e-9);
    assert_eq!(rows[0].settings.get("r"), None, "nothing has a rank where nothing is trained");
}

#[test]
fn rows_are_compared_seed_by_seed() {
    let summary = summary();
    let differences: Vec<_> = summary.groups[0].rows.iter().map(|row| row.difference).collect();
    assert_eq!(differences[1], None, "the reference");
    let rosa = differences[2].unwrap();
    assert!((rosa.mean - 0.02).abs() < 1e-12 && rosa.count == 3);
    assert!(rosa.half_width.unwrap() < 1e-9, "the seeds share their ups and downs");
}

#[test]
fn doubts_about_images_do_not_average_out_over_seeds() {
    let summary = summary();
    // 80 and 5 right before; 60, 61 and 62 and 1 after: 24, 23 and 22 lost of 100.
    let paired = summary.groups[0].rows[1].against_dense.unwrap();
    assert!((paired.mean + 0.23).abs() < 1e-12);
    let error = |lost: f64| ((lost + 1.0) - lost * lost / 102.0).sqrt() / 102.0;
    let of_images = ((22..=24).map(|lost| error(f64::from(lost)).powi(2)).sum::<f64>() / 3.0).sqrt();
    let of_seeds = 0.01 * 4.302_653 / 3.0_f64.sqrt();
    let expected = of_seeds.hypot(1.959_963_985 * of_images);
    assert!((paired.half_width.unwrap() - expected).abs() < 1e-9, "{paired:?}");
}

#[test]
fn tables_have_a_column_for_what_varies() {
    let text = markdown(&summary(), "plots/");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "### small · birds · 5 shots · 20×");
    let head = "| adapter | r | seeds | dense | one-shot | final | against dense | against lora | worst class | largest drop | trained | seconds |";
    assert_eq!(lines[2], head);
    let none =
        "| none | – | 3 | 85.0 ± 0.0 | 30.0 ± 0.0 | 42.0 ± 2.5 | −43.0 ± 10.1 | −20.0 ± 0.0 | 10.0 ± 0.0 |";
    assert!(lines[4].starts_with(none), "{}", lines[4]);
    assert!(lines[4].ends_with("| 0.60 + 0.10 % | 20 |"), "{}", lines[4]);
    assert!(text.contains("(plots/try-small-birds-5-shots-20x.svg)"), "{text}");
}

#[test]
fn failures_and_what_is_missing_are_told() {
    let experiment = experiment();
    let runs = experiment.runs(&[]).unwrap();
    let mut results = Results::default();
    results.insert(line(&runs[0], 50));
    results.insert(Line::new(&runs[1], Outcome::Error("the loss is not finite".into())));
    let summary = Summary::new(&experiment, &runs, &results).unwrap();
    let text = markdown(&summary, "plots/");
    assert!(text.contains("*1 of 12 runs are done.*"), "{text}");
    assert!(text.contains("failed: small birds 5 shots 20x lora seed 0: the loss is not finite"), "{text}");
    let plan = Plan::new(&groups(runs), &results);
    assert_eq!((plan.runs, plan.groups, plan.done, plan.failed, plan.left.len()), (12, 3, 1, 1, 10));
    // Three networks to prune at 40 s, ten runs at 21 s.
    assert!((plan.seconds_left.unwrap() - (3.0 * 40.0 + 10.0 * 21.0)).abs() < 1e-9, "{plan:?}");
}

#[test]
fn plots_are_sound_xml_for_both_grounds() {
    let mut summary = summary();
    summary.groups[0].task = "birds & <bees>".to_owned();
    let svg = plot(&summary, &summary.groups[0]);
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.contains("prefers-color-scheme: dark") && !svg.contains("<bees>"), "{svg}");
    assert_eq!(svg.matches("<circle").count(), 8, "final and one-shot of four rows");
    assert!(!svg.contains("NaN"), "{svg}");
    assert_eq!(slug(&summary, &summary.groups[0]), "try-small-birds-bees-5-shots-20x");
}

/// Two methods for networks that are only pruned, the first at three numbers of shots and two shares.
fn named(curve: &str) -> Result<Summary, ExperimentError> {
    named_after(curve, usize::MAX)
}

/// The same with that many runs done.
fn named_after(curve: &str, done: usize) -> Result<Summary, ExperimentError> {
    let text = format!(
        "[experiment]\nname = 'try'\n{curve}\n[checkpoints.small]\nmodel = 'small.pth'\ngeneral = 'anything'\n
        [tasks.birds]\ndata = 'birds'\n[tasks.fish]\ndata = 'fish'\n
        [methods.ours]\n[methods.theirs]\nprune.solver = 'sparsegpt'\n
        [[sweep]]\nmethod = 'ours'\ncheckpoint = 'small'\ntask = 'all'\nshots = [1, 5, 0]\nadapter = 'none'\nseed = [0, 1]
        'prune.general-share' = [0.0, 0.5]\n
        [[sweep]]\nmethod = 'theirs'\ncheckpoint = 'small'\ntask = 'birds'\nshots = 5\nadapter = 'none'\nseed = [0, 1]\n"
    );
    let experiment = Experiment::parse(&text)?;
    let runs = experiment.runs(&[])?;
    let mut results = Results::default();
    for run in runs.iter().take(done) {
        let mut line = line(run, 40 + run.recipe.shots.per_class);
        if let Outcome::Measured(measured) = &mut line.outcome {
            measured.trainable = Trainable { layers: 0, beside: 0, all: 10_000 };
        }
        results.insert(line);
    }
    Summary::new(&experiment, &runs, &results)
}

#[test]
fn methods_share_a_table_for_each_task() {
    let summary = named("").unwrap();
    let titles: Vec<_> = summary.groups.iter().map(Group::title).collect();
    assert_eq!(titles, ["small · birds · 20×", "small · fish · 20×"]);
    assert_eq!([summary.groups[0].rows.len(), summary.groups[1].rows.len()], [7, 6]);
    let text = markdown(&summary, "plots/");
    let lines: Vec<&str> = text.lines().collect();
    let head = "| method | general-share | shots | seeds | dense | one-shot | against dense | worst class | largest drop |";
    assert_eq!(lines[2], head, "nothing was recovered, and the name says what the solver is");
    assert!(lines[4].starts_with("| ours | 0.0 | 1 | 2 | 85.0"), "{}", lines[4]);
    assert!(lines[10].starts_with("| theirs | auto | 5 | 2 | 85.0"), "{}", lines[10]);
    assert!(text.contains("\n| general-share | shots | seeds | dense |"), "one name tells nothing: {text}");
    assert!(text.contains("| 0.5 | all | 2 |"), "{text}");
}

#[test]
fn curves_follow_an_axis() {
    let summary = named("curve = 'shots'").unwrap();
    let svg = plot(&summary, &summary.groups[1]);
    assert!(svg.contains("prefers-color-scheme: dark") && !svg.contains("NaN"), "{svg}");
    assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 6));
    assert!(svg.contains(">general-share 0.5</text>") && svg.contains(">all</text>"), "{svg}");
    let names = plot(&summary, &summary.groups[0]);
    assert!(names.contains(">theirs, general-share auto</text>"), "a method's name says what it is: {names}");
    let early = named_after("curve = 'shots'", 2).unwrap();
    assert!(plot(&early, &early.groups[0]).contains("<circle"), "nothing varies yet");
    let error = named("curve = 'shot'").unwrap_err();
    assert!(
        matches!(&error, ExperimentError::Curve { nearest: Some(near), .. } if near == "shots"),
        "{error}"
    );
}

#[test]
fn either_all_sweeps_name_their_methods_or_none() {
    let text = "[experiment]\nname = 'try'\n[recipe]\nmodel = 'a.pth'\ndata = 'b'\n
        [methods.ours]\n[[sweep]]\nmethod = 'ours'\nshots = 1\n[[sweep]]\nshots = 2\n";
    let error = Experiment::parse(text).unwrap().runs(&[]).unwrap_err();
    assert_eq!(error.to_string(), "1 of 2 sweeps have a `method`, but all must have one or none");
}
