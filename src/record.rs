//! The record of one run: every figure that the table, `run.json` and the report show.
