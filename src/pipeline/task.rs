use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use margay_core::{Graph, Preprocess, SparseModel};
use margay_runtime::Preprocessor;
use tch::{Device, Tensor};

use super::PipelineError;
use super::general::{General, Photos};
use super::holdout::{Shots, fold_of};
use super::images::{bad_photo, examples, noted_photo};
use super::opening::{head_plan, opened, set_head, with_head};
use super::preprocess::{check_constants, prepared};
use super::times::Times;
use crate::checkpoint::{Dtype, Pretrained};
use crate::data::{Dataset, FewShot, Loaded, load};
use crate::distill::{Examples, Groups};
use crate::labels::HeadPlan;
use crate::models::NameMap;
use crate::preprocess::{Origin, Resolved};
use crate::progress::Progress;
use crate::recipe::Recipe;
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
    /// What layers take on this machine, once that was measured; all folds share it.
    pub times: Rc<OnceCell<Times>>,
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
        let (photos, dense) =
            (Photos { dataset: &task.dataset, preprocess: &task.preprocess, device }, || {
                task.dense(&task.calibration)
            });
        task.general = General::read(photos, recipe, dense, progress)?.map(Rc::new);
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

/// Class of each image.
fn class_numbers(examples: &Examples) -> Result<Vec<usize>, PipelineError> {
    let classes = Vec::<i64>::try_from(&examples.classes).map_err(crate::torch::TorchError::from)?;
    Ok(classes.into_iter().map(|class| class as usize).collect())
}
