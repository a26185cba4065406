use std::path::Path;

/// Extensions of photo files that [`decode`](crate::decode) reads, in lower case: the one list that every command goes by.
pub const PHOTO_EXTENSIONS: [&str; 16] = [
    "jpg", "jpeg", "jpe", "jfif", "jif", "jfi", "pjpeg", "pjp", "png", "apng", "webp", "bmp", "dib", "gif",
    "tif", "tiff",
];

/// Whether a file is named like a photo, in whatever case.
pub fn has_photo_extension(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| PHOTO_EXTENSIONS.contains(&extension.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_matter_and_other_files_do() {
        for name in ["a.JPG", "b.jfif", "c.Jpe", "d.TIFF", "é.b.webp"] {
            assert!(has_photo_extension(Path::new(name)), "{name}");
        }
        for name in ["a.HEIC", "jpg", ".jpg", "a.jpg.txt", "a.mp4"] {
            assert!(!has_photo_extension(Path::new(name)), "{name}");
        }
    }
}
