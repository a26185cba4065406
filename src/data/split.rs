//! Names of splits, as people write them.

/// What photos of a split are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Train,
    Val,
    Test,
}

const NAMES: [(Role, &[&str]); 3] = [
    (Role::Train, &["train", "training", "trn"]),
    (
        Role::Val,
        &[
            "val",
            "valid",
            "validation",
            "validate",
            "validating",
            "dev",
            "devel",
            "development",
            "eval",
            "evaluation",
            "holdout",
            "heldout",
        ],
    ),
    (Role::Test, &["test", "testing", "tst"]),
];

/// Words that say nothing beside the name of a split: `train_set`, `images-val`.
const FILLERS: [&str; 16] = [
    "set", "sets", "data", "dataset", "split", "image", "images", "img", "imgs", "photo", "photos",
    "picture", "pictures", "sample", "samples", "only",
];

/// The role of a folder that is named like a split, in any case: `TRAIN`, `val2017`, `Test_Images`, `hold-out`.
pub(super) fn role(name: &str) -> Option<Role> {
    let lower = name.trim().to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let said: Vec<&str> = words.iter().copied().filter(|word| !FILLERS.contains(word)).collect();
    let joined = said.concat();
    let named = joined.trim_end_matches(|c: char| c.is_ascii_digit());
    // Only a year is left out: `train3` may be the third of something.
    let word = if joined.len() - named.len() == 4 { named } else { joined.as_str() };
    let is = |name: &&str| {
        word == *name || ["set", "data", "ing"].iter().any(|end| word.strip_suffix(end) == Some(name))
    };
    NAMES.iter().find(|(_, names)| names.iter().any(&is)).map(|(role, _)| *role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_known_by_many_names_and_classes_are_not() {
        for (expected, names) in [
            (
                Role::Train,
                &["train", "TRAIN", "Train ", "training", "Training_Set", "trainset", "train2017"][..],
            ),
            (
                Role::Val,
                &[
                    "val",
                    "Valid",
                    "validation",
                    "VAL",
                    "valset",
                    "images-val",
                    "dev",
                    "eval",
                    "hold-out",
                    "HeldOut",
                ],
            ),
            (Role::Test, &["test", "Testing", "TEST_DATA", "testset", "test_images"]),
        ] {
            for name in names {
                assert_eq!(role(name), Some(expected), "{name}");
            }
        }
        for name in ["trainer", "tram", "train3", "steam train", "images", "valley", "", "fox", "contest"] {
            assert_eq!(role(name), None, "{name}");
        }
    }
}
