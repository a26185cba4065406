//! Position embeddings for another image size.

use margay_core::{Graph, Op, Params, Shape};
use ndarray::{Array2, ArrayD, Axis, concatenate, s};

use super::ModelError;

/// Height and width of the images whose positions a network has learned, if it has learned any.
pub fn native_size(graph: &Graph) -> Option<[usize; 2]> {
    let learned = graph.nodes().iter().any(|node| matches!(node.op, Op::Embed(_)));
    match graph.input {
        Shape::Map { height, width, .. } if learned => Some([height, width]),
        _ => None,
    }
}

/// The graph for images of another size; learned positions are resampled as timm does (bicubic,
/// antialiased), those of prefix tokens stay.
pub fn resize(graph: &Graph, params: &mut Params, image: [usize; 2]) -> Result<Graph, ModelError> {
    let resized = graph.clone().with_image_size(image)?;
    for (before, after) in graph.nodes().iter().zip(resized.nodes()) {
        let (Op::Embed(old), Op::Embed(new)) = (&before.op, &after.op) else { continue };
        let name = format!("{}.position", before.name);
        if old.grid != new.grid
            && let Some(table) = params.get_mut(&name)
        {
            *table = resampled(table, old.positioned, old.grid, new.grid);
        }
    }
    Ok(resized)
}

fn resampled(table: &ArrayD<f32>, kept: usize, from: [usize; 2], to: [usize; 2]) -> ArrayD<f32> {
    let features = table.shape().last().copied().unwrap_or(0);
    let table = table.view().into_shape_with_order((table.len() / features.max(1), features));
    let Ok(table) = table else { unreachable!("a table of positions has two axes") };
    let patches = table.slice(s![kept.., ..]).to_owned();
    // Rows of patches are mixed by one matrix, their columns by another.
    let [down, across] = [0, 1].map(|axis| weights(from[axis], to[axis]));
    let mixed = Array2::from_shape_fn((to[0] * to[1], from[0] * from[1]), |(new, old)| {
        down[[new / to[1], old / from[1]]] * across[[new % to[1], old % from[1]]]
    });
    let patches = mixed.dot(&patches.mapv(f64::from)).mapv(|v| v as f32);
    let prefix = table.slice(s![..kept, ..]);
    match concatenate(Axis(0), &[prefix, patches.view()]) {
        Ok(joined) => joined.into_dyn(),
        Err(_) => unreachable!("both have one width"),
    }
}

/// Bicubic weights `[to, from]` of an antialiased resampling (a = −0.5, as in Pillow and PyTorch).
fn weights(from: usize, to: usize) -> Array2<f64> {
    let scale = from as f64 / to as f64;
    let width = scale.max(1.0);
    let mut weights = Array2::from_shape_fn((to, from), |(new, old)| {
        let centre = (new as f64 + 0.5) * scale;
        cubic((old as f64 + 0.5 - centre) / width)
    });
    for mut row in weights.rows_mut() {
        let sum = row.sum();
        row.mapv_inplace(|w| w / sum);
    }
    weights
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_constants_and_the_same_size() {
        for (from, to) in [(8, 14), (14, 8), (7, 7), (16, 37)] {
            let weights = weights(from, to);
            assert!(weights.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-12));
        }
        assert_eq!(weights(5, 5), Array2::<f64>::eye(5));
    }

    #[test]
    fn positions_equal_those_of_pytorch() {
        // torch.nn.functional.interpolate(arange(9).view(1, 1, 3, 3), (2, 4), mode="bicubic", antialias=True)
        let expected = PYTORCH;
        let table = ArrayD::from_shape_fn(vec![10, 1], |i| i[0] as f32 - 1.0);
        let new = resampled(&table, 1, [3, 3], [2, 4]);
        assert_eq!(new[[0, 0]], -1.0);
        let patches: Vec<f32> = new.iter().skip(1).copied().collect();
        assert!(patches.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{patches:?}");
    }

    const PYTORCH: [f32; 8] =
        [0.877_134_8, 1.485_968_6, 2.372_778_7, 2.981_612_4, 5.018_387_3, 5.627_221, 6.514_031, 7.122_864_7];
}
