//! Class names in text files and tables.

use std::collections::BTreeSet;

use super::{Label, in_order, is_synset_id};

/// Names, one a line; lines may begin or end with the number of their class, or begin with the id of a synset.
pub(super) fn labels(text: &str) -> Vec<Label> {
    let lines: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
    if lines == [""] {
        return Vec::new();
    }
    let all = |read: fn(&str) -> Option<(u64, &str)>| {
        let numbered = lines.iter().map(|line| read(line)).collect::<Option<Vec<_>>>()?;
        // Names that would be equal without their numbers need them.
        let distinct: BTreeSet<&str> = numbered.iter().map(|(_, name)| *name).collect();
        let whole = numbered.iter().zip(&lines).map(|((number, name), line)| (*number, (*name, *line)));
        in_order(whole.collect()).ok().filter(|_| distinct.len() == lines.len())
    };
    let Some(named) = all(number_first).or_else(|| all(number_last)) else {
        return super::from_names(lines.into_iter().map(str::to_owned).collect());
    };
    let names = super::from_names(named.iter().map(|(name, _)| (*name).to_owned()).collect());
    // Numbers may be part of the names after all.
    let whole = names.into_iter().zip(named).map(|(mut label, (_, line))| {
        label.aliases.push(line.to_owned());
        label
    });
    whole.collect()
}

/// `n01440764 tench, Tinca tinca`, or the id alone.
pub(super) fn synset(line: &str) -> Option<Label> {
    let (id, name) = line.split_once([' ', '\t', ',', ':']).unwrap_or((line, ""));
    let name = name.trim_start_matches([' ', '\t', ',', ':']).trim();
    match (is_synset_id(id), name) {
        (false, _) => None,
        (true, "") => Some(id.to_owned().into()),
        (true, name) => Some(Label::with_alias(unquoted(name), id)),
    }
}

/// `0 tench`, `0: tench`, `0,tench`.
fn number_first(line: &str) -> Option<(u64, &str)> {
    let (number, name) = line.split_once([' ', '\t', ',', ':', ';', '='])?;
    let name = name.trim_start_matches([' ', '\t', ',', ':', ';', '=']).trim();
    Some((number.parse().ok()?, (!name.is_empty()).then(|| unquoted(name))?))
}

/// `tench 0`, `tench,0`.
fn number_last(line: &str) -> Option<(u64, &str)> {
    let (name, number) = line.rsplit_once([' ', '\t', ',', ':', ';', '='])?;
    let name = name.trim_end_matches([' ', '\t', ',', ':', ';', '=']).trim();
    Some((number.parse().ok()?, (!name.is_empty()).then(|| unquoted(name))?))
}

fn unquoted(name: &str) -> &str {
    let pair = |quote: char| name.strip_prefix(quote)?.strip_suffix(quote);
    pair('"').or_else(|| pair('\'')).unwrap_or(name)
}

/// Headers of columns that hold names, the better ones first.
const NAME_COLUMNS: [&str; 12] = [
    "name",
    "label",
    "class_name",
    "label_name",
    "class",
    "category",
    "species",
    "scientificname",
    "scientific_name",
    "common_name",
    "english",
    "title",
];
/// Headers of columns that hold numbers.
const NUMBER_COLUMNS: [&str; 11] = [
    "id",
    "index",
    "idx",
    "class_id",
    "class_idx",
    "class_index",
    "label_id",
    "category_id",
    "number",
    "code",
    "",
];

/// Names of a table: a column with a known header, else the lines as they are.
///
/// # Errors
/// A sentence on what is wrong.
pub(super) fn table(text: &str) -> Result<Vec<Label>, String> {
    let first = text.lines().next().unwrap_or_default();
    let count = |separator: char| first.matches(separator).count();
    let separator = [';', '\t'].into_iter().find(|s| count(*s) > count(',')).unwrap_or(',');
    let mut reader = csv::ReaderBuilder::new();
    reader.delimiter(separator as u8).has_headers(false).flexible(true).trim(csv::Trim::All);
    let rows: Result<Vec<csv::StringRecord>, _> = reader.from_reader(text.as_bytes()).records().collect();
    let rows = rows.map_err(|error| error.to_string())?;
    let Some((header, rows)) = rows.split_first() else { return Ok(Vec::new()) };
    let column = |known: &[&str]| {
        let at = |name: &&str| header.iter().position(|cell| cell.to_lowercase() == *name);
        known.iter().find_map(at)
    };
    let Some(name) = column(&NAME_COLUMNS) else { return Ok(labels(text)) };
    // `class` may head a column of numbers beside one of names with an unknown header.
    let cell = |row: &csv::StringRecord, at: usize| row.get(at).unwrap_or_default().to_owned();
    let names: Vec<String> = rows.iter().map(|row| cell(row, name)).collect();
    let Some(number) = column(&NUMBER_COLUMNS).filter(|at| *at != name) else {
        return Ok(super::from_names(names));
    };
    let keys: Vec<String> = rows.iter().map(|row| cell(row, number)).collect();
    if keys.iter().all(|key| is_synset_id(key)) {
        return Ok(names.into_iter().zip(keys).map(|(name, id)| Label::with_alias(name, id)).collect());
    }
    let numbered = keys.iter().zip(names).map(|(key, name)| Some((key.parse().ok()?, name)));
    let Some(numbered) = numbered.collect::<Option<Vec<(u64, String)>>>() else {
        return Err(format!("the column `{}` holds no numbers", &header[number]));
    };
    let names =
        in_order(numbered).map_err(|missing| format!("the column `{}` skips {missing}", &header[number]))?;
    Ok(super::from_names(names))
}
