//! The HTML report: a pure function of a run record.
