use std::path::Path;

use super::super::run::{VERSION, groups, key};
use super::*;

const ADAPTERS: [&str; 3] = ["full", "lora", "rosa"];

fn experiment(sweeps: &str) -> Experiment {
    let text = format!(
        "[experiment]\nname = 'x'\n[checkpoints.small]\nmodel = 'small.pth'\ninput.image-size = 64\n
         [checkpoints.large]\nmodel = 'large.pth'\nlabels = 'labels.json'\n[tasks.birds]\ndata = 'birds'\n
         [recipe.adapt]\nbudget = 0.006\nlora-lr = 0.1\n{sweeps}"
    );
    Experiment::parse(&text).unwrap()
}

fn runs(sweep: &str) -> Vec<Run> {
    experiment(&format!("[[sweep]]\ncheckpoint = 'small'\ntask = 'birds'\n{sweep}")).runs(&ADAPTERS).unwrap()
}

fn error(sweep: &str) -> ExperimentError {
    experiment(&format!("[[sweep]]\ncheckpoint = 'small'\ntask = 'birds'\n{sweep}"))
        .runs(&ADAPTERS)
        .unwrap_err()
}

#[test]
fn a_sweep_is_the_cross_product_of_its_axes() {
    let runs = experiment(
        "[[sweep]]\ncheckpoint = 'all'\ntask = 'all'\nadapter = 'all'\nseed = [0, 1]\nshots = [5, 16]\ncompression = ['20x', 1]",
    )
    .runs(&ADAPTERS)
    .unwrap();
    assert_eq!(runs.len(), 2 * 3 * 2 * 2 * 2);
    // The seed is outermost, so that an interrupted sweep has seen everything.
    assert!(runs[..24].iter().all(|run| run.recipe.seed == 0));
    let folds: BTreeSet<String> =
        runs.iter().map(|run| format!("{:.1}", run.recipe.prune.sparsity.compression())).collect();
    assert_eq!(folds.into_iter().collect::<Vec<_>>(), ["1.0", "20.0"]);
    let large = runs.iter().find(|run| run.checkpoint == "large").unwrap();
    assert_eq!(large.recipe.labels.as_deref(), Some(Path::new("labels.json")));
    assert_eq!((large.recipe.input.image_size, large.task.as_str()), (None, "birds"));
}

#[test]
fn any_key_of_a_recipe_is_an_axis() {
    let dotted = runs("adapter = 'lora'\n'adapt.lora-lr' = [0.01, 0.02]");
    let nested = runs("adapter = 'lora'\nadapt.lora-lr = [0.01, 0.02]");
    assert_eq!(dotted, nested);
    assert_eq!(dotted.iter().map(|run| run.recipe.adapt.lora_lr).collect::<Vec<_>>(), [0.01, 0.02]);
}

#[test]
fn a_method_sets_several_keys_under_one_name() {
    let file = "[methods.few]\nprune.solver = 'wanda'\nprune.general-share = 0.0\n[methods.many]\nprune.general-share = 1.0\n
        [[sweep]]\ncheckpoint = 'small'\ntask = 'birds'\nadapter = 'none'\n";
    let runs = experiment(&format!("{file}method = 'all'")).runs(&ADAPTERS).unwrap();
    let told: Vec<_> =
        runs.iter().map(|run| (run.method.as_deref(), run.recipe.prune.solver.as_str())).collect();
    assert_eq!(told, [(Some("few"), "wanda"), (Some("many"), "alps")]);
    let over = experiment(&format!("{file}method = 'few'\nsolver = 'obc'")).runs(&ADAPTERS).unwrap();
    assert_eq!(over[0].recipe.prune.solver, "obc", "an axis of the sweep wins");
    let unknown = experiment(&format!("{file}method = 'man'")).runs(&ADAPTERS).unwrap_err();
    assert!(
        matches!(unknown, ExperimentError::Name { axis: "method", nearest: Some(near), .. } if near == "many")
    );
}

