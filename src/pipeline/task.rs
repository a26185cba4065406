use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use margay_core::{Graph, Params, Preprocess, SparseModel};
use margay_runtime::Preprocessor;
use tch::{Device, Tensor};

use super::PipelineError;
use super::general::General;
use super::holdout::{Shots, fold_of};
use super::preprocess::{check_constants, prepared};
use super::times::Times;
use crate::checkpoint::{Checkpoint, Dtype, Pretrained};
use crate::data::{Dataset, FewShot, Loaded, load};
use crate::distill::{Examples, Groups};
use crate::head;
use crate::labels::names::clean;
use crate::labels::{HeadPlan, Label, LabelError, check_count, from_names, plan_head, read_labels};
use crate::models::NameMap;
use crate::names;
use crate::preprocess::{Origin, Resolved};
use crate::progress::Progress;
use crate::recipe::{ClassSpec, Recipe};
use crate::record::{BadPhoto, Choice, NotedPhoto};
use crate::torch::{TorchModel, keep_freed_memory, parse_device, seed_everything, set_threads};

/// Everything a run starts from: the network, the task's images and how they are read.
pub struct Task {
    /// Where torch computes.
    pub device: Device,
    /// CPU threads.
    pub threads: usize,
    /// Whether every class counts the same.
    pub balance: bool,
    /// The user's photos.
    pub dataset: Dataset,
    /// The pretrained network with its own head.
    pub pretrained: Rc<Pretrained>,
    /// Where the task's head comes from.
    pub head: HeadPlan,
    /// How photos become inputs.
    pub preprocess: Preprocess,
    /// Shots without the held-out fold.
    pub calibration: Examples,
    /// Shots held out for choices; may be empty.
    pub heldout: Examples,
    /// Photos of anything, if there are any.
    pub general: Option<Rc<General>>,
    /// Photos of the user's without labels `[n, 3, h, w]`, on which the dense network is imitated.
    pub unlabelled: Option<Tensor>,
    /// What was tried on the shots.
    pub choices: Vec<Choice>,
    /// Photos that could not be read so far.
    pub bad: Vec<BadPhoto>,
    /// Photos that are truncated or damaged and used so far.
    pub noted: Vec<NotedPhoto>,
    times: Rc<OnceCell<Times>>,
}

impl Task {
    /// Reads checkpoint, labels and shots.
    pub fn prepare(recipe: &Recipe, progress: &mut dyn Progress) -> Result<Self, PipelineError> {
        let workplace = Workplace::new(recipe)?;
        let dataset = Dataset::scan(&recipe.data, recipe.seed, &recipe.classes)?;
        dataset.tell(progress);
        let checkpoint =
            opened(&recipe.model, recipe.labels.as_deref(), recipe.input.head.as_deref(), progress)?;
        let Resolved { spec: preprocess, origin } =
            prepared(&recipe.input, Some(&checkpoint), &dataset.train, progress)?;
        let pretrained = checkpoint.into_model(preprocess.size)?;
        let mut task = Self::assemble(recipe, workplace, dataset, pretrained, preprocess, progress)?;
        if origin == Origin::Assumed {
            task.check_constants(progress)?;
        }
        Ok(task)
    }

    /// Reads shots for a model file, which says itself how photos are prepared.
    pub fn of_model(
        recipe: &Recipe,
        model: &SparseModel,
        progress: &mut dyn Progress,
    ) -> Result<Self, PipelineError> {
        let workplace = Workplace::new(recipe)?;
        let dataset = Dataset::scan(&recipe.data, recipe.seed, &recipe.classes)?;
        dataset.tell(progress);
        let pretrained = Pretrained {
            graph: model.graph.clone(),
            params: model.to_params(),
            names: NameMap::identity(),
            library: "margay",
            labels: Some(model.labels.clone()),
            sha256: model.fingerprint()?,
            dtype: Dtype::F32,
        };
        Self::assemble(recipe, workplace, dataset, pretrained, model.preprocess.clone(), progress)
    }

