//! Facts about the machine and small pictures for the report.

use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::FilterType;
use image::{ExtendedColorType, ImageEncoder, RgbImage};

/// Longer side of a thumbnail in pixels.
const SIDE: u32 = 160;

/// Name of the processor, as the system gives it.
pub fn cpu_name() -> String {
    let info = fs_err::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Largest resident set of this process so far, where the system tells.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = fs_err::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// A photo as a small JPEG; nothing if it cannot be read.
pub fn thumbnail(path: &Path) -> Option<Vec<u8>> {
    let photo = margay_runtime::decode(path).ok()?;
    let (width, height) = (photo.width() as u32, photo.height() as u32);
    let image = RgbImage::from_raw(width, height, photo.pixels().to_vec())?;
    let longest = width.max(height).max(1);
    let scale = |side: u32| (u64::from(side) * u64::from(SIDE) / u64::from(longest)).max(1) as u32;
    let small = if longest > SIDE {
        image::imageops::resize(&image, scale(width), scale(height), FilterType::Triangle)
    } else {
        image
    };
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, 80);
    encoder.write_image(small.as_raw(), small.width(), small.height(), ExtendedColorType::Rgb8).ok()?;
    Some(jpeg)
}
