//! From the text of a flag to the value of a key.

use std::fmt::Display;
use std::str::FromStr;

use clap::ValueEnum;
use serde::Serialize;
use toml::Value;

/// Reads a value that has a text form.
pub fn from_text<T: FromStr<Err: Display> + Serialize>(text: &str) -> Result<Value, String> {
    let value: T = text.parse().map_err(|error: T::Err| error.to_string())?;
    Value::try_from(value).map_err(|error| error.to_string())
}

/// Reads one of a few values by its name.
pub fn from_choice<T: ValueEnum + Serialize>(text: &str) -> Result<Value, String> {
    Value::try_from(T::from_str(text, false)?).map_err(|error| error.to_string())
}

/// Names of all values.
pub fn choices<T: ValueEnum>() -> Vec<String> {
    let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    names.map(|value| value.get_name().to_owned()).collect()
}

/// Reads percentage points as a fraction.
pub fn from_points(text: &str) -> Result<Value, String> {
    points(text).map(|points| Value::Float(points / 100.0))
}

/// Reads percentage points, 0 to 100.
pub fn points(text: &str) -> Result<f64, String> {
    let points: f64 = text.parse().map_err(|_| "must be points such as 3".to_owned())?;
    if (0.0..=100.0).contains(&points) { Ok(points) } else { Err("must be from 0 to 100 points".to_owned()) }
}
