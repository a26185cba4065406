//! Sectors that a failing card lost: 512 bytes of one value where a picture's data should be.

use std::ops::Range;

/// Smallest unit that a card reads and writes; files begin at a multiple of it.
const SECTOR: usize = 512;

/// Fewest bytes of one value at the end of a file that are no picture.
const TAIL: usize = 32;
/// How many of them must have been taken for codes: padding behind a picture is not.
const TAKEN: usize = 8;

/// A stretch of lost sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blank {
    /// Its first byte.
    pub start: usize,
    /// Whether nothing follows.
    pub to_the_end: bool,
}

/// The first stretch of lost sectors that begins between `start` and `end`.
///
/// A flat picture has long stretches of one value, too. So a stretch counts only if it begins and ends where sectors
/// do, or if the data are known to be wrong.
pub fn blank(data: &[u8], start: usize, end: usize, known_wrong: bool) -> Option<Blank> {
    let mut at = start.next_multiple_of(SECTOR);
    while at + SECTOR <= data.len() && at < end {
        let stretch = stretch_around(data, at);
        if stretch.end - at < SECTOR {
            at += SECTOR;
            continue;
        }
        let [before, behind] = [at - stretch.start, stretch.end % SECTOR];
        let to_the_end = data[stretch.end..].iter().all(|byte| matches!(byte, 0xFF | 0xD9));
        // A neighbouring byte has the same value by chance.
        if known_wrong || before <= 2 && (behind <= 2 || to_the_end) {
            return Some(Blank { start: stretch.start, to_the_end });
        }
        at = stretch.end.next_multiple_of(SECTOR);
    }
    None
}

/// Where a file ends in one value of which the picture, whose codes end at `end`, took some: a copy that broke off into a file
/// of the whole length. A whole JPEG ends in its end marker.
pub fn filled_tail(data: &[u8], end: usize) -> Option<Blank> {
    let tail = stretch_around(data, data.len().checked_sub(1)?);
    let taken = end.saturating_sub(tail.start);
    (tail.len() >= TAIL && taken >= TAKEN).then_some(Blank { start: tail.start, to_the_end: true })
}

/// The bytes around `at` that have its value.
fn stretch_around(data: &[u8], at: usize) -> Range<usize> {
    let value = data[at];
    let before = data[..at].iter().rev().take_while(|byte| **byte == value).count();
    let behind = data[at..].iter().take_while(|byte| **byte == value).count();
    at - before..at + behind
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without a stretch, with `lost` of them set to zero.
    fn data(lost: Range<usize>) -> Vec<u8> {
        (0..8192).map(|i| if lost.contains(&i) { 0 } else { (i % 250 + 1) as u8 }).collect()
    }

    #[test]
    fn lost_sectors_are_found_where_they_begin() {
        let found = |lost: Range<usize>, wrong| blank(&data(lost), 100, 8000, wrong);
        assert_eq!(found(1024..2048, false), Some(Blank { start: 1024, to_the_end: false }));
        assert_eq!(found(1024..8192, false), Some(Blank { start: 1024, to_the_end: true }));
        assert_eq!(found(1000..2100, false), None, "a flat part of the picture");
        assert_eq!(found(1000..2100, true), Some(Blank { start: 1000, to_the_end: false }));
        assert_eq!(found(1100..1500, true), None, "less than a sector");
        assert_eq!(found(0..0, true), None);
        let tail = |from: usize, end: usize| filled_tail(&data(from..8192), end);
        assert_eq!(tail(7800, 7900), Some(Blank { start: 7800, to_the_end: true }));
        assert_eq!(tail(7800, 7802), None, "padding behind the picture");
    }
}
