//! Whether the kernel of each layer was the fastest.

use std::time::Instant;

use margay_core::SparseModel;

use crate::plan::{Arena, Kernel, KernelChoice, Plan, Step};
use crate::profile::{Profile, Rival};
use crate::{RuntimeError, Session, SessionOptions};

/// Timed rounds, after one untimed.
const ROUNDS: usize = 9;

impl Session {
    /// As [`Session::profile`], with the fastest other way to run each layer that has zeros: dense, and sparse with
    /// strips of every width, timed in its place in the network and in turns with the way in use.
    ///
    /// `model` is the model that the session runs; beside another one there are no rivals.
    pub fn profile_with_rivals(
        &mut self,
        model: &SparseModel,
        images: &[f32],
        runs: usize,
    ) -> Result<Profile, RuntimeError> {
        let mut profile = self.profile(images, runs)?;
        let plans = [KernelChoice::Dense, KernelChoice::Sparse].map(|kernel| {
            let options = SessionOptions { kernel, tune: false, ..self.options.clone() };
            Plan::new(model, self.plan.isa, &options, self.threads)
        });
        let [dense, sparse] = plans;
        let (dense, sparse) = (dense?, sparse?);
        let Some(image) = images.get(..self.plan.image) else { return Ok(profile) };
        if [&dense, &sparse].iter().any(|plan| !self.plan.is_like(plan)) {
            return Ok(profile);
        }
        let (plan, arena, threads) = (&self.plan, &mut self.arenas[0], self.threads);
        let race = || {
            arena.load(plan, image);
            let others = dense.steps.into_iter().zip(sparse.steps);
            for ((step, others), told) in plan.steps.iter().zip(others).zip(&mut profile.steps) {
                told.rival = if step.density.is_some_and(|density| density < 1.0) {
                    fastest(arena, plan, step, ways(others), threads)
                } else {
                    None
                };
                arena.step(plan.isa, step, threads);
            }
        };
        match &self.pool {
            Some(pool) => pool.install(race),
            None => race(),
        }
        Ok(profile)
    }
}

/// Every way to run a layer, from its steps in a dense and in a sparse plan.
fn ways((dense, sparse): (Step, Step)) -> Vec<Kernel> {
    let mut ways = vec![dense.kernel];
    match sparse.kernel {
        Kernel::SparseConv(conv) => {
            let widths = conv.widths().into_iter();
            ways.extend(widths.map(|width| Kernel::SparseConv(conv.clone().with_strip(width))));
        }
        Kernel::BlockConv(conv) => {
            let widths = conv.widths().into_iter();
            ways.extend(widths.map(|width| Kernel::BlockConv(conv.clone().with_strip(width))));
        }
        kernel => ways.push(kernel),
    }
    ways
}

/// The fastest of the `ways` that a step does not go.
fn fastest(
    arena: &mut Arena,
    plan: &Plan,
    step: &Step,
    mut ways: Vec<Kernel>,
    threads: usize,
) -> Option<Rival> {
    ways.retain(|way| (way.name(), way.strip()) != (step.kernel.name(), step.kernel.strip()));
    let mut least = vec![f64::INFINITY; ways.len()];
    let mut chosen = f64::INFINITY;
    let mut time = |kernel: &Kernel| {
        let start = Instant::now();
        arena.call(plan.isa, step, kernel, threads);
        1e3 * start.elapsed().as_secs_f64()
    };
    for round in 0..=ROUNDS {
        let times = [time(&step.kernel)].into_iter().chain(ways.iter().map(&mut time));
        let times: Vec<f64> = times.collect();
        if round > 0 {
            chosen = chosen.min(times[0]);
            least.iter_mut().zip(&times[1..]).for_each(|(least, ms)| *least = least.min(*ms));
        }
    }
    let (ms, way) = least.into_iter().zip(&ways).min_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(Rival::new(way.name(), way.strip(), ms, chosen))
}