    fn assemble(
        recipe: &Recipe,
        Workplace { device, threads }: Workplace,
        dataset: Dataset,
        pretrained: Pretrained,
        preprocess: Preprocess,
        progress: &mut dyn Progress,
    ) -> Result<Self, PipelineError> {
        let head = head_plan(recipe.labels.as_deref(), &pretrained, &dataset, &recipe.classes, progress)?;
        let shots = FewShot::draw(&dataset, recipe.shots.per_class, recipe.shots.holdout, recipe.seed)?;
        shots.tell(progress);
        let preprocessor = Preprocessor::new(&preprocess);
        let calibration = load(&shots.calibration, &preprocessor, progress)?;
        let heldout = load(&shots.heldout, &preprocessor, progress)?;
        calibration.check_classes(&shots.calibration, &dataset.classes)?;
        let more = recipe.unlabelled.as_ref().map(|folder| {
            let photos = dataset.unlabelled(folder, recipe.shots.unlabelled, recipe.seed, progress)?;
            load(&photos, &preprocessor, progress)
        });
        let more = more.transpose()?;
        let skipped = more.iter().flat_map(|loaded| &loaded.bad);
        let unreadable = shots.bad.iter().chain(&calibration.bad).chain(&heldout.bad).chain(skipped);
        let bad = unreadable.map(|(path, error)| bad_photo(&dataset, path, error)).collect();
        let used = [&calibration, &heldout].into_iter().chain(&more).flat_map(|loaded| &loaded.noted);
        let noted = used.map(|(path, note)| noted_photo(&dataset, path, *note)).collect();
        let more = more.map(|loaded| examples(&loaded, device)).transpose()?;
        let classes = recipe.shots.balance.then_some(dataset.classes.len());
        let mut task = Self {
            device,
            threads,
            pretrained: Rc::new(pretrained),
            head,
            preprocess,
            calibration: examples(&calibration, device)?.balanced(classes)?,
            heldout: examples(&heldout, device)?.balanced(classes)?,
            general: None,
            unlabelled: more.map(|more| more.images),
            balance: recipe.shots.balance,
            choices: Vec::new(),
            bad,
            noted,
            dataset,
            times: Rc::default(),
        };
        task.hold_out_groups(progress)?;
        task.general = General::read(&task, recipe, progress)?.map(Rc::new);
        if let Some(general) = &task.general {
            task.bad.extend(general.bad.iter().map(|(path, error)| bad_photo(&task.dataset, path, error)));
            task.noted
                .extend(general.noted.iter().map(|(path, note)| noted_photo(&task.dataset, path, *note)));
        }
        Ok(task)
    }

    /// Holds out other shots where near-duplicates of those that are held out are among the rest.
    fn hold_out_groups(&mut self, progress: &mut dyn Progress) -> Result<(), PipelineError> {
        if self.heldout.is_empty() {
            return Ok(());
        }
        let (shots, groups) = (self.all_shots()?, self.groups()?);
        let classes = class_numbers(&shots)?;
        let (stay, out) = groups.of.split_at(self.calibration.len());
        if !out.iter().any(|group| stay.contains(group)) && groups.alike.is_empty() {
            return Ok(());
        }
        let mut wanted: BTreeMap<usize, usize> =
            (0..self.dataset.classes.len()).map(|class| (class, 0)).collect();
        classes[self.calibration.len()..].iter().for_each(|class| *wanted.entry(*class).or_default() += 1);
        let drawn = Shots { classes: &classes, groups: &groups.of, wanted: &wanted };
        let (held, torn) = drawn.held_out();
        let split = self.split(&shots, |at| held[at])?;
        (self.calibration, self.heldout) = (split.calibration, split.heldout);
        for class in groups.alike.into_iter().chain(torn).filter(|class| wanted[class] > 0) {
            let class = &self.dataset.classes[class];
            progress.warn(&format!(
                "the shots of class `{class}` are nearly the same photo: what is held out of them flatters; shots of more \
                 bursts or cameras help"
            ));
        }
        Ok(())
    }

    /// Which of all the shots are near-duplicates of each other.
    fn groups(&self) -> Result<Groups, PipelineError> {
        Ok(Groups::of(&self.all_shots()?)?)
    }

