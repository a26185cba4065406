//! Progress bars on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::printer::Printer;
use crate::names;
use crate::progress::Progress;

/// Shows stages as bars with an estimate of the time left; silent where stderr is no terminal.
#[derive(Debug)]
pub struct Bars {
    printer: Printer,
    screen: indicatif::MultiProgress,
    current: Option<ProgressBar>,
    warnings: Vec<String>,
}

impl Bars {
    /// Bars drawn on `screen`, with notes and warnings above them through `printer`.
    pub fn new(printer: Printer, screen: indicatif::MultiProgress) -> Self {
        Self { printer, screen, current: None, warnings: Vec::new() }
    }

    /// Every warning so far, in order.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn style(total: u64) -> ProgressStyle {
        let template = if total == 0 {
            "{prefix:<22} {spinner} {pos} {msg:.dim}"
        } else {
            "{prefix:<22} {bar:28} {pos}/{len}  {eta:>4} left  {msg:.dim}"
        };
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    }
}

impl Progress for Bars {
    fn start(&mut self, stage: &str, total: u64) {
        self.finish();
        let bar = if total == 0 { ProgressBar::no_length() } else { ProgressBar::new(total) };
        let bar =
            self.screen.add(bar.with_style(Self::style(total)).with_prefix(names::line(stage).into_owned()));
        bar.enable_steady_tick(Duration::from_millis(200));
        self.current = Some(bar);
    }

    fn advance(&mut self, steps: u64) {
        if let Some(bar) = &self.current {
            bar.inc(steps);
        }
    }

    fn status(&mut self, text: &str) {
        if let Some(bar) = &self.current {
            bar.set_message(names::line(text).into_owned());
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.current.take() {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
    }

    fn note(&mut self, text: &str) {
        self.printer.note(text);
    }

    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
        self.printer.warn(text);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_counted_and_templates_are_sound() {
        let bars = indicatif::MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden());
        let mut progress = Bars::new(Printer::new(true, bars.clone()), bars);
        progress.start("stage", 3);
        progress.advance(1);
        progress.warn("first");
        progress.finish();
        progress.start("endless", 0);
        progress.warn("second");
        assert_eq!(progress.warnings(), ["first", "second"]);
    }
}
