//! Between maps, tokens and vectors.

use crate::layout::{Layout, Tensor};
use crate::parallel::PlaneWriter;

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
        let (x, y) = (input.as_slice(), PlaneWriter::new(output));
        crate::parallel::run(parts, &|part| {
            for plane in crate::parallel::share(self.features, part, parts) {
                // SAFETY: each plane belongs to one part.
                let tokens = &mut unsafe { y.plane(plane) }[..count];
                tokens.copy_from_slice(&self.table[plane * count..][..count]);
                let rows = tokens[self.prefix..].chunks_exact_mut(width.max(1));
                for (row, tokens) in rows.enumerate() {
                    let patches = &x[from.row(plane * height + row)..][..width];
                    tokens.iter_mut().zip(patches).for_each(|(token, patch)| *token += patch);
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
    let values = input.as_slice()[origin + index..].iter().step_by(plane.max(1));
    output.as_mut_slice().iter_mut().zip(values).take(channels).for_each(|(y, x)| *y = *x);
}

/// Two vectors, one behind the other.
///
/// # Panics
/// If the output is not as long as both.
pub fn concat(a: &Tensor, b: &Tensor, output: &mut Tensor) {
    let [first, second] = [a, b].map(|tensor| tensor.layout().values());
    assert_eq!(output.layout().values(), first + second, "vectors side by side");
    let y = &mut output.as_mut_slice()[..first + second];
    y[..first].copy_from_slice(&a.as_slice()[..first]);
    y[first..].copy_from_slice(&b.as_slice()[..second]);
}
