use std::collections::{BTreeMap, BTreeSet};

use margay_core::nearest_name;
use toml::{Table, Value};

use super::axes::{ALL, AXES, METHOD, NONE, flatten};
use super::facts::check_curve;
use super::run::Run;
use super::{Experiment, ExperimentError};
use crate::options::merge;
use crate::recipe::parse_compression;

impl Experiment {
    /// Parts of recipes by axis, in the order in which they are put together.
    fn parts(&self) -> [(&'static str, &BTreeMap<String, Table>); 3] {
        [("checkpoint", &self.checkpoints), ("task", &self.tasks), (METHOD, &self.methods)]
    }

    /// Every run once, sweep by sweep. `adapters` is what `adapter = "all"` stands for.
    pub fn runs(&self, adapters: &[&str]) -> Result<Vec<Run>, ExperimentError> {
        let named = self.sweeps.iter().filter(|axes| axes.contains_key(METHOD)).count();
        if ![0, self.sweeps.len()].contains(&named) {
            return Err(ExperimentError::Methods { named, sweeps: self.sweeps.len() });
        }
        let mut seen = BTreeSet::new();
        let mut runs = Vec::new();
        for (index, axes) in self.sweeps.iter().enumerate() {
            let sweep = Sweep { experiment: self, axes, number: index + 1, adapters };
            for run in sweep.runs()? {
                if seen.insert(run.key.clone()) {
                    runs.push(run);
                }
            }
        }
        if let Some(axis) = &self.about.curve {
            check_curve(axis, &runs)?;
        }
        Ok(runs)
    }
}

/// Runs of a sweep: more take years.
const MAX_RUNS: usize = 10_000;

/// One `[[sweep]]` on its way to runs.
struct Sweep<'a> {
    experiment: &'a Experiment,
    axes: &'a Table,
    number: usize,
    adapters: &'a [&'a str],
}

/// Values of some axes: one point of a grid.
type Point = Vec<(String, Value)>;

impl Sweep<'_> {
    fn runs(&self) -> Result<Vec<Run>, ExperimentError> {
        let mut axes = Vec::new();
        flatten("", self.axes, &mut axes);
        axes.sort_by_key(|(name, _)| AXES.iter().position(|(axis, _)| axis == name).unwrap_or(AXES.len()));
        let mut points: Vec<Point> = vec![Vec::new()];
        for (axis, values) in axes {
            let values = self.values(&axis, values)?;
            let with = |point: &Point, value: &Value| {
                point.iter().cloned().chain([(axis.clone(), value.clone())]).collect::<Point>()
            };
            let count = points.len().saturating_mul(values.len());
            if count > MAX_RUNS {
                return Err(ExperimentError::TooMany { sweep: self.number, count, limit: MAX_RUNS });
            }
            points = points.iter().flat_map(|p| values.iter().map(move |v| with(p, v))).collect();
        }
        points.iter().map(|point| self.run(point)).collect()
    }

    /// The values of an axis, checked as far as names go.
    fn values(&self, axis: &str, value: Value) -> Result<Vec<Value>, ExperimentError> {
        if !axis.contains('.') && !AXES.iter().any(|(name, _)| *name == axis) {
            let nearest = nearest_name(axis, AXES.iter().map(|(name, _)| *name));
            return Err(ExperimentError::Axis { sweep: self.number, axis: axis.to_owned(), nearest });
        }
        let all = |names: Vec<&str>| names.into_iter().map(Value::from).collect();
        let values = match (axis, value.as_str()) {
            ("adapter", Some(ALL)) => all(self.adapters.to_vec()),
            (_, Some(ALL)) => match self.experiment.parts().into_iter().find(|(of, _)| *of == axis) {
                Some((_, parts)) => all(parts.keys().map(String::as_str).collect()),
                None => vec![value],
            },
            _ => match value {
                Value::Array(values) => values,
                value => vec![value],
            },
        };
        match values.as_slice() {
            [] => Err(self.wrong(axis, &Value::Array(Vec::new()), "there must be at least one value")),
            _ => Ok(values),
        }
    }

    fn run(&self, point: &Point) -> Result<Run, ExperimentError> {
        let mut recipe = self.experiment.recipe.clone();
        let mut names = [None; 3];
        for (name, (axis, parts)) in names.iter_mut().zip(self.experiment.parts()) {
            let Some((_, value)) = point.iter().find(|(given, _)| given == axis) else { continue };
            let (found, part) = self.part(axis, value, parts)?;
            *name = Some(found);
            merge(&mut recipe, part);
        }
        for (axis, value) in point {
            self.set(&mut recipe, axis, value)?;
        }
        let recipe =
            recipe.try_into().map_err(|source| ExperimentError::Recipe { sweep: self.number, source })?;
        Run::new(names, &recipe, note(point))
    }

    /// The part of a recipe with this name.
    fn part<'p>(
        &self,
        axis: &'static str,
        value: &Value,
        parts: &'p BTreeMap<String, Table>,
    ) -> Result<(&'p str, &'p Table), ExperimentError> {
        let Some(name) = value.as_str() else {
            return Err(self.wrong(axis, value, &format!("must be the name of a {axis}")));
        };
        let found = parts.get_key_value(name).map(|(name, part)| (name.as_str(), part));
        found.ok_or_else(|| ExperimentError::Name {
            sweep: self.number,
            axis,
            name: name.to_owned(),
            nearest: nearest_name(name, parts.keys().map(String::as_str)),
        })
    }

    fn set(&self, recipe: &mut Table, axis: &str, value: &Value) -> Result<(), ExperimentError> {
        let key = AXES.iter().find(|(name, _)| *name == axis).map_or(axis, |(_, key)| key);
        let value = match axis {
            "checkpoint" | "task" | METHOD => return Ok(()),
            "adapter" if value.as_str() == Some(NONE) => return self.put(recipe, "recovery.schedule", value),
            "compression" => self.sparsity(value)?,
            _ => value.clone(),
        };
        if ["adapt.r", "adapt.d"].contains(&key) {
            // A rank or density of a sweep is meant instead of the common budget.
            if let Some(Value::Table(adapt)) = recipe.get_mut("adapt") {
                adapt.remove("budget");
            }
        }
        self.put(recipe, key, &value)
    }

    fn sparsity(&self, value: &Value) -> Result<Value, ExperimentError> {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let sparsity = parse_compression(&text)
            .map_err(|_| self.wrong("compression", value, "must be a factor such as \"20x\""))?;
        Ok(Value::Float(sparsity.fraction()))
    }

    /// Sets the value at a dotted key.
    fn put(&self, table: &mut Table, key: &str, value: &Value) -> Result<(), ExperimentError> {
        let Some((section, rest)) = key.split_once('.') else {
            table.insert(key.to_owned(), value.clone());
            return Ok(());
        };
        match table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => self.put(inner, rest, value),
            other => Err(self.wrong(section, other, "must be a section of the recipe")),
        }
    }

    fn wrong(&self, axis: &str, value: &Value, expected: &str) -> ExperimentError {
        ExperimentError::Value {
            sweep: self.number,
            axis: axis.to_owned(),
            value: value.to_string(),
            expected: expected.to_owned(),
        }
    }
}

/// Axes that the title of a run does not name anyway, with their values.
fn note(point: &Point) -> String {
    const TOLD: [&str; 6] = ["seed", "checkpoint", "task", "shots", "compression", "adapter"];
    let others = point.iter().filter(|(axis, _)| !TOLD.contains(&axis.as_str()));
    others.fold(String::new(), |text, (axis, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{text} {axis} {value}")
    })
}

#[cfg(test)]
mod tests;
