//! How long stages tell what they do, without knowing who listens.

/// Listens to the stages of a run.
pub trait Progress: Send {
    /// A stage of `total` steps begins; 0 means that the number is unknown.
    fn start(&mut self, stage: &str, total: u64);
    /// `steps` more steps are done.
    fn advance(&mut self, steps: u64);
    /// A short text beside the bar, such as the current layer or loss.
    fn status(&mut self, text: &str);
    /// The stage is over.
    fn finish(&mut self);
    /// Something the user should know.
    fn note(&mut self, text: &str);
    /// Something the user should worry about; counted.
    fn warn(&mut self, text: &str);
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&mut self, _stage: &str, _total: u64) {}
    fn advance(&mut self, _steps: u64) {}
    fn status(&mut self, _text: &str) {}
    fn finish(&mut self) {}
    fn note(&mut self, _text: &str) {}
    fn warn(&mut self, _text: &str) {}
}

/// Passes everything on and remembers the warnings.
pub struct Recorder<'a> {
    listener: &'a mut dyn Progress,
    /// Every warning so far.
    pub warnings: Vec<String>,
}

impl<'a> Recorder<'a> {
    /// Records what `listener` hears.
    pub fn new(listener: &'a mut dyn Progress) -> Self {
        Self { listener, warnings: Vec::new() }
    }
}

impl Progress for Recorder<'_> {
    fn start(&mut self, stage: &str, total: u64) {
        self.listener.start(stage, total);
    }

    fn advance(&mut self, steps: u64) {
        self.listener.advance(steps);
    }

    fn status(&mut self, text: &str) {
        self.listener.status(text);
    }

    fn finish(&mut self) {
        self.listener.finish();
    }

    fn note(&mut self, text: &str) {
        self.listener.note(text);
    }

    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
        self.listener.warn(text);
    }
}
