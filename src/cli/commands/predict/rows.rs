//! Rows as text.

use super::Row;

/// `path,label,probability,label_2,probability_2,…,error`.
pub fn csv_header(top: usize) -> String {
    let mut header = "path".to_owned();
    for rank in 1..=top.max(1) {
        let suffix = if rank == 1 { String::new() } else { format!("_{rank}") };
        header += &format!(",label{suffix},probability{suffix}");
    }
    header + ",error\n"
}

/// One line of CSV; fields are quoted where RFC 4180 asks for it.
pub fn csv(row: &Row, top: usize) -> String {
    let mut line = quoted(&row.path);
    for rank in 0..top.max(1) {
        match row.top.get(rank) {
            Some(ranked) => line += &format!(",{},{:.6}", quoted(&ranked.label), ranked.probability),
            None => line += ",,",
        }
    }
    line + "," + &quoted(row.error.as_deref().unwrap_or_default()) + "\n"
}

/// One element of a JSON list, with what stands before it.
pub fn json(row: &Row, first: bool) -> Result<String, serde_json::Error> {
    let before = if first { "[\n" } else { ",\n" };
    Ok(before.to_owned() + &serde_json::to_string(row)?)
}

fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
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
        };
        let bad = Row {
            path: "c.jpg".into(),
            label: None,
            probability: None,
            top: Vec::new(),
            error: Some("is empty".into()),
        };
        [good, bad]
    }

    #[test]
    fn csv_has_as_many_fields_in_every_row() {
        let [good, bad] = rows();
        assert_eq!(csv_header(2), "path,label,probability,label_2,probability_2,error\n");
        assert_eq!(csv(&good, 2), "\"a \"\"b\"\".jpg\",\"red fox, adult\",0.750000,hare,0.250000,\n");
        assert_eq!(csv(&bad, 2), "c.jpg,,,,,is empty\n");
    }

    #[test]
    fn json_rows_make_a_list() {
        let [good, bad] = rows();
        let text = json(&good, true).unwrap() + &json(&bad, false).unwrap() + "\n]\n";
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(list[0]["top"][1]["label"], "hare");
        assert_eq!(list[1]["label"], serde_json::Value::Null);
    }
}
