//! Rows as text.

use std::borrow::Cow;
use std::iter;

use super::Row;
use crate::names;

/// `path,label,probability,label_2,probability_2,…,error,note`.
pub fn csv_header(top: usize) -> String {
    let ranks = (1..=top.max(1)).flat_map(|rank| {
        let suffix = if rank == 1 { String::new() } else { format!("_{rank}") };
        [format!("label{suffix}"), format!("probability{suffix}")]
    });
    record(iter::once("path".to_owned()).chain(ranks).chain(["error".to_owned(), "note".to_owned()]))
}

/// One line of CSV; fields are quoted where RFC 4180 asks for it, and none is a formula.
pub fn csv(row: &Row, top: usize) -> String {
    let ranks = (0..top.max(1)).flat_map(|rank| match row.top.get(rank) {
        Some(ranked) => [names::cell(&ranked.label), format!("{:.6}", ranked.probability).into()],
        None => [Cow::default(), Cow::default()],
    });
    let told = [&row.error, &row.note].map(|text| names::cell(text.as_deref().unwrap_or_default()));
    let fields = iter::once(names::cell(&row.path)).chain(ranks).chain(told);
    record(fields.map(Cow::into_owned))
}

/// One element of a JSON list, with what stands before it.
pub fn json(row: &Row, first: bool) -> Result<String, serde_json::Error> {
    let before = if first { "[\n" } else { ",\n" };
    Ok(before.to_owned() + &names::json(&serde_json::to_string(row)?))
}

fn record(fields: impl Iterator<Item = impl AsRef<[u8]>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields).expect("one record has its own number of fields");
    let line = writer.into_inner().expect("writing to memory does not fail");
    String::from_utf8(line).expect("every field is text")
}

#[cfg(test)]
mod tests {
    use super::super::Ranked;
    use super::*;

    fn rows() -> [Row; 2] {
        let top = vec![
            Ranked { label: "red fox, adult".into(), probability: 0.75 },
            Ranked { label: "hare".into(), probability: 0.25 },
        ];
        let good = Row {
            path: "a \"b\".jpg".into(),
            label: Some("red fox, adult".into()),
            probability: Some(0.75),
            top,
            error: None,
            note: Some("truncated, 74 % of the rows".into()),
        };
        let bad = Row {
            path: "c.jpg".into(),
            label: None,
            probability: None,
            top: Vec::new(),
            error: Some("is empty".into()),
            note: None,
        };
        [good, bad]
    }

    #[test]
    fn csv_has_as_many_fields_in_every_row() {
        let [good, bad] = rows();
        assert_eq!(csv_header(2), "path,label,probability,label_2,probability_2,error,note\n");
        assert_eq!(
            csv(&good, 2),
            "\"a \"\"b\"\".jpg\",\"red fox, adult\",0.750000,hare,0.250000,,\"truncated, 74 % of the rows\"\n"
        );
        assert_eq!(csv(&bad, 2), "c.jpg,,,,,is empty,\n");
    }

    #[test]
    fn no_cell_is_a_formula_or_moves_the_cursor() {
        let [mut row, _] = rows();
        row.path = "-a.jpg".into();
        row.top[0].label = "=HYPERLINK(\"x\")\x1b[2J".into();
        assert!(
            csv(&row, 1).starts_with("'-a.jpg,\"'=HYPERLINK(\"\"x\"\")\\u{1b}[2J\",0.75"),
            "{}",
            csv(&row, 1)
        );
        assert!(!json(&row, true).unwrap().contains('\x1b'));
    }

    #[test]
    fn json_rows_make_a_list() {
        let [good, bad] = rows();
        let text = json(&good, true).unwrap() + &json(&bad, false).unwrap() + "\n]\n";
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(list[0]["top"][1]["label"], "hare");
        assert_eq!(list[0]["note"], "truncated, 74 % of the rows");
        assert_eq!(list[1]["label"], serde_json::Value::Null);
    }
}
