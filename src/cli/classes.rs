//! Flags that say how folders become classes, for every command that reads them.

use std::collections::BTreeMap;

use crate::recipe::ClassSpec;

/// Flags of folders.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FolderArgs {
    /// How far below the folder (or below train/ and val/) the class folders are: 2 for camera/class [default: 1, and
    /// folders that look like cameras are refused]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32), help_heading = "Data")]
    pub class_level: Option<u8>,
    /// Follow links that lead out of the folder
    #[arg(long, help_heading = "Data")]
    pub follow_links: bool,
    /// Labels of the model that a class folder stands for, such as `fox=red_fox,kit_fox`: several count as one;
    /// may be given more than once
    #[arg(long, value_name = "CLASS=LABEL,…", value_parser = parse_map, help_heading = "Data")]
    pub map: Vec<(String, Vec<String>)>,
}

/// Flags of the head, for the commands that make one.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct HeadArgs {
    /// Fit a new head, even if the checkpoint's labels are the classes or look like them
    #[arg(long, conflicts_with = "map", help_heading = "Data")]
    pub fit_head: bool,
}

impl FolderArgs {
    /// These flags over what a recipe file says.
    pub fn over(self, head: HeadArgs, from: ClassSpec) -> ClassSpec {
        let Self { class_level, follow_links, map } = self;
        let mut all: BTreeMap<String, Vec<String>> = from.map;
        let given = |class: &String| map.iter().any(|(named, _)| named == class);
        all.retain(|class, _| !given(class));
        for (class, labels) in map {
            all.entry(class).or_default().extend(labels);
        }
        ClassSpec {
            level: class_level.map(usize::from).or(from.level),
            follow_links: follow_links || from.follow_links,
            fit_head: head.fit_head || from.fit_head,
            map: all,
        }
    }
}

fn parse_map(text: &str) -> Result<(String, Vec<String>), String> {
    let (class, labels) = text.split_once('=').ok_or("must be such as fox=red_fox,kit_fox")?;
    let labels: Vec<String> = labels.split(',').map(|label| label.trim().to_owned()).collect();
    if class.trim().is_empty() || labels.iter().any(String::is_empty) {
        return Err("must name a class and its labels, such as fox=red_fox,kit_fox".to_owned());
    }
    Ok((class.trim().to_owned(), labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_replace_what_the_file_says_of_a_class() {
        let [fox, owl] = ["fox", "owl"].map(str::to_owned);
        let map = BTreeMap::from([(fox.clone(), vec!["a".to_owned()]), (owl.clone(), vec!["b".to_owned()])]);
        let file = ClassSpec { level: Some(2), map, ..ClassSpec::default() };
        let map = vec![parse_map("fox = c, d").unwrap(), parse_map("fox=e").unwrap()];
        let spec = FolderArgs { map, ..FolderArgs::default() }.over(HeadArgs::default(), file);
        assert_eq!(spec.level, Some(2));
        assert_eq!((spec.map[&fox].join("+"), spec.map[&owl].join("+")), ("c+d+e".into(), "b".into()));
        for bad in ["fox", "=a", "fox=", "fox=a,,b"] {
            assert!(parse_map(bad).is_err(), "{bad}");
        }
    }
}
