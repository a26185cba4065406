//! Checkpoints as they are opened, and heads as they are planned.

use std::path::Path;

use margay_core::{Graph, Params};

use super::PipelineError;
use crate::checkpoint::{Checkpoint, Pretrained};
use crate::data::Dataset;
use crate::distill::Examples;
use crate::head;
use crate::labels::names::clean;
use crate::labels::{HeadPlan, Label, LabelError, check_count, from_names, plan_head, read_labels};
use crate::progress::Progress;
use crate::recipe::ClassSpec;

/// The network with a head of this kind.
pub fn with_head(mut graph: Graph, head: &HeadPlan, classes: usize) -> Graph {
    let groups: Vec<usize> = head.rows().iter().map(Vec::len).collect();
    graph.set_classes(if groups.is_empty() { classes } else { groups.iter().sum() });
    graph.join_outputs(&groups);
    graph
}

/// Gives a network the head that was planned; a probe is fitted on `examples`.
pub fn set_head(
    graph: &mut Graph,
    params: &mut Params,
    plan: &HeadPlan,
    examples: &Examples,
    classes: usize,
) -> Result<(), PipelineError> {
    match plan {
        HeadPlan::Slice(_) => head::slice(graph, params, &plan.rows())?,
        HeadPlan::Probe(_) => head::probe(graph, params, examples, classes)?,
    }
    Ok(())
}

/// Opens a checkpoint; names that the user gives replace those stored in it, with a warning if they differ:
/// a list in another order makes every answer wrong, and nothing else would tell.
pub fn opened(
    model: &Path,
    labels: Option<&Path>,
    head: Option<&str>,
    progress: &mut dyn Progress,
) -> Result<Checkpoint, PipelineError> {
    let mut checkpoint = Checkpoint::open_with(model, head)?;
    for note in checkpoint.notes() {
        if note.warning { progress.warn(&note.text) } else { progress.note(&note.text) }
    }
    if let Some(path) = labels
        && let Some(stored) = checkpoint.forget_labels()
        && let Ok(given) = read_labels(path)
        && let Some(at) = stored.iter().zip(&given).position(|(stored, given)| {
            clean(stored) != given.name && !given.aliases.contains(&clean(stored))
        })
    {
        progress.warn(&format!(
            "class {at} is `{}` in {} but `{}` in the checkpoint: the list that is given counts; leave --labels out to \
             use the checkpoint's own",
            given[at].name,
            path.display(),
            stored[at]
        ));
    }
    Ok(checkpoint)
}

/// Finds the user's classes among a checkpoint's labels: those of a file, else those stored in it.
///
/// # Errors
/// Also if the classes look like cameras, or if a head would be thrown away that seems to be meant.
pub fn head_plan(
    labels: Option<&Path>,
    pretrained: &Pretrained,
    dataset: &Dataset,
    spec: &ClassSpec,
    progress: &mut dyn Progress,
) -> Result<HeadPlan, PipelineError> {
    let labels = known_labels(labels, pretrained)?;
    dataset.check_classes(labels.as_deref().unwrap_or_default())?;
    let Some(labels) = labels else {
        if !spec.map.is_empty() {
            return Err(LabelError::NoNames.into());
        }
        progress.note("the checkpoint has no class names (--labels gives them): a new head is fitted");
        return Ok(HeadPlan::Probe(Vec::new()));
    };
    let plan = plan_head(&dataset.classes, &labels, spec)?;
    match plan.explain(dataset.classes.len()) {
        Some(why) if spec.fit_head => progress.note(&why),
        Some(why) => progress.warn(&why),
        None if spec.fit_head => progress.note("a new head is fitted, as --fit-head says"),
        None => {}
    }
    Ok(plan)
}

/// Labels of a file, one per output, else those stored in the checkpoint.
fn known_labels(labels: Option<&Path>, pretrained: &Pretrained) -> Result<Option<Vec<Label>>, PipelineError> {
    let Some(path) = labels else { return Ok(pretrained.labels.clone().map(from_names)) };
    let labels = read_labels(path)?;
    check_count(path, &labels, pretrained.graph.classes())?;
    Ok(Some(labels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::write_safetensors;
    use crate::models::{Design, NameMap, build};
    use crate::pipeline::random_params;
    use crate::progress::{Recorder, Silent};

    #[test]
    fn a_list_in_another_order_than_the_checkpoints_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let design =
            Design { variant: "resnet18".into(), width: Some(4), depth: None, classes: 2, image: [32, 32] };
        let graph = build(&design).unwrap();
        let (model, list) = (folder.path().join("model.safetensors"), folder.path().join("labels.txt"));
        let (names, own) = (NameMap::identity(), ["lynx".to_owned(), "margay".to_owned()]);
        write_safetensors(&model, &graph, &random_params(&graph, 1), &names, &own, None).unwrap();
        let warnings = |text: &str| {
            fs_err::write(&list, text).unwrap();
            let mut silent = Silent;
            let mut recorder = Recorder::new(&mut silent);
            opened(&model, Some(&list), None, &mut recorder).unwrap();
            recorder.warnings
        };
        assert_eq!(warnings("lynx\nmargay\n"), Vec::<String>::new());
        assert!(warnings("margay\nlynx\n")[0].starts_with("class 0 is `margay` in"));
    }
}
