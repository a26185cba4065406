//! The flags of a command that stand for keys of a recipe.

use std::ffi::OsString;
use std::marker::PhantomData;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use toml::{Table, Value};

use super::{Opt, Read, entry, names};

/// Which options a command has, and what they are without flags.
pub trait Flags: 'static {
    /// The options, in the order of the help.
    fn options() -> Vec<Opt>;

    /// What holds where there is neither a flag nor a recipe.
    fn defaults() -> Table;
}

/// What the flags of a command say, as a part of a recipe.
#[derive(Debug)]
pub struct Given<F> {
    table: Table,
    /// Options whose values in a recipe the flags make void.
    void: Vec<(String, &'static str)>,
    kind: PhantomData<F>,
}

impl<F> Clone for Given<F> {
    fn clone(&self) -> Self {
        Self { table: self.table.clone(), void: self.void.clone(), kind: PhantomData }
    }
}

impl<F> Default for Given<F> {
    fn default() -> Self {
        Self { table: Table::new(), void: Vec::new(), kind: PhantomData }
    }
}

impl<F: Flags> Given<F> {
    /// What the flags say.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// A recipe with what the flags say instead of what it says.
    pub fn over(&self, mut recipe: Table) -> Table {
        for (table, key) in &self.void {
            let found = names(table).try_fold(&mut recipe, |table, name| table.get_mut(name)?.as_table_mut());
            found.map(|table| table.remove(*key));
        }
        merge(&mut recipe, &self.table);
        recipe
    }

    /// Sets an option as its flag does.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn set(&mut self, flag: &str, text: &str) -> Result<(), String> {
        let option = F::options()
            .into_iter()
            .find(|option| option.flag == Some(flag))
            .expect("a flag of this command");
        let fragment = fragment(option.key, option.read, text)?;
        self.add(&option, &fragment);
        Ok(())
    }

    /// Sets a key at the top of the recipe.
    pub fn put(&mut self, key: &str, value: Value) {
        self.table.insert(key.to_owned(), value);
    }

    fn add(&mut self, option: &Opt, fragment: &Table) {
        self.void.extend(option.replaces.iter().map(|key| (option.table.clone(), *key)));
        gather(option.open(&mut self.table), fragment);
    }
}

impl<F: Flags> clap::Args for Given<F> {
    fn augment_args(command: Command) -> Command {
        let defaults = F::defaults();
        F::options().iter().fold(command, |command, option| match argument(option, &defaults) {
            Some(argument) => command.arg(argument),
            None => command,
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<F: Flags> FromArgMatches for Given<F> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        for option in F::options() {
            let Some(flag) = option.flag else { continue };
            match option.read {
                Read::Switch(value) if matches.get_flag(flag) => {
                    given.add(&option, &entry(option.key, Value::Boolean(value)));
                }
                Read::Switch(_) => {}
                _ => {
                    for fragment in matches.get_many::<Table>(flag).into_iter().flatten() {
                        given.add(&option, fragment);
                    }
                }
            }
        }
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flag of an option, if it has one.
fn argument(option: &Opt, defaults: &Table) -> Option<Arg> {
    let flag = option.flag?;
    let mut argument = Arg::new(flag).long(flag).help(help(option, defaults));
    if let Some(short) = option.short {
        argument = argument.short(short);
    }
    if let Some(heading) = option.heading {
        argument = argument.help_heading(heading);
    }
    if let Some(variable) = option.env {
        argument = argument.env(variable).hide_env_values(true);
    }
    argument = argument.conflicts_with_all(option.conflicts);
    if matches!(option.read, Read::Switch(_)) {
        return Some(argument.action(ArgAction::SetTrue));
    }
    let action = if option.many { ArgAction::Append } else { ArgAction::Set };
    let name = option.value.map_or_else(|| flag.to_uppercase().replace('-', "_"), str::to_owned);
    Some(argument.action(action).value_name(name).value_parser(parser(option)))
}

/// The help of a flag, with the default.
fn help(option: &Opt, defaults: &Table) -> String {
    let stored = option.find(defaults).filter(|_| !matches!(option.read, Read::Switch(_)));
    let shown = option.shown.map(str::to_owned).or_else(|| stored.map(shown)).filter(|text| !text.is_empty());
    match shown {
        Some(shown) => format!("{} [default: {shown}]", option.help),
        None => option.help.to_owned(),
    }
}

/// A value as people write it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Float(number) => number.to_string(),
        other => other.to_string(),
    }
}

fn parser(option: &Opt) -> ValueParser {
    let (key, read) = (option.key, option.read);
    if !option.choices.is_empty() {
        let names = PossibleValuesParser::new(option.choices.clone());
        return ValueParser::new(names.try_map(move |text| fragment(key, read, &text).map_err(Wrong)));
    }
    let text = |given: OsString| {
        given.into_string().map_err(|given| {
            let name = given.to_string_lossy();
            Wrong(format!(
                "`{name}` is not UTF-8, so that no recipe can name it: rename it, or reach it through a link"
            ))
        })
    };
    ValueParser::new(
        OsStringValueParser::new().try_map(move |given| fragment(key, read, &text(given)?).map_err(Wrong)),
    )
}

/// Why a flag's text is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Wrong(String);

/// What a flag's text says of its table.
fn fragment(key: &str, read: Read, text: &str) -> Result<Table, String> {
    match read {
        Read::Value(read) => read(text).map(|value| entry(key, value)),
        Read::Table(read) => read(text),
        Read::Switch(value) => Ok(entry(key, Value::Boolean(value))),
        Read::Hidden => unreachable!("an option without a flag is read from recipes only"),
    }
}

/// Puts `over` over a recipe: tables key by key, everything else as a whole.
pub fn merge(table: &mut Table, over: &Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over),
            _ => drop(table.insert(key.clone(), value.clone())),
        }
    }
}

/// The same where a flag is given again: lists are joined.
fn gather(table: &mut Table, more: &Table) {
    for (key, value) in more {
        match (table.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(more)) => gather(inner, more),
            (Some(Value::Array(inner)), Value::Array(more)) => inner.extend(more.iter().cloned()),
            _ => drop(table.insert(key.clone(), value.clone())),
        }
    }
}
