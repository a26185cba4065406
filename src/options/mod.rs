//! Options as they are declared: once, on the fields of the structs that use them (`#[derive(Options)]`).
//!
//! From the declaration come the flags of a command ([`Given`]), the values of a recipe, their ranges ([`check`]), what has no
//! effect ([`unused`], [`effective`]), and the book's table and a JSON schema ([`listed`], [`schema`]).

mod flags;
mod listed;
mod read;

pub use margay_options_derive::Options;
use serde::Serialize;
use toml::{Table, Value};

pub use flags::{Flags, Given, merge};
pub use listed::{Listed, listed, schema};
pub use read::{choices, from_choice, from_points, from_text, points};

/// A struct whose fields are options.
pub trait Options {
    /// The options in the order of the fields, those of inner tables in their place.
    fn options() -> Vec<Opt>;
}

/// What an option reads from a flag's text.
#[derive(Clone, Copy, Debug)]
pub enum Read {
    /// The value of its key.
    Value(fn(&str) -> Result<Value, String>),
    /// Values of several keys of its table.
    Table(fn(&str) -> Result<Table, String>),
    /// No text: the flag alone gives this value.
    Switch(bool),
    /// Nothing: there is no flag.
    Hidden,
}

/// One option.
#[derive(Clone, Debug)]
pub struct Opt {
    /// The recipe's tables that it lies in, separated by dots; empty at the top.
    pub table: String,
    /// Its key there.
    pub key: &'static str,
    /// Its flag, without hyphens; absent: it has none.
    pub flag: Option<&'static str>,
    /// Its short flag.
    pub short: Option<char>,
    /// The variable of the environment that stands for the flag.
    pub env: Option<&'static str>,
    /// Heading of the help.
    pub heading: Option<&'static str>,
    /// What the key means, one sentence without a full stop.
    pub about: &'static str,
    /// What the flag means.
    pub help: &'static str,
    /// Name of the flag's value in the help.
    pub value: Option<&'static str>,
    /// The default in words, where a recipe's default is no value.
    pub shown: Option<&'static str>,
    /// The default, where there is no flag.
    pub default: Option<Value>,
    /// Least and greatest number.
    pub range: Option<[f64; 2]>,
    /// Whether the flag is in percentage points of what the key is a fraction of.
    pub points: bool,
    /// Whether the flag may be given more than once.
    pub many: bool,
    /// All values, where there are few.
    pub choices: Vec<String>,
    /// How the flag's text is read.
    pub read: Read,
    /// Keys of the same table that the flag makes void.
    pub replaces: &'static [&'static str],
    /// Flags that cannot stand beside it.
    pub conflicts: &'static [&'static str],
    /// Says of a recipe why the option has no effect in it.
    pub unused: Option<fn(&Table) -> Option<&'static str>>,
}

/// A value outside of its option's range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}, but must be in {} ..= {}", range[0], range[1])]
pub struct OutOfRange {
    /// The option's key or flag.
    pub name: String,
    /// The value, in the flag's unit.
    pub value: f64,
    /// Least and greatest value.
    pub range: [f64; 2],
}

impl Opt {
    /// The same in a table of another.
    #[must_use]
    pub fn inside(mut self, table: &str) -> Self {
        self.table = if self.table.is_empty() { table.to_owned() } else { format!("{table}.{}", self.table) };
        self
    }

    /// Tables and key, as an axis of an experiment names them.
    pub fn path(&self) -> String {
        if self.table.is_empty() { self.key.to_owned() } else { format!("{}.{}", self.table, self.key) }
    }

    /// What a recipe says.
    pub fn find<'a>(&self, recipe: &'a Table) -> Option<&'a Value> {
        said(recipe, &self.path())
    }

    /// Puts a value into a recipe, or takes it out.
    pub fn put(&self, recipe: &mut Table, value: Option<Value>) {
        let table = self.open(recipe);
        match value {
            Some(value) => drop(table.insert(self.key.to_owned(), value)),
            None => drop(table.remove(self.key)),
        }
    }

    /// The table that the option lies in, of a recipe or of a part of one; made where it is missing.
    fn open<'a>(&self, recipe: &'a mut Table) -> &'a mut Table {
        names(&self.table).fold(recipe, |table, name| {
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            inner.as_table_mut().expect("options of a recipe lie in tables")
        })
    }

    /// The value where nobody says anything: that of a recipe of defaults, else the option's own.
    fn usual<'a>(&'a self, defaults: &'a Table) -> Option<&'a Value> {
        self.find(defaults).or(self.default.as_ref())
    }

    /// Whether the numbers that a recipe says are in range; NaN never is. A word such as `auto` is.
    fn check(&self, recipe: &Table) -> Result<(), OutOfRange> {
        let (Some(range), Some(value)) = (self.range, self.find(recipe)) else { return Ok(()) };
        let (name, scale) = (self.flag.unwrap_or(self.key), if self.points { 100.0 } else { 1.0 });
        numbers(value).into_iter().try_for_each(|number| within(name, scale * number, range))
    }
}

/// Checks that a number is in a range; NaN never is.
pub fn within(name: &str, value: f64, range: [f64; 2]) -> Result<(), OutOfRange> {
    if (range[0]..=range[1]).contains(&value) {
        return Ok(());
    }
    Err(OutOfRange { name: name.to_owned(), value, range })
}

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Integer(number) => vec![*number as f64],
        Value::Float(number) => vec![*number],
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

/// Checks the range of every number.
pub fn check<T: Options + Serialize>(options: &T) -> Result<(), OutOfRange> {
    let table = Table::try_from(options).expect("options have a place in TOML");
    T::options().iter().try_for_each(|option| option.check(&table))
}

/// A recipe with the defaults of options that have no effect in it, so that equal runs look equal.
pub fn effective<T: Options>(recipe: &Table, defaults: &Table) -> Table {
    let mut effective = recipe.clone();
    for option in T::options().iter().filter(|option| option.unused.is_some_and(|why| why(recipe).is_some()))
    {
        option.put(&mut effective, option.find(defaults).cloned());
    }
    effective
}

/// Flags given that have no effect in a recipe, each with the reason.
pub fn unused<T: Options>(recipe: &Table, defaults: &Table, given: &Table) -> Vec<String> {
    let told = T::options().into_iter().filter_map(|option| {
        let value = option.find(given).filter(|value| option.find(defaults) != Some(value))?;
        debug_assert!(option.find(recipe) == Some(value), "a flag wins");
        Some(format!("--{} has no effect: {}", option.flag?, option.unused?(recipe)?))
    });
    told.collect()
}

/// What a recipe says under a key, with the names of its tables before it and points between.
pub fn said<'a>(recipe: &'a Table, path: &str) -> Option<&'a Value> {
    let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
    names(tables).try_fold(recipe, |table, name| table.get(name)?.as_table())?.get(key)
}

/// A part of a recipe that says one thing.
pub fn entry(key: &str, value: Value) -> Table {
    Table::from_iter([(key.to_owned(), value)])
}

/// Names of the tables in a path.
fn names(tables: &str) -> impl Iterator<Item = &str> {
    tables.split('.').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests;
