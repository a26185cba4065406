//! Figures as people read them.

/// What stands where a figure is absent.
pub(super) const ABSENT: &str = "–";

/// `88.3 %`.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.1} %", 100.0 * fraction)
}

/// `88.3 %`, or a dash.
pub(super) fn maybe_percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| ABSENT.to_owned(), percent)
}

/// `83.7–91.8 %`.
pub(super) fn interval([low, high]: [f64; 2]) -> String {
    format!("{:.1}–{:.1} %", 100.0 * low, 100.0 * high)
}

/// A difference of fractions in percentage points with its sign: `−3.4`.
pub(super) fn points(difference: f64) -> String {
    let rounded = (1000.0 * difference).round() / 10.0;
    let sign = if rounded < 0.0 {
        "−"
    } else if rounded > 0.0 {
        "+"
    } else {
        "±"
    };
    format!("{sign}{:.1}", rounded.abs())
}

/// A number with its sign: `−0.034`, `+1.250`.
pub(super) fn signed(number: f64) -> String {
    let sign = if number < 0.0 { "−" } else { "+" };
    format!("{sign}{:.3}", number.abs())
}

/// `11.17 M`, `12.3 k`, `950`.
pub(super) fn count(number: u64) -> String {
    scaled(number, &[(1_000_000_000, " G"), (1_000_000, " M"), (10_000, " k")])
}

/// `44.72 MB`, `950 B`; a megabyte has 10⁶ bytes.
pub(super) fn bytes(number: u64) -> String {
    let text = scaled(number, &[(1_000_000_000, " GB"), (1_000_000, " MB"), (1_000, " kB")]);
    if text.ends_with('B') { text } else { text + " B" }
}

fn scaled(number: u64, units: &[(u64, &str)]) -> String {
    let Some((unit, name)) = units.iter().find(|(unit, _)| number >= *unit) else {
        return number.to_string();
    };
    let unit = if *name == " k" { 1_000 } else { *unit };
    format!("{}{name}", significant(number as f64 / unit as f64))
}

/// About four digits: `1.234`, `12.34`, `123.4`.
fn significant(value: f64) -> String {
    let decimals = if value < 100.0 { 2 } else { 1 };
    format!("{value:.decimals$}")
}

/// `1.80 ms`.
pub(super) fn milliseconds(value: f64) -> String {
    significant(value) + " ms"
}

/// `3.2 s` or `2 min 5 s`.
pub(super) fn seconds(value: f64) -> String {
    if value < 60.0 {
        return format!("{value:.1} s");
    }
    let whole = value.round() as u64;
    format!("{} min {} s", whole / 60, whole % 60)
}

/// How many times `before` is as large as `after`: `17.2×`, or a dash.
pub(super) fn fold(before: f64, after: f64) -> String {
    if before > 0.0 && after > 0.0 { format!("{:.1}×", before / after) } else { ABSENT.to_owned() }
}

/// A small error: `0.0123` or `1.2e-5`.
pub(super) fn error(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-3 { format!("{value:.4}") } else { format!("{value:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let got = [
            percent(0.8834),
            maybe_percent(None),
            interval([0.837, 0.918]),
            points(-0.0341),
            points(-0.000_01),
            count(950),
            count(12_345),
            count(11_166_912),
            bytes(950),
            bytes(44_718_592),
            milliseconds(1.8),
            seconds(3.21),
            seconds(125.4),
            fold(44.0, 0.0),
            fold(44.0, 2.0),
            error(0.0123),
            error(0.000_012),
        ];
        let expected = [
            "88.3 %",
            "–",
            "83.7–91.8 %",
            "−3.4",
            "±0.0",
            "950",
            "12.35 k",
            "11.17 M",
            "950 B",
            "44.72 MB",
            "1.80 ms",
            "3.2 s",
            "2 min 5 s",
            "–",
            "22.0×",
            "0.0123",
            "1.2e-5",
        ];
        assert_eq!(got, expected.map(str::to_owned));
    }
}
