/// Bits of one stretch of entropy-coded data, stuffed zero bytes taken out.
///
/// Behind the end of the stretch, a marker or the end of the file, come zero bits; [`Bits::overran`] tells
/// whether one of them was used.
#[derive(Clone, Debug)]
pub struct Bits<'a> {
    data: &'a [u8],
    /// The byte that is loaded next.
    next: usize,
    buffer: u64,
    /// Bits in the buffer that were not used yet.
    held: u32,
    /// Zero bits that were put in behind the end.
    borrowed: u64,
}

impl<'a> Bits<'a> {
    /// Starts at byte `start` of `data`.
    pub fn new(data: &'a [u8], start: usize) -> Self {
        Self { data, next: start, buffer: 0, held: 0, borrowed: 0 }
    }

    /// Loads bits, so that there are more than 32: enough for a code and the bits that belong to it.
    pub fn refill(&mut self) {
        if self.held > 32 {
            return;
        }
        if let Some(&[a, b, c, d]) = self.data.get(self.next..self.next + 4)
            && ![a, b, c, d].contains(&0xFF)
        {
            self.buffer = self.buffer << 32 | u64::from(u32::from_be_bytes([a, b, c, d]));
            self.held += 32;
            self.next += 4;
            return;
        }
        while self.held <= 56 {
            let byte = self.byte();
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.held += 8;
        }
    }

    fn byte(&mut self) -> u8 {
        match self.data[self.next.min(self.data.len())..] {
            [0xFF, 0, ..] => {
                self.next += 2;
                0xFF
            }
            [] | [0xFF, ..] => {
                self.borrowed += 8;
                0
            }
            [byte, ..] => {
                self.next += 1;
                byte
            }
        }
    }

    /// The next `count` bits, 1 to 16, without using them.
    pub fn peek(&self, count: u32) -> usize {
        (self.buffer >> (self.held - count)) as usize & ((1 << count) - 1)
    }

    /// Uses `count` bits, at most 16.
    pub fn skip(&mut self, count: u32) {
        self.held -= count;
    }

    /// Uses `count` bits, 0 to 16.
    pub fn take(&mut self, count: u32) -> usize {
        if count == 0 {
            return 0;
        }
        let value = self.peek(count);
        self.skip(count);
        value
    }

    /// Uses one bit, loading more if there is none.
    pub fn bit(&mut self) -> usize {
        self.refill();
        self.take(1)
    }

    /// Whether bits were used that are not there.
    pub fn overran(&self) -> bool {
        u64::from(self.held) < self.borrowed
    }

    /// The first byte of which no bit was used.
    pub fn position(&self) -> usize {
        let unused = (u64::from(self.held).saturating_sub(self.borrowed)) / 8;
        (0..unused).fold(self.next, |at, _| match self.data[..at] {
            [.., 0xFF, 0] => at - 2,
            _ => at - 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuffed_bytes_are_one_and_markers_end_the_data() {
        let mut bits = Bits::new(&[0xFF, 0x00, 0x12, 0xFF, 0xD9], 0);
        bits.refill();
        assert_eq!((bits.take(8), bits.take(4), bits.position()), (0xFF, 1, 3));
        assert_eq!((bits.take(4), bits.overran()), (2, false));
        assert_eq!(bits.position(), 3);
        assert_eq!((bits.bit(), bits.overran()), (0, true));
    }

    #[test]
    fn the_position_is_known_within_a_full_buffer() {
        let data = [1, 2, 0xFF, 0, 3, 4, 5, 6, 7, 8, 9, 10];
        let mut bits = Bits::new(&data, 0);
        for position in [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12] {
            bits.refill();
            bits.take(8);
            assert_eq!(bits.position(), position);
        }
        assert!(!bits.overran());
    }
}
