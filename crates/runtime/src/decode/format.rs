//! What a file is, by its first bytes; its name says nothing.

use image::ImageFormat;

use super::exif::Directory;

/// Bytes that are looked at before a file is read.
pub const HEAD_BYTES: usize = 4096;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An image that is read here.
    Image(ImageFormat),
    /// Something else that has a name.
    Other(&'static str),
    /// Nothing but zero bytes, as a card leaves a file that it lost.
    Zeros,
    /// Nobody knows.
    Unknown,
}

/// Signatures: how far from the start, the bytes there, and whose they are.
const SIGNATURES: &[(usize, &[u8], Kind)] = &[
    (0, b"\xFF\xD8\xFF", Kind::Image(ImageFormat::Jpeg)),
    (0, b"\x89PNG\r\n\x1A\n", Kind::Image(ImageFormat::Png)),
    (0, b"GIF87a", Kind::Image(ImageFormat::Gif)),
    (0, b"GIF89a", Kind::Image(ImageFormat::Gif)),
    (0, b"II+\0", Kind::Image(ImageFormat::Tiff)),
    (0, b"MM\0+", Kind::Image(ImageFormat::Tiff)),
    (8, b"WEBP", Kind::Image(ImageFormat::WebP)),
    (8, b"AVI ", Kind::Other("an AVI video")),
    (8, b"WAVE", Kind::Other("a WAVE sound")),
    (0, b"IIRO", Kind::Other("an Olympus raw photo (ORF)")),
    (0, b"IIRS", Kind::Other("an Olympus raw photo (ORF)")),
    (0, b"MMOR", Kind::Other("an Olympus raw photo (ORF)")),
    (0, b"IIU\0", Kind::Other("a Panasonic raw photo (RW2)")),
    (0, b"FUJIFILMCCD-RAW", Kind::Other("a Fujifilm raw photo (RAF)")),
    (0, b"FOVb", Kind::Other("a Sigma raw photo (X3F)")),
    (0, b"\xFF\x0A", Kind::Other("a JPEG XL image")),
    (0, b"\0\0\0\x0CJXL ", Kind::Other("a JPEG XL image")),
    (0, b"\0\0\0\x0CjP  ", Kind::Other("a JPEG 2000 image")),
    (0, b"\xFF\x4F\xFF\x51", Kind::Other("a JPEG 2000 image")),
    (0, b"\x1A\x45\xDF\xA3", Kind::Other("a Matroska or WebM video")),
    (0, b"\0\0\x01\xBA", Kind::Other("an MPEG video")),
    (0, b"\0\0\x01\xB3", Kind::Other("an MPEG video")),
    (0, b"\x30\x26\xB2\x75\x8E\x66\xCF\x11", Kind::Other("a Windows Media video")),
    (0, b"FLV\x01", Kind::Other("a Flash video")),
    (0, b"DHAV", Kind::Other("a Dahua video")),
    (4, b"moov", Kind::Other("a QuickTime video")),
    (4, b"mdat", Kind::Other("a QuickTime video")),
    (4, b"wide", Kind::Other("a QuickTime video")),
    (0, b"8BPS", Kind::Other("a Photoshop document")),
    (0, b"%PDF", Kind::Other("a PDF document")),
    (0, b"PK\x03\x04", Kind::Other("a ZIP archive")),
    (0, b"\x1F\x8B", Kind::Other("a gzip archive")),
    (0, b"\0\0\x01\0", Kind::Other("an icon")),
];

/// Brands of the ISO base media format, which both photos and videos are stored in.
const BRANDS: &[(&[u8], &str)] = &[
    (b"heic", "a HEIC photo"),
    (b"heix", "a HEIC photo"),
    (b"heim", "a HEIC photo"),
    (b"heis", "a HEIC photo"),
    (b"hevc", "a HEIC photo"),
    (b"hevx", "a HEIC photo"),
    (b"avif", "an AVIF photo"),
    (b"avis", "an AVIF photo"),
    (b"mif1", "a HEIF photo"),
    (b"msf1", "a HEIF photo"),
    (b"crx ", "a Canon raw photo (CR3)"),
    (b"qt  ", "a QuickTime video"),
    (b"3gp", "a 3GP video"),
];

/// Makers whose raw photos are TIFF files that hold a thumbnail where a photo would be.
const RAW_MAKERS: &[(&[u8], &str)] = &[
    (b"NIKON", "a Nikon raw photo (NEF)"),
    (b"SONY", "a Sony raw photo (ARW)"),
    (b"PENTAX", "a Pentax raw photo (PEF)"),
    (b"RICOH", "a Pentax raw photo (PEF)"),
    (b"SAMSUNG", "a Samsung raw photo (SRW)"),
    (b"Hasselblad", "a Hasselblad raw photo (3FR)"),
];

