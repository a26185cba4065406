//! Batches: their order, and how their images are varied.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use super::Examples;
use crate::recipe::RecoverySpec;
use crate::torch::TorchError;

/// Some of the examples, varied: mirrored with probability ½, shifted by up to 1/16 of the side or cut out and
/// enlarged.
pub(super) struct Batch {
    /// Images `[n, c, h, w]`.
    pub images: Tensor,
    /// Classes `[n]`, negative where there is none.
    pub classes: Tensor,
    /// How much each image counts `[n]`; absent: all the same.
    pub weights: Option<Tensor>,
    /// The number of each image's view `[n]`, where every example has a few of its own: the same number is the same image.
    pub numbers: Option<Vec<u64>>,
}

impl Batch {
    /// The examples with these indices.
    pub fn draw(
        examples: &Examples,
        chosen: &[i64],
        spec: &RecoverySpec,
        rng: &mut impl Rng,
    ) -> Result<Self, TorchError> {
        let device = examples.images.device();
        let indices = Tensor::f_from_slice(chosen)?.f_to_device(device)?;
        let window = Window::of(&examples.images, spec.crop)?;
        let (all, of_each) = (examples.len() as u64, spec.fixed_views as u64);
        let mut number = |example: &i64| *example as u64 + all * rng.random_range(0..of_each);
        let numbers: Option<Vec<u64>> = (of_each > 0).then(|| chosen.iter().map(&mut number).collect());
        let views: Vec<View> = match &numbers {
            Some(numbers) => numbers.iter().map(|number| window.numbered(*number)).collect(),
            None => chosen.iter().map(|_| window.draw(rng)).collect(),
        };
        Ok(Self {
            images: window.show(&examples.images.f_index_select(0, &indices)?, &views)?,
            classes: examples.classes.f_index_select(0, &indices)?,
            weights: examples.weights.as_ref().map(|w| w.f_index_select(0, &indices)).transpose()?,
            numbers,
        })
    }
}

/// Each image once more, varied as in training, with a generator of its own.
pub fn varied(images: &Tensor, crop: f64, seed: u64) -> Result<Tensor, TorchError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let window = Window::of(images, crop)?;
    let views: Vec<View> = (0..images.size()[0]).map(|_| window.draw(&mut rng)).collect();
    window.show(images, &views)
}

/// All images `[n, c, h, w]` as they are and shifted into the corners by a sixteenth of their side, the border reflected,
/// each of these mirrored, too.
pub fn corners(images: &Tensor) -> Result<Vec<Tensor>, TorchError> {
    let window = Window::of(images, 1.0)?;
    let Window::Shifted { size, pad } = window else { return Ok(Vec::new()) };
    let mut seen = Vec::new();
    for [top, left] in [[1, 1], [0, 0], [0, 2], [2, 0], [2, 2]] {
        for mirrored in [true, false] {
            let view = || View { corner: [top * pad, left * pad], size, mirrored };
            let views: Vec<View> = (0..images.size()[0]).map(|_| view()).collect();
            seen.push(window.show(images, &views)?);
        }
    }
    Ok(seen)
}

/// How images are cut out.
enum Window {
    /// At full size from a border of `pad` reflected pixels.
    Shifted { size: [i64; 2], pad: i64 },
    /// At least this share of the area, in the image's shape, enlarged to the whole.
    Cropped { size: [i64; 2], least: f64 },
}

/// What is seen of an image, in pixels.
struct View {
    corner: [i64; 2],
    size: [i64; 2],
    mirrored: bool,
}

impl Window {
    fn of(images: &Tensor, least: f64) -> Result<Self, TorchError> {
        let (_, _, height, width) = images.size4()?;
        let size = [height, width];
        if least < 1.0 {
            return Ok(Self::Cropped { size, least });
        }
        Ok(Self::Shifted { size, pad: (height.min(width) / 16).max(1) })
    }

    fn draw(&self, rng: &mut impl Rng) -> View {
        let (size, room) = match self {
            Self::Shifted { size, pad } => (*size, [2 * pad; 2]),
            Self::Cropped { size, least } => {
                let side = rng.random_range(*least..=1.0).sqrt();
                let part = size.map(|whole| ((whole as f64 * side).round() as i64).clamp(1, whole));
                (part, [size[0] - part[0], size[1] - part[1]])
            }
        };
        let corner = room.map(|room| rng.random_range(0..=room));
        View { corner, size, mirrored: rng.random::<bool>() }
    }

    /// The view of this number.
    fn numbered(&self, number: u64) -> View {
        self.draw(&mut ChaCha8Rng::seed_from_u64(number))
    }

    fn show(&self, images: &Tensor, views: &[View]) -> Result<Tensor, TorchError> {
        let images = match self {
            Self::Shifted { pad, .. } => images.f_reflection_pad2d([*pad; 4])?,
            Self::Cropped { .. } => images.shallow_clone(),
        };
        let mut shown = Vec::with_capacity(views.len());
        for (i, View { corner, size, mirrored }) in views.iter().enumerate() {
            let part = images.f_narrow(0, i as i64, 1)?;
            let part = part.f_narrow(2, corner[0], size[0])?.f_narrow(3, corner[1], size[1])?;
            let part = match self {
                Self::Cropped { size, .. } => part.f_upsample_bilinear2d(*size, false, None, None)?,
                Self::Shifted { .. } => part,
            };
            shown.push(if *mirrored { part.f_flip([3])? } else { part });
        }
        Ok(Tensor::f_cat(&shown, 0)?)
    }
}

/// Number of batches that [`shuffled`] makes.
pub(super) fn batch_count(examples: &Examples, size: usize) -> usize {
    let (len, size) = (examples.labelled(), labelled_share(examples, size));
    len.div_ceil(size).saturating_sub(usize::from(len > size && len % size == 1)).max(1)
}

/// Images with a class in a batch: half of it where there are others.
fn labelled_share(examples: &Examples, size: usize) -> usize {
    if examples.unlabelled > 0 { (size / 2).max(1) } else { size.max(2) }
}

/// Indices of all labelled images in a random order, in batches, each with as many unlabelled ones if there are any.
pub(super) fn shuffled(examples: &Examples, size: usize, rng: &mut impl Rng) -> Vec<Vec<i64>> {
    let share = labelled_share(examples, size);
    let mut order: Vec<i64> = (0..examples.labelled() as i64).collect();
    order.shuffle(rng);
    let mut batches: Vec<Vec<i64>> = order.chunks(share).map(<[i64]>::to_vec).collect();
    // One image has no batch statistics: it joins the batch before.
    if let [.., before, last] = batches.as_mut_slice()
        && last.len() == 1
    {
        before.append(last);
        batches.pop();
    }
    if examples.unlabelled > 0 {
        let mut others: Vec<i64> = (examples.labelled() as i64..examples.len() as i64).collect();
        others.shuffle(rng);
        let mut next = others.into_iter().cycle();
        for batch in &mut batches {
            batch.extend(next.by_ref().take(share));
        }
    }
    batches
}
