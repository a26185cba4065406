/// Which weights of a matrix stay: one packed bit per weight, row-major, `true` = kept.
///
/// A mask is explicit on purpose: a kept weight may be exactly zero, so `weight != 0` is not a mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    len: usize,
    words: Vec<u64>,
}

impl Mask {
    /// A mask that keeps all of `len` weights.
    pub fn ones(len: usize) -> Self {
        Self::from_fn(len, |_| true)
    }

    /// Keeps weight `i` where `keep(i)`.
    pub fn from_fn(len: usize, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut words = vec![0_u64; len.div_ceil(64)];
        for i in 0..len {
            words[i / 64] |= u64::from(keep(i)) << (i % 64);
        }
        Self { len, words }
    }

    /// Keeps the `count` weights with the largest `score`; ties go to the lower index.
    ///
    /// NaN scores rank below every number.
    pub fn top_k(scores: &[f32], count: usize) -> Self {
        let count = count.min(scores.len());
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        let rank = |&i: &u32| {
            let score = scores[i as usize];
            if score.is_nan() { f32::NEG_INFINITY } else { score }
        };
        if count > 0 && count < order.len() {
            order.select_nth_unstable_by(count - 1, |a, b| rank(b).total_cmp(&rank(a)).then(a.cmp(b)));
        }
        let mut mask = Self { len: scores.len(), words: vec![0; scores.len().div_ceil(64)] };
        for &i in &order[..count] {
            mask.words[i as usize / 64] |= 1 << (i % 64);
        }
        mask
    }

    /// Number of weights, kept or not.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mask covers no weight.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether weight `i` stays.
    pub fn get(&self, i: usize) -> bool {
        assert!(i < self.len, "weight {i} of a mask of {}", self.len);
        self.words[i / 64] >> (i % 64) & 1 == 1
    }

    /// Number of weights that stay.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Every bit in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.len).map(|i| self.words[i / 64] >> (i % 64) & 1 == 1)
    }

    /// Whether every weight kept here is kept in `other` too.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.len == other.len && self.words.iter().zip(&other.words).all(|(a, b)| a & !b == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_keeps_exactly_k_and_the_largest() {
        let scores = [0.5, f32::NAN, 2.0, 0.5, -1.0];
        for k in 0..=5 {
            assert_eq!(Mask::top_k(&scores, k).count(), k);
        }
        let two: Vec<bool> = Mask::top_k(&scores, 2).iter().collect();
        assert_eq!(two, [true, false, true, false, false]);
    }

    #[test]
    fn bits_survive_word_borders() {
        let mask = Mask::from_fn(130, |i| i % 3 == 0);
        assert_eq!(mask.count(), 44);
        assert!(mask.get(129) && !mask.get(128));
        assert!(mask.is_subset(&Mask::ones(130)));
    }
}