#[test]
fn a_rank_is_meant_instead_of_the_common_budget() {
    let adapt = |sweep| runs(sweep)[0].recipe.adapt.clone();
    assert_eq!(adapt("adapter = 'lora'").budget, Some(0.006));
    let ranked = adapt("adapter = 'lora'\nr = 2");
    assert_eq!((ranked.budget, ranked.r, ranked.lora_lr), (None, 2, 0.1));
}

#[test]
fn runs_that_are_the_same_are_done_once() {
    assert_eq!(runs("adapter = ['none', 'full']\npolicy = ['keep', 'grow']\nepochs = [1, 2]").len(), 3);
    let pools = "'shots.general-pool' = [0, 100, 2048]\n'prune.general-share' = [0.0, 0.5]";
    assert_eq!(runs(&format!("{pools}\ngeneral = 'anything'")).len(), 1 + 2, "100 is fewer than are taken");
    assert_eq!(runs(pools).len(), 1, "no photos to look at");
    let twice = "[[sweep]]\ncheckpoint = 'small'\ntask = 'birds'\nadapter = ['lora', 'rosa']\n";
    assert_eq!(experiment(&twice.repeat(2)).runs(&ADAPTERS).unwrap().len(), 2);
}

#[test]
fn neither_device_nor_threads_change_a_key() {
    let keys = |sweep| runs(sweep).into_iter().map(|run| run.key).collect::<BTreeSet<_>>();
    assert_ne!(keys("seed = 1"), keys("seed = 2"));
    let mut recipe = runs("seed = 1")[0].recipe.clone();
    (recipe.device, recipe.threads) = ("cuda:3".to_owned(), 7);
    assert_eq!(BTreeSet::from([key(VERSION, &recipe).unwrap()]), keys("seed = 1"));
}

#[test]
fn runs_are_grouped_by_what_is_pruned() {
    let all = "adapter = ['none', 'lora', 'rosa']\nseed = [0, 1]\nepochs = [1, 2]";
    let of = |text: &str| groups(runs(&format!("{all}{text}")));
    let sizes = |text: &str| of(text).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes("\n'recovery.pilot' = false"), [5, 5]);
    assert!(of("\n'recovery.pilot' = false")[0].iter().all(|run| run.recipe.seed == 0));
    assert_eq!(sizes(""), [1, 4, 1, 4], "masks come without the fold where it is asked");
    let gradual = groups(runs("'recovery.schedule' = 'gradual'\nepochs = [1, 2]"));
    assert_eq!(gradual.len(), 2, "a gradual schedule trains before it prunes on");
}

#[test]
fn mistakes_are_named() {
    let cases = [
        ("adaptor = 'lora'", "sweep 1 varies `adaptor`"),
        ("checkpoints = 'small'", "`checkpoints`"),
        ("shots = []", "at least one value"),
        ("compression = '0.5x'", "`compression` is \"0.5x\""),
        ("'adapt.lora-lt' = 0.1", "lora-lt"),
        ("'seed.x' = 1", "invalid type: map"),
        ("policy = 'kep'", "`kep`"),
    ];
    for (sweep, expected) in cases {
        let told = error(sweep).to_string();
        assert!(told.contains(expected), "{sweep}: {told}");
    }
    let unknown = experiment("[[sweep]]\ncheckpoint = 'smal'\ntask = 'birds'").runs(&ADAPTERS).unwrap_err();
    assert!(
        matches!(unknown, ExperimentError::Name { axis: "checkpoint", nearest: Some(near), .. } if near == "small")
    );
    let nearest = error("adaptor = 'lora'");
    assert!(matches!(nearest, ExperimentError::Axis { nearest: Some(near), .. } if near == "adapter"));
}

#[test]
fn every_recipe_that_is_shipped_unfolds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes");
    let files: Vec<_> = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty());
    for path in files {
        let experiment = Experiment::parse(&fs_err::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(path.file_stem().unwrap().to_str(), Some(experiment.about.name.as_str()));
        let runs = experiment.runs(&["lora", "rosa"]).unwrap();
        assert!(runs.len() > 3, "{}: {} runs", path.display(), runs.len());
    }
}
