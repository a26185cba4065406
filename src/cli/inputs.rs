//! What a recipe names must exist before anything is read: a mistyped path is told at once, and all of them together.

use std::path::Path;

use super::exit::{Exit, Failure};
use crate::recipe::Recipe;

/// Fails with every path of the recipe that leads nowhere.
pub fn check_inputs(recipe: &Recipe) -> Result<(), Failure> {
    let options =
        [("labels", &recipe.labels), ("general", &recipe.general), ("unlabelled", &recipe.unlabelled)];
    let optional = options.iter().filter_map(|(name, path)| Some((*name, path.as_deref()?)));
    let named = [("model", recipe.model.as_path()), ("data", &recipe.data)].into_iter().chain(optional);
    let missing: Vec<(&str, &Path)> = named.filter(|(_, path)| !path.exists()).collect();
    let Some((_, first)) = missing.first() else { return Ok(()) };
    let all: Vec<String> =
        missing.iter().map(|(name, path)| format!("{} ({name})", path.display())).collect();
    let verb = if all.len() == 1 { "does" } else { "do" };
    let failure = Failure::new(Exit::BadInput, format!("{} {verb} not exist", all.join(", ")));
    Err(match nearest_sibling(first) {
        Some(near) => failure.hint(format!("did you mean {}?", first.with_file_name(near).display())),
        None => failure.hint("paths in a recipe start from the folder in which the command is run"),
    })
}

/// The name in the same folder that looks most like that of `path`.
fn nearest_sibling(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = fs_err::read_dir(folder).ok()?.flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    margay_core::nearest_name(path.file_name()?.to_str()?, names.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_missing_path_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("resnet18.pth"), "").unwrap();
        let mut recipe = Recipe::new(dir.path().join("resnet81.pth"), dir.path().join("photos"));
        recipe.general = Some(dir.path().to_owned());
        let failure = check_inputs(&recipe).unwrap_err();
        assert_eq!(failure.exit, Exit::BadInput);
        let message = failure.error.to_string();
        assert!(message.contains("resnet81.pth (model)") && message.contains("photos (data) do not exist"));
        assert!(!message.contains("general"), "{message}");
        assert!(failure.hint.unwrap().contains("resnet18.pth"));
        recipe.model = dir.path().join("resnet18.pth");
        recipe.data = dir.path().to_owned();
        assert!(check_inputs(&recipe).is_ok());
    }
}