    /// Tries other constants than the assumed ones on the shots.
    fn check_constants(&mut self, progress: &mut dyn Progress) -> Result<(), PipelineError> {
        let (shots, classes) = (self.all_shots()?, self.dataset.classes.len());
        let tried =
            check_constants(&self.pretrained, &self.head, &shots, classes, &self.preprocess, progress)?;
        self.choices.extend(tried);
        Ok(())
    }

    /// Every shot, in the order calibration, held out.
    pub fn all_shots(&self) -> Result<Examples, PipelineError> {
        let join = |a: &Tensor, b: &Tensor| Tensor::f_cat(&[a, b], 0).map_err(crate::torch::TorchError::from);
        let images = join(&self.calibration.images, &self.heldout.images)?;
        let classes = join(&self.calibration.classes, &self.heldout.classes)?;
        let balance = self.balance.then_some(self.dataset.classes.len());
        Ok(Examples::new(images, classes).balanced(balance)?)
    }

    /// The task with its shots split otherwise, once for each of `count` folds: together they hold out every shot once, but
    /// for the only one of a class, near-duplicates in the same fold. Folds that would hold nothing out are left out.
    pub fn folds(&self, count: usize) -> Result<Vec<Self>, PipelineError> {
        let shots = self.all_shots()?;
        let fold_of = fold_of(&class_numbers(&shots)?, &self.groups()?.of, count);
        let tasks = (0..count).filter(|fold| fold_of.contains(&Some(*fold)));
        tasks.map(|fold| self.split(&shots, |at| fold_of[at] == Some(fold))).collect()
    }

    /// The task with the shots held out that `held` says.
    fn split(&self, shots: &Examples, held: impl Fn(usize) -> bool) -> Result<Self, PipelineError> {
        let (out, stay): (Vec<i64>, Vec<i64>) = (0..shots.len() as i64).partition(|at| held(*at as usize));
        let classes = self.balance.then_some(self.dataset.classes.len());
        Ok(Self {
            device: self.device,
            threads: self.threads,
            balance: self.balance,
            dataset: self.dataset.clone(),
            pretrained: Rc::clone(&self.pretrained),
            head: self.head.clone(),
            preprocess: self.preprocess.clone(),
            calibration: shots.select(&stay)?.balanced(classes)?,
            heldout: shots.select(&out)?.balanced(classes)?,
            general: self.general.clone(),
            unlabelled: self.unlabelled.as_ref().map(Tensor::shallow_clone),
            choices: Vec::new(),
            bad: Vec::new(),
            noted: Vec::new(),
            times: Rc::clone(&self.times),
        })
    }

    /// The recipe with what it leaves to the machine and to the task: sums are rounded otherwise on another device or with
    /// another number of threads, and a mask may tip over.
    pub fn ran(&self, recipe: &Recipe) -> Recipe {
        Recipe {
            device: self.device_name(),
            threads: self.threads,
            recovery: recipe.recovery.with_head(matches!(self.head, HeadPlan::Probe(_))),
            ..recipe.clone()
        }
    }

    /// The device, as a recipe names it.
    pub fn device_name(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        }
    }

    /// What the network with the task's head computes.
    pub fn graph(&self) -> Graph {
        with_head(self.pretrained.graph.clone(), &self.head, self.dataset.classes.len())
    }

    /// The dense network with the task's head; a probe is fitted on `examples`.
    pub fn dense(&self, examples: &Examples) -> Result<TorchModel, PipelineError> {
        let (mut graph, mut params) = (self.pretrained.graph.clone(), self.pretrained.params.clone());
        set_head(&mut graph, &mut params, &self.head, examples, self.dataset.classes.len())?;
        Ok(TorchModel::new(graph, &params, self.device)?)
    }

    /// What layers take on this machine; measured once, so that all targets of a run go by the same times.
    pub fn times(
        &self,
        recipe: &Recipe,
        dense: &TorchModel,
        progress: &mut dyn Progress,
    ) -> Result<&Times, PipelineError> {
        if let Some(times) = self.times.get() {
            return Ok(times);
        }
        progress.start("time layers", 0);
        let times = Times::measure(self, recipe, dense)?;
        progress.finish();
        Ok(self.times.get_or_init(|| times))
    }

    /// What layers take on this machine, if that was measured.
    pub fn timed(&self) -> Option<&Times> {
        self.times.get()
    }

    /// How the head came about, for the record.
    pub fn head_kind(&self) -> &'static str {
        self.head.kind()
    }

    /// Reads val images: called once, after every choice.
    pub fn load_val(&mut self, progress: &mut dyn Progress) -> Result<Loaded, PipelineError> {
        let loaded = load(&self.dataset.val, &Preprocessor::new(&self.preprocess), progress)?;
        self.bad.extend(loaded.bad.iter().map(|(path, error)| bad_photo(&self.dataset, path, error)));
        self.noted.extend(loaded.noted.iter().map(|(path, note)| noted_photo(&self.dataset, path, *note)));
        if loaded.is_empty() {
            return Err(PipelineError::NoImages("val"));
        }
        Ok(loaded)
    }
}

