//! Step time and peak memory of ways to finetune a 95 % sparse network at 224².
//!
//! `cargo run --release --example adapter_cost -- resnet50 rosa [batch] [steps] [recompute] [8|4]`: one way per process,
//! so that the largest resident set is its own; `recompute` computes activations twice, `8` and `4` are the bits of the
//! base while adapters train.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Instant;

use margay::adapt::{Problem, adapt, find};
use margay::distill::{Examples, Training, train};
use margay::models::{Design, build};
use margay::pipeline::{peak_rss_bytes, random_params};
use margay::progress::Progress;
use margay::recipe::{AdaptSpec, AdapterSchedule, RecoverySpec};
use margay::torch::{Bits, Norms, TorchModel, seed_everything, set_threads};
use margay_core::Mask;
use tch::{Device, Kind, Tensor};

/// Notes when each step of each stage ended.
#[derive(Default)]
struct Clock(BTreeMap<String, Vec<Instant>>, String);

impl Progress for Clock {
    fn start(&mut self, stage: &str, _total: u64) {
        stage.clone_into(&mut self.1);
        self.0.entry(self.1.clone()).or_default().push(Instant::now());
    }
    fn advance(&mut self, _steps: u64) {
        self.0.entry(self.1.clone()).or_default().push(Instant::now());
    }
    fn status(&mut self, _text: &str) {}
    fn finish(&mut self) {}
    fn note(&mut self, _text: &str) {}
    fn warn(&mut self, _text: &str) {}
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text = |i: usize, default: &str| args.get(i).map_or(default, String::as_str).to_owned();
    let (variant, method) = (text(0, "resnet50"), text(1, "rosa"));
    let (batch, steps): (i64, usize) = (text(2, "32").parse()?, text(3, "4").parse()?);
    let options = args.get(4..).unwrap_or_default();
    let recompute = options.iter().any(|option| option == "recompute");
    let bits = match options.last().map(String::as_str) {
        Some("8") => Some(Bits::Eight),
        Some("4") => Some(Bits::Four),
        _ => None,
    };
    set_threads(0);
    seed_everything(0);
    let design = Design { variant, width: None, depth: None, classes: 12, image: [224, 224] };
    let graph = build(&design)?;
    let mut model = TorchModel::new(graph.clone(), &random_params(&graph, 0), Device::Cpu)?;
    let mut masks = BTreeMap::new();
    for id in graph.prunable() {
        let name = graph.node(id).weight();
        let weight = model.get(&name)?;
        let kept = Mask::from_fn(weight.numel(), |i| i % 20 == 0);
        let dense = margay::torch::mask_to_tensor(&kept, &weight.size(), Device::Cpu)?;
        let sparse = weight.f_mul(&dense)?;
        model.set(&name, &sparse)?;
        masks.insert(name, kept);
    }
    let images = Tensor::f_randn([batch, 3, 224, 224], (Kind::Float, Device::Cpu))?;
    let classes = Tensor::f_randint(12, [batch], (Kind::Int64, Device::Cpu))?;
    let examples = Examples::new(images, classes);
    let batch_size = batch as usize;
    let recovery = RecoverySpec {
        epochs: steps,
        batch: batch_size,
        square_head: 0.0,
        recompute,
        ..RecoverySpec::default()
    };
    let schedule = AdapterSchedule::WarmUp(1);
    let spec = AdaptSpec { budget: Some(0.006), schedule, ..AdaptSpec::default() };
    if let Some(bits) = bits {
        model.pack(&masks, bits)?;
    }
    let mut clock = Clock::default();
    if method == "full" {
        let (norms, stage) = (Norms::Stored, "full");
        let training = Training { spec: &recovery, teacher: None, norms, seed: 0, stage, pace: 1.0 };
        train(&mut model, &masks, &examples, &training, &mut clock)?;
    } else {
        let problem = Problem {
            base: &model,
            masks: &masks,
            teacher: None,
            examples: &examples,
            recovery: &recovery,
            spec: &spec,
            seed: 0,
            pace: 1.0,
        };
        adapt(&problem, find(&method).ok_or("no such adapter")?, &mut clock)?;
    }
    let mut out = std::io::stdout().lock();
    let way = format!("{} {method} {}, batch {batch}", design.variant, options.join(" "));
    for (stage, times) in &clock.0 {
        let mut seconds: Vec<f64> =
            times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).skip(1).collect();
        seconds.sort_by(f64::total_cmp);
        let median = seconds.get(seconds.len() / 2).copied().unwrap_or_default();
        writeln!(out, "{way}, {stage}: {median:.2} s a step")?;
    }
    let peak = peak_rss_bytes().unwrap_or(0) as f64 / f64::from(1 << 30);
    writeln!(out, "{way}: largest resident set {peak:.2} GiB")?;
    Ok(())
}
