use super::*;
use crate::cli::exit::Exit;

fn given(flags: &[(&str, &str)]) -> RecipeArgs<CompressFlags> {
    let mut args = RecipeArgs::default();
    for (flag, text) in flags {
        args.given.set(flag, text).unwrap();
    }
    args
}

fn with_files(flags: &[(&str, &str)]) -> RecipeArgs<CompressFlags> {
    given(&[&[("model", "m.pth"), ("data", "photos")], flags].concat())
}

fn recipe_file(text: &str, flags: &[(&str, &str)]) -> (tempfile::TempDir, RecipeArgs<CompressFlags>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    fs_err::write(&path, text).unwrap();
    (dir, RecipeArgs { recipe: Some(path), ..given(flags) })
}

fn resolved(args: &RecipeArgs<CompressFlags>) -> Result<Recipe, Failure> {
    let recipe = resolve(args, None)?;
    check(&recipe).map(|()| recipe)
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text =
        "model = 'a.pth'\ndata = 'b'\nseed = 3\nthreads = 2\n[prune]\nsolver = 'wanda'\nsparsity = 0.5\n";
    let (_dir, args) = recipe_file(text, &[("seed", "4"), ("compression", "10x")]);
    let recipe = resolved(&args).unwrap();
    assert_eq!((recipe.seed, recipe.threads), (4, 2));
    assert_eq!(recipe.prune.solver, "wanda");
    assert!((recipe.prune.sparsity.fraction() - 0.9).abs() < 1e-12);
    assert_eq!(recipe.prune.allocation, "erk");
}

#[test]
fn a_limit_holds_unless_a_recipe_or_a_flag_says_otherwise() {
    let drop = |args| resolved(&args).unwrap().prune.max_drop;
    assert_eq!(drop(with_files(&[])), Some(0.03));
    assert_eq!(drop(with_files(&[("max-drop", "5")])), Some(0.05));
    assert_eq!(drop(with_files(&[("max-drop", "none")])), None);
    let file = |text, flags: &[_]| {
        let (_dir, args) = recipe_file(&format!("model = 'a'\ndata = 'b'\n{text}"), flags);
        drop(args)
    };
    assert_eq!(file("", &[]), None);
    assert_eq!(file("prune.max-drop = 0.1", &[]), Some(0.1));
    assert_eq!(file("prune.max-drop = 0.1", &[("max-drop", "none")]), None);
}

#[test]
fn a_saved_recipe_resolves_to_itself() {
    let flags = [("preprocess", "zamba"), ("image-size", "96"), ("resize", "pad"), ("recovery", "gradual")];
    let recipe = resolve(&with_files(&flags), Some(3)).unwrap();
    assert_eq!(recipe.threads, 3);
    let (_dir, args) = recipe_file(&toml::to_string(&recipe).unwrap(), &[]);
    assert_eq!(resolved(&args).unwrap(), recipe);
}

#[test]
fn unknown_keys_are_named_and_the_nearest_is_offered() {
    let (_dir, args) = recipe_file("model = 'a'\ndata = 'b'\n[prune]\nsparsty = 0.9\n", &[]);
    let failure = resolved(&args).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(format!("{:#}", failure.error).contains("`sparsty`"), "{:#}", failure.error);
    assert_eq!(failure.hint.as_deref(), Some("did you mean `sparsity`?"));
}

#[test]
fn a_recipe_of_another_command_is_refused() {
    let (_dir, args) = recipe_file("job = 'adapt'\nmodel = 'a'\ndata = 'b'\n", &[]);
    let failure = resolved(&args).unwrap_err();
    assert!(failure.error.to_string().contains("is a recipe of `margay adapt`"), "{}", failure.error);
    assert!(failure.hint.unwrap().starts_with("margay adapt --recipe"));
}

#[test]
fn what_is_missing_is_asked_for() {
    assert_eq!(resolved(&given(&[])).unwrap_err().error.to_string(), "no model is given");
    assert_eq!(resolved(&given(&[("model", "m")])).unwrap_err().error.to_string(), "no data is given");
}

#[test]
fn values_out_of_range_are_refused_wherever_they_come_from() {
    for (flag, text, named) in [
        ("device", "gpu", "device"),
        ("holdout", "1", "holdout"),
        ("holdout", "nan", "holdout"),
        ("learning-rate", "0", "learning-rate"),
        ("batch", "0", "batch"),
        ("image-size", "1000000", "image-size"),
        ("preprocess", "torchvison", "preprocessing"),
        ("allocation", "unifrom", "allocation"),
        ("class-level", "0", "class-level"),
    ] {
        let failure = resolved(&with_files(&[(flag, text)])).unwrap_err();
        assert!(failure.error.to_string().contains(named), "{flag}: {}", failure.error);
    }
    let (_dir, args) = recipe_file("model = 'a'\ndata = 'b'\n[recovery]\nbatch = 0\n", &[]);
    assert!(resolved(&args).unwrap_err().error.to_string().contains("batch is 0"));
}