/// Where a run computes.
struct Workplace {
    device: Device,
    threads: usize,
}

impl Workplace {
    /// Sets device, threads, seed and memory of the process.
    fn new(recipe: &Recipe) -> Result<Self, PipelineError> {
        keep_freed_memory();
        let device = parse_device(&recipe.device)?;
        let threads = set_threads(recipe.threads);
        share_threads(threads);
        seed_everything(recipe.seed);
        Ok(Self { device, threads })
    }
}

/// Gives photo decoding as many threads as libtorch; a pool that is there already stays.
fn share_threads(threads: usize) {
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
}

/// The network with a head of this kind.
pub(super) fn with_head(mut graph: Graph, head: &HeadPlan, classes: usize) -> Graph {
    let groups: Vec<usize> = head.rows().iter().map(Vec::len).collect();
    graph.set_classes(if groups.is_empty() { classes } else { groups.iter().sum() });
    graph.join_outputs(&groups);
    graph
}

/// Gives a network the head that was planned; a probe is fitted on `examples`.
pub(super) fn set_head(
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
pub(super) fn opened(
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
pub(super) fn head_plan(
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

/// Class of each image.
fn class_numbers(examples: &Examples) -> Result<Vec<usize>, PipelineError> {
    let classes = Vec::<i64>::try_from(&examples.classes).map_err(crate::torch::TorchError::from)?;
    Ok(classes.into_iter().map(|class| class as usize).collect())
}

/// Labels of a file, one per output, else those stored in the checkpoint.
fn known_labels(labels: Option<&Path>, pretrained: &Pretrained) -> Result<Option<Vec<Label>>, PipelineError> {
    let Some(path) = labels else { return Ok(pretrained.labels.clone().map(from_names)) };
    let labels = read_labels(path)?;
    check_count(path, &labels, pretrained.graph.classes())?;
    Ok(Some(labels))
}

/// Decoded images on the training device.
pub fn examples(loaded: &Loaded, device: Device) -> Result<Examples, PipelineError> {
    let shape: Vec<i64> = loaded.images.shape().iter().map(|n| *n as i64).collect();
    let flat = loaded.images.as_slice().unwrap_or_default();
    let classes: Vec<i64> = loaded.classes.iter().map(|c| *c as i64).collect();
    let tensors = || -> Result<Examples, tch::TchError> {
        let images = Tensor::f_from_slice(flat)?.f_reshape(shape.as_slice())?.f_to_device(device)?;
        Ok(Examples::new(images, Tensor::f_from_slice(&classes)?.f_to_device(device)?))
    };
    Ok(tensors().map_err(crate::torch::TorchError::from)?)
}

pub(super) fn bad_photo(
    dataset: &Dataset,
    path: &std::path::Path,
    error: &margay_runtime::PhotoError,
) -> BadPhoto {
    BadPhoto { path: relative(dataset, path), reason: error.to_string() }
}

fn noted_photo(dataset: &Dataset, path: &std::path::Path, note: margay_runtime::Note) -> NotedPhoto {
    NotedPhoto { path: relative(dataset, path), note: note.to_string() }
}

/// Path inside the dataset, with forward slashes.
pub fn relative(dataset: &Dataset, path: &std::path::Path) -> String {
    names::path(path.strip_prefix(&dataset.root).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::write_safetensors;
    use crate::models::{Design, build};
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
