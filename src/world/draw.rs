/// A stream of random draws that is the same on every machine and with every version of every library.
///
/// Splitmix64 (Steele, Lea and Flood 2014). No draw goes through libm, whose last bits differ by platform.
#[derive(Clone)]
pub(super) struct Draw(u64);

impl Draw {
    /// The stream that belongs to a list of numbers.
    pub(super) fn new(keys: &[u64]) -> Self {
        let mut draw = Self(0x6d61_7267_6179);
        for key in keys {
            draw.0 ^= key.wrapping_mul(0xd6e8_feb8_6659_fd93);
            draw.0 = draw.next();
        }
        draw
    }

    /// 64 random bits.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `0..1`.
    pub(super) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// Uniform in `low..high`.
    pub(super) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub(super) fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// A whole number in `low..high`.
    pub(super) fn count(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low).max(1) as u64) as usize
    }

    /// About normal with mean 0 and variance 1: the sum of four 16-bit uniforms.
    pub(super) fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum();
        (sum as f32 / 65536.0 - 2.0) * 1.732
    }

    /// One of the items.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.count(0, items.len())]
    }
}

/// Smooth noise in 0..1 with lattice spacing 1.
pub(super) fn noise(seed: u64, x: f32, y: f32) -> f32 {
    let (x0, y0) = (x.floor(), y.floor());
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (ease(x - x0), ease(y - y0));
    let corner = |dx: i64, dy: i64| {
        let key =
            (x0 as i64 + dx).wrapping_mul(0x0001_f123_bb5b) ^ (y0 as i64 + dy).wrapping_mul(0x0005_deec_e66d);
        Draw(seed ^ key as u64).unit()
    };
    let top = corner(0, 0) * (1.0 - u) + corner(1, 0) * u;
    let bottom = corner(0, 1) * (1.0 - u) + corner(1, 1) * u;
    top * (1.0 - v) + bottom * v
}
