//! Rice codes: small integers in few bits.
//!
//! With parameter `k` the number `n` is written as `n >> k` zero bits, a one bit, and the `k` low bits
//! of `n`; the first bit of a stream is the least significant bit of its first byte. Gaps between the
//! kept columns of a random mask are geometrically distributed, where Rice codes are within 3 % of the
//! entropy (Golomb 1966; Gallager and Van Voorhis 1975).

/// Largest parameter: numbers are below 2³².
pub(super) const MAX_PARAMETER: u8 = 31;

/// The parameter that makes the stream of `numbers` shortest.
pub(super) fn best_parameter<I: Iterator<Item = u32> + Clone>(numbers: &I) -> u8 {
    let bits = |k: u8| numbers.clone().map(|n| u64::from(n >> k) + 1 + u64::from(k)).sum::<u64>();
    (0..=MAX_PARAMETER).min_by_key(|k| bits(*k)).expect("there are parameters")
}

/// Appends bits to bytes.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    bits: u64,
    filled: u32,
}

impl Writer {
    /// Appends one number.
    pub fn put(&mut self, number: u32, parameter: u8) {
        let mut zeros = number >> parameter;
        while zeros > 0 {
            let some = zeros.min(24);
            self.append(0, some);
            zeros -= some;
        }
        self.append(1, 1);
        let low = u64::from(number) & ((1 << parameter) - 1);
        self.append(low, u32::from(parameter));
    }

    /// The stream, its last byte filled with zeros.
    pub fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push(self.bits as u8);
        }
        self.bytes
    }

    fn append(&mut self, value: u64, count: u32) {
        self.bits |= value << self.filled;
        self.filled += count;
        while self.filled >= 8 {
            self.bytes.push(self.bits as u8);
            self.bits >>= 8;
            self.filled -= 8;
        }
    }
}

/// Takes bits from bytes.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// Bits taken so far.
    position: usize,
}

impl<'a> Reader<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    /// The next number; `None` where the stream ends early or the number is above 2³² − 1.
    pub fn take(&mut self, parameter: u8) -> Option<u32> {
        let k = u32::from(parameter);
        let mut window = self.window();
        let mut zeros = 0_usize;
        // Too long for one window: k <= 31, so that at least 25 zeros come first.
        while window.trailing_zeros() + 1 + k > 57 {
            zeros += 24;
            self.position += 24;
            if self.position >= self.bytes.len() * 8 {
                return None;
            }
            window = self.window();
        }
        let run = window.trailing_zeros();
        let quotient = zeros as u64 + u64::from(run);
        let low = (window >> (run + 1)) & ((1 << k) - 1);
        self.position += (run + 1 + k) as usize;
        if self.position > self.bytes.len() * 8 {
            return None;
        }
        quotient.checked_mul(1 << k).and_then(|high| u32::try_from(high | low).ok())
    }

    /// Whether the stream ends here: less than a byte is left, and it is zero.
    pub fn is_finished(&self) -> bool {
        self.bytes.len() == self.position.div_ceil(8) && self.window() == 0
    }

    /// The next bits, at least 57 of them; zeros follow the end of the stream.
    fn window(&self) -> u64 {
        let from = self.position / 8;
        let word = if let Some(full) = self.bytes.get(from..from + 8) {
            <[u8; 8]>::try_from(full).map_or(0, u64::from_le_bytes)
        } else {
            let rest = self.bytes.get(from..).unwrap_or_default().iter().rev();
            rest.fold(0, |word, byte| word << 8 | u64::from(*byte))
        };
        word >> (self.position % 8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(numbers in prop::collection::vec(0_u32..5000, 0..200), parameter in 0..=MAX_PARAMETER) {
            let mut writer = Writer::default();
            for n in &numbers {
                writer.put(*n, parameter);
            }
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            for n in &numbers {
                prop_assert_eq!(reader.take(parameter), Some(*n));
            }
            prop_assert!(reader.is_finished());
        }

        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..40), parameter in 0..=MAX_PARAMETER) {
            let mut reader = Reader::new(&bytes);
            let taken = std::iter::from_fn(|| reader.take(parameter)).count();
            prop_assert!(taken <= bytes.len() * 8);
        }
    }

    #[test]
    fn the_largest_numbers() {
        for (number, parameter) in [(u32::MAX, 31), (u32::MAX, 24), (100_000, 0), (0, 31), (1 << 20, 3)] {
            let mut writer = Writer::default();
            writer.put(number, parameter);
            writer.put(7, parameter);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.take(parameter), reader.take(parameter)), (Some(number), Some(7)));
        }
    }

    #[test]
    fn streams_that_end_early_or_late() {
        assert_eq!(Reader::new(&[]).take(0), None);
        assert_eq!(Reader::new(&[0; 100]).take(3), None);
        // A one bit, then only 7 of 8 low bits.
        assert_eq!(Reader::new(&[1]).take(8), None);
        // 33 zeros at parameter 31 stand for a number above 2³².
        assert_eq!(Reader::new(&[0, 0, 0, 0, 2, 0, 0, 0, 0]).take(31), None);
        let mut reader = Reader::new(&[1, 0]);
        assert_eq!((reader.take(0), reader.is_finished()), (Some(0), false));
        let mut reader = Reader::new(&[3]);
        assert_eq!((reader.take(0), reader.is_finished()), (Some(0), false));
    }

    #[test]
    fn parameter_fits_the_density() {
        let gaps = (0..1000).map(|i| i * 7919 % 39);
        assert_eq!(best_parameter(&gaps), 4);
        assert_eq!(best_parameter(&std::iter::empty()), 0);
    }
}
