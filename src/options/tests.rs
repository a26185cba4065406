use clap::{Args as _, Command, FromArgMatches as _};
use toml::Table;

use super::*;
use crate::recipe::Recipe;

struct All;

impl Flags for All {
    fn options() -> Vec<Opt> {
        Recipe::options()
    }

    fn defaults() -> Table {
        recipe().to_table()
    }
}

fn recipe() -> Recipe {
    Recipe::new("m.pth".into(), "photos".into())
}

/// What flags say.
fn given(flags: &[&str]) -> Result<Given<All>, clap::Error> {
    let command = Given::<All>::augment_args(Command::new("margay"));
    let matches = command.try_get_matches_from(["margay"].iter().chain(flags))?;
    Given::from_arg_matches(&matches)
}

fn parsed(text: &str) -> Table {
    text.parse().unwrap()
}

#[test]
fn every_option_is_declared_once_and_read_from_its_own_default() {
    let options = Recipe::options();
    let mut flags: Vec<&str> = options.iter().filter_map(|option| option.flag).collect();
    let all = flags.len();
    flags.sort_unstable();
    flags.dedup();
    assert_eq!(flags.len(), all, "a flag stands twice");
    let defaults = recipe().to_table();
    for option in &options {
        option.check(&defaults).unwrap();
        let Some(stored) = option.find(&defaults) else { continue };
        // What the help shows as the default is what the flag makes of it.
        let (Read::Value(_) | Read::Table(_), Some(flag)) = (option.read, option.flag) else { continue };
        if flag == "compression" {
            // It shows no default: its sister --sparsity does.
            continue;
        }
        let text = if stored.as_integer() == Some(0) && flag == "shots" {
            "all".into()
        } else {
            flags::shown(stored)
        };
        let mut given = Given::<All>::default();
        given.set(flag, &text).unwrap_or_else(|error| panic!("--{flag} {text}: {error}"));
        assert_eq!(given.over(defaults.clone()), defaults, "--{flag} {text}");
    }
}

#[test]
fn the_keys_of_a_recipe_are_its_options() {
    fn keys(table: &Table, prefix: &str, found: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                Value::Table(inner) => keys(inner, &format!("{prefix}{key}."), found),
                _ => found.push(format!("{prefix}{key}")),
            }
        }
    }
    let mut found = Vec::new();
    keys(&recipe().to_table(), "", &mut found);
    let known: Vec<String> = Recipe::options().iter().map(Opt::path).collect();
    let strange: Vec<&String> = found.iter().filter(|key| !known.contains(key)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn flags_win_over_a_recipe_and_void_what_they_replace() {
    let file = parsed(
        "seed = 3\n[prune]\ntarget = '8ms'\nsolver = 'wanda'\n[adapt]\nbudget = 0.1\n[classes.map]\nfox = ['a']\nowl = ['b']",
    );
    let flags = [
        "--compression",
        "10x",
        "--r",
        "4",
        "--map",
        "fox=c",
        "--map",
        "fox=d,e",
        "--no-pilot",
        "--epochs",
        "5,10",
    ];
    let told = given(&flags).unwrap().over(file);
    assert_eq!(told["seed"], Value::Integer(3));
    assert_eq!(told["prune"], Value::Table(parsed("solver = 'wanda'\nsparsity = 0.9")));
    assert_eq!(told["adapt"], Value::Table(parsed("r = 4")));
    assert_eq!(told["classes"]["map"], Value::Table(parsed("fox = ['c', 'd', 'e']\nowl = ['b']")));
    assert_eq!(told["recovery"], Value::Table(parsed("pilot = false\nepochs = 5\ntry-epochs = [5, 10]")));
}

#[test]
fn texts_that_are_no_value_and_flags_that_contradict_are_refused() {
    for flags in [
        &["--batch", "many"][..],
        &["--recovery", "sometimes"],
        &["--target", "8 bananas"],
        &["--pattern", "0:4"],
        &["--shots", "0"],
        &["--seed", "-1"],
        &["--sparsity", "0.9", "--compression", "10x"],
        &["--target", "8ms", "--sparsity", "0.9"],
        &["--budget", "0.1", "--r", "4"],
        &["--fit-head", "--map", "fox=a"],
        &["--max-class-drop", "101"],
    ] {
        assert!(given(flags).is_err(), "{flags:?}");
    }
}

#[test]
fn numbers_out_of_range_are_named_in_the_flags_unit() {
    let mut recipe = recipe();
    check(&recipe).unwrap();
    recipe.recovery.batch = 0;
    assert_eq!(check(&recipe).unwrap_err().to_string(), "batch is 0, but must be in 1 ..= 65536");
    recipe.recovery.batch = 1;
    recipe.shots.holdout = f64::NAN;
    assert_eq!(check(&recipe).unwrap_err().name, "holdout");
    recipe.shots.holdout = 0.2;
    recipe.prune.max_class_drop = Some(1.5);
    assert_eq!(check(&recipe).unwrap_err().to_string(), "max-class-drop is 150, but must be in 0 ..= 100");
    recipe.prune.max_class_drop = None;
    recipe.prune.alps.rounds = 0;
    assert_eq!(check(&recipe).unwrap_err().to_string(), "rounds is 0, but must be in 1 ..= 100000");
    recipe.prune.alps.rounds = 1;
    recipe.recovery.try_epochs = vec![5, 2_000_000];
    assert!(check(&recipe).is_err());
}

#[test]
fn what_has_no_effect_is_told_and_taken_back() {
    let mut recipe = recipe();
    let given =
        given(&["--freeze", "0.3", "--batch", "32", "--general-pool", "9", "--fisher", "0.1"]).unwrap();
    recipe.general = Some("g".into());
    (recipe.recovery.freeze, recipe.shots.general_pool, recipe.prune.fisher) = (0.3, 9, 0.1);
    assert!(recipe.unused(given.table()).is_empty());
    assert_eq!(recipe.effective(), recipe);
    recipe.recovery.schedule = crate::recipe::Schedule::None;
    recipe.general = None;
    let told = recipe.unused(given.table());
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("--general-pool has no effect: there is no folder"), "{told:?}");
    assert!(told[1].starts_with("--freeze has no effect: nothing is finetuned"), "{told:?}");
    let effective = recipe.effective();
    assert_eq!((effective.recovery.freeze, effective.shots.general_pool), (0.5, 2048));
}

#[test]
fn the_schema_knows_every_key_and_default() {
    let defaults = recipe().to_table();
    let schema = schema::<Recipe>(&defaults);
    let batch = &schema["properties"]["recovery"]["properties"]["batch"];
    assert_eq!(batch["type"], "integer");
    assert_eq!(
        (&batch["default"], &batch["minimum"], &batch["maximum"]),
        (&32.into(), &1.0.into(), &65536.0.into())
    );
    let schedule = &schema["properties"]["recovery"]["properties"]["schedule"];
    assert_eq!(schedule["enum"], serde_json::json!(["none", "one-shot", "gradual"]));
    let damping = &schema["properties"]["prune"]["properties"]["damping"];
    assert_eq!(damping["type"], serde_json::json!(["number", "string"]));
    for option in listed::<Recipe>(&defaults) {
        let found = option.key.split('.').fold(&schema, |schema, key| &schema["properties"][key]);
        assert_eq!(found["description"], option.about, "{}", option.key);
    }
}
