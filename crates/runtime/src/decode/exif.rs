//! The one thing that a photo's EXIF data are asked for: which way is up.

use image::metadata::Orientation;

const ORIENTATION: u16 = 0x0112;

/// A TIFF structure: what a TIFF file is, and the body of an EXIF segment.
pub struct Directory<'a> {
    data: &'a [u8],
    little: bool,
    entries: usize,
}

/// An entry of a [`Directory`].
pub struct Entry<'a> {
    pub tag: u16,
    pub kind: u16,
    pub count: u32,
    /// The value itself if it is short, else where it stands.
    pub value: &'a [u8; 4],
}

impl<'a> Directory<'a> {
    /// The first directory of a TIFF structure, or `None` if `data` are none.
    pub fn first(data: &'a [u8]) -> Option<Self> {
        let little = match data.first_chunk::<4>()? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        let mut directory = Self { data, little, entries: 0 };
        directory.entries = directory.u32(*data[4..].first_chunk()?) as usize;
        Some(directory)
    }

    /// Its entries, as far as they are there.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + '_ {
        let rest = self.data.get(self.entries..).unwrap_or(&[]);
        let (count, list) = match rest.split_first_chunk::<2>() {
            Some((count, list)) => (self.u16(*count), list),
            None => (0, rest),
        };
        list.as_chunks::<12>().0.iter().take(usize::from(count)).map(|entry| Entry {
            tag: self.u16([entry[0], entry[1]]),
            kind: self.u16([entry[2], entry[3]]),
            count: self.u32([entry[4], entry[5], entry[6], entry[7]]),
            value: entry.last_chunk().expect("an entry has 12 bytes"),
        })
    }

    /// The text that an entry points to or holds.
    pub fn text(&self, entry: &Entry<'a>) -> &'a [u8] {
        let length = entry.count as usize;
        let start = self.u32(*entry.value) as usize;
        if length <= 4 {
            &entry.value[..length]
        } else {
            self.data.get(start..).map_or(&[], |rest| &rest[..length.min(rest.len())])
        }
    }

    /// An entry's first value, if it is an integer of any type.
    pub fn integer(&self, entry: &Entry) -> Option<u32> {
        let [a, b, _, _] = *entry.value;
        match entry.kind {
            _ if entry.count == 0 => None,
            1 | 6 => Some(u32::from(a)),
            3 | 8 => Some(u32::from(self.u16([a, b]))),
            4 | 9 => Some(self.u32(*entry.value)),
            _ => None,
        }
    }

    fn u16(&self, bytes: [u8; 2]) -> u16 {
        if self.little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    }

    fn u32(&self, bytes: [u8; 4]) -> u32 {
        if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
    }
}

/// The orientation that EXIF data or a TIFF file name; upright if they name none.
pub fn orientation(data: &[u8]) -> Orientation {
    let data = data.strip_prefix(b"Exif\0\0").unwrap_or(data);
    let named = |directory: Directory| {
        let entry = directory.entries().find(|entry| entry.tag == ORIENTATION)?;
        Orientation::from_exif(u8::try_from(directory.integer(&entry)?).ok()?)
    };
    Directory::first(data).and_then(named).unwrap_or(Orientation::NoTransforms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(little: bool, kind: u16, count: u32, value: [u8; 4]) -> Vec<u8> {
        let order = |bytes: &[u8]| -> Vec<u8> {
            if little { bytes.iter().rev().copied().collect() } else { bytes.to_vec() }
        };
        let mut data = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
        data.extend(order(&8_u32.to_be_bytes()));
        for number in [1, ORIENTATION, kind] {
            data.extend(order(&number.to_be_bytes()));
        }
        data.extend(order(&count.to_be_bytes()));
        data.extend(value);
        data
    }

    #[test]
    fn any_integer_type_names_the_orientation() {
        for (kind, little, big) in [
            (1, [6, 0, 0, 0], [6, 0, 0, 0]),
            (3, [6, 0, 0, 0], [0, 6, 0, 0]),
            (4, [6, 0, 0, 0], [0, 0, 0, 6]),
            (6, [6, 0, 0, 0], [6, 0, 0, 0]),
            (8, [6, 0, 0, 0], [0, 6, 0, 0]),
            (9, [6, 0, 0, 0], [0, 0, 0, 6]),
        ] {
            assert_eq!(orientation(&chunk(true, kind, 1, little)), Orientation::Rotate90, "{kind}");
            assert_eq!(orientation(&chunk(false, kind, 1, big)), Orientation::Rotate90, "{kind}");
        }
    }

    #[test]
    fn what_is_no_orientation_is_upright() {
        let upright = Orientation::NoTransforms;
        assert_eq!(orientation(&chunk(true, 2, 1, [6, 0, 0, 0])), upright, "text");
        assert_eq!(orientation(&chunk(true, 3, 0, [6, 0, 0, 0])), upright, "no value");
        assert_eq!(orientation(&chunk(true, 4, 1, [6, 1, 0, 0])), upright, "262");
        assert_eq!(orientation(&chunk(true, 3, 1, [9, 0, 0, 0])), upright);
        let whole = chunk(true, 3, 1, [6, 0, 0, 0]);
        for end in 0..whole.len() {
            assert_eq!(orientation(&whole[..end]), upright, "cut at {end}");
        }
        let mut far = whole;
        far[4..8].fill(0xFF);
        assert_eq!(orientation(&far), upright);
    }
}
