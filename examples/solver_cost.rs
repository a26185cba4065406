//! Time to prune single layers of given sizes, with inputs whose spectrum falls as 1/i.
//!
//! `cargo run --release --example solver_cost -- alps 20 768x3072 3072x768`: solver, compression, then rows × columns of
//! weights. Without sizes, the largest layers of ResNet-50, ViT-B and ConvNeXt-B.

use std::io::Write as _;
use std::time::Instant;

use margay::calibrate::Hessian;
use margay::pipeline::peak_rss_bytes;
use margay::prune::{LayerProblem, find, relative_error};
use margay::recipe::PruneSpec;
use margay::torch::{seed_everything, set_threads};
use margay_core::Pattern;
use tch::{Device, Kind, Tensor};

/// Rows × columns, how often a network has them, and which.
const SIZES: [(&str, usize, &str); 8] = [
    ("512x4608", 3, "ResNet-50, 3×3 of the last stage"),
    ("2304x768", 12, "ViT-B, queries, keys and values"),
    ("768x768", 12, "ViT-B, projection"),
    ("3072x768", 12, "ViT-B, first of the MLP"),
    ("768x3072", 12, "ViT-B, second of the MLP"),
    ("2048x512", 27, "ConvNeXt-B, first of stage 3's MLPs"),
    ("512x2048", 27, "ConvNeXt-B, second of stage 3's MLPs"),
    ("1024x4096", 3, "ConvNeXt-B, second of stage 4's MLPs"),
];
/// As in a recipe's default.
const DAMPING: f64 = 0.1;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let solver = args.first().map_or("alps", String::as_str);
    let compression: f64 = args.get(1).map_or("20", String::as_str).parse()?;
    let own = args.iter().skip(2).map(|size| (size.as_str(), 1, "")).collect::<Vec<_>>();
    set_threads(0);
    seed_everything(0);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| layer | of | Hessian, s | {solver} to {compression}x, s | lost energy | times | together, s |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for &(size, times, what) in if own.is_empty() { &SIZES[..] } else { &own } {
        let (rows, columns) = size.split_once('x').ok_or("a size is ROWSxCOLUMNS")?;
        let (rows, columns): (i64, i64) = (rows.parse()?, columns.parse()?);
        let inputs = correlated(columns)?;
        let started = Instant::now();
        let mut hessian = Hessian::new(columns as usize, Device::Cpu)?;
        hessian.update(&inputs)?;
        let counted = started.elapsed().as_secs_f64();
        let weight = Tensor::f_randn([rows, columns], (Kind::Float, Device::Cpu))?;
        let keep = ((rows * columns) as f64 / compression).round() as usize;
        let pattern = Pattern::Unstructured;
        let problem = LayerProblem {
            weight: &weight,
            hessian: &hessian,
            keep,
            pattern,
            damping: DAMPING,
            spec: &PruneSpec::default(),
        };
        let started = Instant::now();
        let solution = find(solver).ok_or("no such solver")?.solve(&problem)?;
        let solved = started.elapsed().as_secs_f64();
        let lost = 100.0 * relative_error(&weight, &solution.weight, &hessian)?;
        let together = times as f64 * (counted + solved);
        writeln!(
            out,
            "| {size} | {what} | {counted:.1} | {solved:.1} | {lost:.0} % | {times} | {together:.0} |"
        )?;
    }
    let peak = peak_rss_bytes().unwrap_or(0) as f64 / f64::from(1 << 30);
    writeln!(out, "\nLargest resident set {peak:.2} GiB.")?;
    Ok(())
}

/// Four samples for every column, of which principal component `i` has power `1 / i`.
fn correlated(columns: i64) -> Result<Tensor, tch::TchError> {
    let options = (Kind::Float, Device::Cpu);
    let power = Tensor::f_arange_start(1, columns + 1, options)?.f_rsqrt()?;
    let mixing = Tensor::f_randn([columns, columns], options)?.f_div_scalar((columns as f64).sqrt())?;
    Tensor::f_randn([4 * columns, columns], options)?.f_mul(&power)?.f_matmul(&mixing)
}
