//! How much memory a model may take: one flag of every command that opens one.

use margay_core::Limits;

/// Limits of a model.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LimitArgs {
    /// Refuse a model that needs more memory than this to run, weights included (512M, 4G)
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    max_memory: u64,
}

impl LimitArgs {
    /// The limits.
    pub fn limits(self) -> Limits {
        Limits::with_memory(self.max_memory)
    }
}

/// Bytes of a text such as `512M` or `1.5GiB`: units are powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text.trim()[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        other => return Err(format!("`{other}` is no unit of memory; use K, M, G or T")),
    };
    let bytes =
        digits.trim().parse::<f64>().map_err(|_| "give a number and a unit, as 512M or 4G".to_owned())?;
    let bytes = bytes * unit as f64;
    if (1.0..=(1_u64 << 50) as f64).contains(&bytes) {
        Ok(bytes as u64)
    } else {
        Err("give a size between 1 byte and 1024T".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("100", 100),
            ("4G", 4 << 30),
            ("512m", 512 << 20),
            ("1.5 GiB", 3 << 29),
            ("2KB", 2048),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1G", "0", "4X", "1e30", "nan", "inf", "2000T", "4 4G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_is_that_of_the_library() {
        assert_eq!(parse_size("4G"), Ok(Limits::DEFAULT.memory));
    }
}
