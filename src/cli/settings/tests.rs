use super::*;
use crate::cli::exit::Exit;

fn with_files() -> RecipeArgs {
    RecipeArgs { model: Some("m.pth".into()), data: Some("photos".into()), ..RecipeArgs::default() }
}

fn recipe_file(text: &str) -> (tempfile::TempDir, RecipeArgs) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    fs_err::write(&path, text).unwrap();
    (dir, RecipeArgs { recipe: Some(path), ..RecipeArgs::default() })
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let (_dir, args) = recipe_file(
        "model = 'a.pth'\ndata = 'b'\nseed = 3\nthreads = 2\n[prune]\nsolver = 'wanda'\nsparsity = 0.9\n",
    );
    let args = RecipeArgs {
        seed: Some(4),
        prune: PruneArgs { compression: parse_compression("10x").ok(), ..args.prune.clone() },
        ..args
    };
    let recipe = Settings::resolve(args, None).unwrap();
    assert_eq!((recipe.seed, recipe.threads), (4, 2));
    assert_eq!(recipe.prune.solver, "wanda");
    assert!((recipe.prune.sparsity.fraction() - 0.9).abs() < 1e-12);
    assert_eq!(recipe.prune.allocation, PruneSpec::default().allocation);
}

#[test]
fn a_saved_recipe_resolves_to_itself() {
    let args = RecipeArgs {
        preprocess: Some("zamba".into()),
        image_size: Some(96),
        resize: Some(ResizeChoice::Pad),
        ..with_files()
    };
    let recipe = Settings::resolve(args, Some(3)).unwrap();
    let (_dir, args) = recipe_file(&toml::to_string(&recipe).unwrap());
    assert_eq!(Settings::resolve(args, None).unwrap(), recipe);
}

#[test]
fn unknown_keys_are_named_and_the_nearest_is_offered() {
    let (_dir, args) = recipe_file("model = 'a'\ndata = 'b'\n[prune]\nsparsty = 0.9\n");
    let failure = Settings::resolve(args, None).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(format!("{:#}", failure.error).contains("`sparsty`"), "{:#}", failure.error);
    assert_eq!(failure.hint.as_deref(), Some("did you mean `sparsity`?"));
}

#[test]
fn what_is_missing_is_asked_for() {
    let failure = Settings::resolve(RecipeArgs::default(), None).unwrap_err();
    assert_eq!(failure.error.to_string(), "no model is given");
}

#[test]
fn values_out_of_range_are_refused_wherever_they_come_from() {
    type Change = fn(&mut RecipeArgs);
    let wrong: &[(&str, Change)] = &[
        ("device", |a| a.device = Some("gpu".into())),
        ("holdout", |a| a.holdout = Some(1.0)),
        ("holdout", |a| a.holdout = Some(f64::NAN)),
        ("learning-rate", |a| a.recovery.learning_rate = Some(0.0)),
        ("batch", |a| a.recovery.batch = Some(0)),
        ("image-size", |a| a.image_size = Some(1_000_000)),
        ("preprocessing", |a| a.preprocess = Some("torchvison".into())),
        ("allocation", |a| a.prune.allocation = Some("unifrom".into())),
    ];
    for (name, change) in wrong {
        let mut args = with_files();
        change(&mut args);
        let failure = Settings::resolve(args, None).unwrap_err();
        assert!(failure.error.to_string().contains(name), "{name}: {}", failure.error);
    }
}

#[test]
fn numbers_are_read_as_people_write_them() {
    for text in ["20x", "20", "20X", "20×"] {
        assert_eq!(parse_compression(text), Ok(Sparsity::from_compression(20.0).unwrap()));
    }
    assert!(parse_compression("0.5x").is_err());
    assert!(parse_sparsity("95").is_err());
    assert_eq!(parse_shots("all"), Ok(0));
    assert!(parse_shots("0").is_err());
}
