use tch::{Kind, Tensor};

use crate::torch::TorchError;

/// The class of an image that has none, as libtorch's cross-entropy knows it.
const NO_CLASS: i64 = -100;

/// Images on the training device, labelled ones first.
#[derive(Debug)]
pub struct Examples {
    /// Normalised images `[n, 3, h, w]`.
    pub images: Tensor,
    /// Class of each image `[n]`, 64-bit integers; negative where there is none.
    pub classes: Tensor,
    /// How much each image counts `[n]`; absent: all the same.
    pub weights: Option<Tensor>,
    /// How many images at the end have no class.
    pub unlabelled: usize,
}

impl Examples {
    /// Labelled images that all count the same.
    pub fn new(images: Tensor, classes: Tensor) -> Self {
        Self { images, classes, weights: None, unlabelled: 0 }
    }

    /// Gives every one of `classes` classes the same weight in sum, with a mean of 1; `None` changes nothing.
    pub fn balanced(self, classes: Option<usize>) -> Result<Self, TorchError> {
        let Some(classes) = classes.filter(|_| !self.is_empty()) else { return Ok(self) };
        let counts = self.classes.f_bincount(None::<Tensor>, classes as i64)?.f_to_kind(Kind::Float)?;
        let present = counts.f_gt(0.0)?.f_sum(Kind::Float)?.double_value(&[]);
        if counts.f_max()?.double_value(&[]) * present == self.len() as f64 {
            return Ok(self);
        }
        let weights = counts.f_reciprocal()?.f_mul_scalar(self.len() as f64 / present)?;
        let weights = weights.f_index_select(0, &self.classes)?;
        Ok(Self { weights: Some(weights), ..self })
    }

    /// The same with images `[m, 3, h, w]` that have no class, each of weight 1.
    pub fn with_unlabelled(&self, images: &Tensor) -> Result<Self, TorchError> {
        let more = images.size()[0];
        let none = self.classes.f_new_full([more], NO_CLASS, (Kind::Int64, self.classes.device()))?;
        let weights = self.weights.as_ref().map(|weights| {
            let ones = weights.f_new_ones([more], (Kind::Float, weights.device()))?;
            Tensor::f_cat(&[weights, &ones], 0)
        });
        Ok(Self {
            images: Tensor::f_cat(&[&self.images, images], 0)?,
            classes: Tensor::f_cat(&[&self.classes, &none], 0)?,
            weights: weights.transpose()?,
            unlabelled: self.unlabelled + more as usize,
        })
    }

    /// The same tensors.
    #[must_use]
    pub fn shallow_clone(&self) -> Self {
        Self {
            images: self.images.shallow_clone(),
            classes: self.classes.shallow_clone(),
            weights: self.weights.as_ref().map(Tensor::shallow_clone),
            unlabelled: self.unlabelled,
        }
    }

    /// Some of the labelled images, all counting the same.
    pub fn select(&self, at: &[i64]) -> Result<Self, TorchError> {
        let at = Tensor::f_from_slice(at)?.f_to_device(self.images.device())?;
        Ok(Self::new(self.images.f_index_select(0, &at)?, self.classes.f_index_select(0, &at)?))
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.size()[0] as usize
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of images with a class.
    pub fn labelled(&self) -> usize {
        self.len() - self.unlabelled
    }

    /// The same images with 64 bits.
    pub fn in_double(&self) -> Result<Self, TorchError> {
        let weights = self.weights.as_ref().map(Tensor::shallow_clone);
        let (images, classes) = (self.images.f_to_kind(Kind::Double)?, self.classes.shallow_clone());
        Ok(Self { images, classes, weights, unlabelled: self.unlabelled })
    }

    /// The images in batches of at most `size`.
    pub fn batches(&self, size: usize) -> Result<Vec<Tensor>, TorchError> {
        Ok(self.images.f_split(size.max(1) as i64, 0)?)
    }
}
