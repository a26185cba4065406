use super::ExperimentError;

/// The text with everything between the marks `<!-- experiment: NAME -->` and `<!-- end experiment: NAME -->`
/// replaced.
pub fn splice(text: &str, name: &str, tables: &str) -> Result<String, ExperimentError> {
    let [begin, end] = ["", "end "].map(|prefix| format!("<!-- {prefix}experiment: {name} -->"));
    let Some((before, rest)) = text.split_once(&begin) else { return Err(ExperimentError::Marker(begin)) };
    let Some((_, after)) = rest.split_once(&end) else { return Err(ExperimentError::Marker(end)) };
    Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "a\n<!-- experiment: x -->\nold\n<!-- end experiment: x -->\nb\n";
        let once = splice(text, "x", "new\n").unwrap();
        assert_eq!(once, "a\n<!-- experiment: x -->\n\nnew\n\n<!-- end experiment: x -->\nb\n");
        assert_eq!(splice(&once, "x", "new\n").unwrap(), once);
    }

    #[test]
    fn a_missing_mark_is_named() {
        let error = splice("<!-- experiment: x -->", "x", "").unwrap_err();
        assert!(error.to_string().contains("<!-- end experiment: x -->"), "{error}");
        assert!(splice("", "x", "").unwrap_err().to_string().contains("<!-- experiment: x -->"));
    }
}