/// Judges a file by its first bytes; the directory of a TIFF file may lie behind [`HEAD_BYTES`].
pub fn kind(bytes: &[u8]) -> Kind {
    if let Some(directory) = Directory::first(bytes) {
        return raw_maker(bytes, &directory).map_or(Kind::Image(ImageFormat::Tiff), Kind::Other);
    }
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    if let Some(brand) = media_brand(head) {
        return Kind::Other(brand);
    }
    let begins =
        |(at, start, _): &&(usize, &[u8], Kind)| head.get(*at..).is_some_and(|rest| rest.starts_with(start));
    match SIGNATURES.iter().find(begins) {
        Some((8, _, _)) if !head.starts_with(b"RIFF") => Kind::Unknown,
        Some((_, _, kind)) => *kind,
        None if is_bitmap(head) => Kind::Image(ImageFormat::Bmp),
        None if head.iter().all(|byte| *byte == 0) => Kind::Zeros,
        None if is_text(head) => Kind::Other("text"),
        None => Kind::Unknown,
    }
}

/// Two letters are few; a header of a known length has to follow.
fn is_bitmap(head: &[u8]) -> bool {
    let header =
        head.get(14..18).map(|length| u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
    head.starts_with(b"BM") && header.is_some_and(|length| (12..=256).contains(&length))
}

fn media_brand(head: &[u8]) -> Option<&'static str> {
    let brand = head.get(4..)?.strip_prefix(b"ftyp")?;
    let named = BRANDS.iter().find(|(start, _)| brand.starts_with(start));
    Some(named.map_or("an MP4 video", |(_, name)| name))
}

/// Whose raw photo a TIFF file is, if it is one.
fn raw_maker(head: &[u8], directory: &Directory) -> Option<&'static str> {
    const MAKE: u16 = 0x010F;
    const SUB_DIRECTORIES: u16 = 0x014A;
    const DNG_VERSION: u16 = 0xC612;
    if head.get(8..10) == Some(b"CR") {
        return Some("a Canon raw photo (CR2)");
    }
    let find = |tag| directory.entries().find(|entry| entry.tag == tag);
    if find(DNG_VERSION).is_some() {
        return Some("a DNG raw photo");
    }
    find(SUB_DIRECTORIES)?;
    let make = directory.text(&find(MAKE)?);
    RAW_MAKERS.iter().find(|(name, _)| make.starts_with(name)).map(|(_, name)| *name)
}

/// Whether these are letters: UTF-8, perhaps cut within one, without control characters.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or("")
        }
        Err(_) => return false,
    };
    !text.is_empty() && text.chars().all(|letter| !letter.is_control() || letter.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_first_bytes() {
        for (head, expected) in [
            (&b"\xFF\xD8\xFF\xE0"[..], Kind::Image(ImageFormat::Jpeg)),
            (b"RIFF\x10\0\0\0WEBPVP8L", Kind::Image(ImageFormat::WebP)),
            (b"RIFF\x10\0\0\0AVI LIST", Kind::Other("an AVI video")),
            (b"junk\x10\0\0\0WEBPVP8\0", Kind::Unknown),
            (b"II*\0\x08\0\0\0", Kind::Image(ImageFormat::Tiff)),
            (b"II+\0\x08\0\0\0", Kind::Image(ImageFormat::Tiff)),
            (b"II*\0\x10\0\0\0CR\x02\0", Kind::Other("a Canon raw photo (CR2)")),
            (b"\0\0\0\x18ftypheic\0\0\0\0", Kind::Other("a HEIC photo")),
            (b"\0\0\0\x18ftypavif\0\0\0\0", Kind::Other("an AVIF photo")),
            (b"\0\0\0\x18ftypisom\0\0\0\0", Kind::Other("an MP4 video")),
            (b"\xFF\x0A\xFA\x7F", Kind::Other("a JPEG XL image")),
            (b"<html>\n<body>not found", Kind::Other("text")),
            (b"BM is how this text begins", Kind::Other("text")),
            (&[0; 4096], Kind::Zeros),
            (b"\x07\x08\x09 noise", Kind::Unknown),
        ] {
            assert_eq!(kind(head), expected, "{}", head.escape_ascii());
        }
    }

    #[test]
    fn raw_photos_are_no_tiffs_for_their_thumbnails() {
        let entry = |tag: u16, kind: u16, count: u32, value: u32| {
            [&tag.to_le_bytes()[..], &kind.to_le_bytes(), &count.to_le_bytes(), &value.to_le_bytes()].concat()
        };
        let file = |entries: &[Vec<u8>]| {
            let count = (entries.len() as u16).to_le_bytes();
            [b"II*\0\x10\0\0\0NIKON CO", &count[..], &entries.concat()].concat()
        };
        let (make, subs) = (entry(0x010F, 2, 8, 8), entry(0x014A, 4, 1, 99));
        assert_eq!(kind(&file(&[make.clone(), subs])), Kind::Other("a Nikon raw photo (NEF)"));
        assert_eq!(kind(&file(&[make])), Kind::Image(ImageFormat::Tiff));
        assert_eq!(kind(&file(&[entry(0xC612, 1, 4, 1)])), Kind::Other("a DNG raw photo"));
    }
}
