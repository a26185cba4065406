//! Between maps, tokens and vectors.

use half::bf16;

use crate::layout::{Layout, Tensor};
use crate::parallel::Writer;
use crate::precision::{Element, Precision};

/// Tokens of a map, row by row, behind learned ones, plus an embedding of each place.
#[derive(Clone, Debug)]
pub struct Embedding {
    features: usize,
    prefix: usize,
    grid: [usize; 2],
    /// What every token starts from, `[features][prefix + height · width]`.
    table: Vec<f32>,
}

impl Embedding {
    /// Plans `tokens = table + [0; map]` from the row-major `table` `[prefix + height · width, features]`:
    /// what is added to each place, for the first `prefix` the tokens themselves.
    ///
    /// # Panics
    /// If the table has another length.
    pub fn new(prefix: usize, [features, height, width]: [usize; 3], table: &[f32]) -> Self {
        let count = prefix + height * width;
        assert_eq!(table.len(), count * features, "embedding table");
        let planar = (0..features).flat_map(|f| (0..count).map(move |token| token * features + f));
        let table = planar.map(|place| table[place]).collect();
        Self { features, prefix, grid: [height, width], table }
    }

    /// Computes one image on `parts` threads of the current rayon pool.
    ///
    /// # Panics
    /// If a tensor has other extents than planned.
    pub fn run(&self, input: &Tensor, output: &mut Tensor, parts: usize) {
        let (from, [height, width]) = (*input.layout(), self.grid);
        let count = self.prefix + height * width;
        assert_eq!(from.dims(), [self.features, height, width], "map of patches");
        assert_eq!(output.layout().dims(), [self.features, 1, count], "tokens");
        match from.precision {
            Precision::F32 => self.embed::<f32>(input, output, parts),
            Precision::Bf16 => self.embed::<bf16>(input, output, parts),
        }
    }

    fn embed<E: Element>(&self, input: &Tensor, output: &mut Tensor, parts: usize) {
        let (from, [height, width]) = (*input.layout(), self.grid);
        let count = self.prefix + height * width;
        let (x, y) = (input.as_slice::<E>(), Writer::new(output));
        crate::parallel::run(parts, &|part| {
            for plane in crate::parallel::share(self.features, part, parts) {
                // SAFETY: each plane belongs to one part.
                let tokens = &mut unsafe { y.plane::<E>(plane) }[..count];
                let (learned, table) = self.table[plane * count..][..count].split_at(self.prefix);
                let (prefix, tokens) = tokens.split_at_mut(self.prefix);
                prefix.iter_mut().zip(learned).for_each(|(token, value)| *token = E::narrow(*value));
                let rows = tokens.chunks_exact_mut(width.max(1)).zip(table.chunks_exact(width.max(1)));
                for (row, (tokens, table)) in rows.enumerate() {
                    let patches = &x[from.row(plane * height + row)..][..width];
                    for ((token, value), patch) in tokens.iter_mut().zip(table).zip(patches) {
                        *token = E::narrow(value + patch.widen());
                    }
                }
            }
        });
    }
}

/// Token `index` as a vector.
///
/// # Panics
/// If there is no such token, or if the output has another number of features.
pub fn token(input: &Tensor, index: usize, output: &mut Tensor) {
    let layout = *input.layout();
    assert!(index < layout.width && layout.height == 1, "token {index}");
    assert_eq!(output.layout().values(), layout.channels, "features of a token");
    let Layout { origin, plane, channels, .. } = layout;
    let y = &mut output.as_mut_slice::<f32>()[..channels];
    let places = (origin + index..).step_by(plane.max(1));
    match input.layout().precision {
        Precision::F32 => gather(input.as_slice::<f32>(), places, y),
        Precision::Bf16 => gather(input.as_slice::<bf16>(), places, y),
    }
}

fn gather<E: Element>(x: &[E], places: impl Iterator<Item = usize>, y: &mut [f32]) {
    y.iter_mut().zip(places).for_each(|(y, place)| *y = x[place].widen());
}

/// `log Σ exp` of each group of values of a vector, summed in f64; `groups` holds their sizes.
///
/// # Panics
/// If the groups do not make up the input, or are not as many as the output has values.
pub fn log_sum_exp(input: &Tensor, groups: &[usize], output: &mut Tensor) {
    assert_eq!(input.layout().values(), groups.iter().sum::<usize>(), "values of all groups");
    assert_eq!(output.layout().values(), groups.len(), "one value per group");
    let (mut rest, y) = (input.as_slice::<f32>(), output.as_mut_slice::<f32>());
    for (y, size) in y.iter_mut().zip(groups) {
        let (group, behind) = rest.split_at(*size);
        rest = behind;
        let highest = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = group.iter().map(|x| f64::from(x - highest).exp()).sum();
        *y = (f64::from(highest) + sum.ln()) as f32;
    }
}

/// Two vectors, one behind the other.
///
/// # Panics
/// If the output is not as long as both.
pub fn concat(a: &Tensor, b: &Tensor, output: &mut Tensor) {
    let [first, second] = [a, b].map(|tensor| tensor.layout().values());
    assert_eq!(output.layout().values(), first + second, "vectors side by side");
    let y = &mut output.as_mut_slice::<f32>()[..first + second];
    y[..first].copy_from_slice(&a.as_slice::<f32>()[..first]);
    y[first..].copy_from_slice(&b.as_slice::<f32>()[..second]);
}
