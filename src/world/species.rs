use super::canvas::Rgb;

/// A kind of animal, or `empty`.
#[derive(Debug, PartialEq)]
pub struct Species {
    /// Name of its folder.
    pub name: &'static str,
    pub(super) form: Form,
}

/// How it is drawn.
#[derive(Debug, PartialEq)]
pub(super) enum Form {
    /// Nothing is there.
    Empty,
    /// On four legs.
    Quadruped(&'static Build),
    /// A large ground bird.
    Bird,
}

/// Proportions in units of the trunk's length, and colours.
#[derive(Debug, PartialEq)]
pub(super) struct Build {
    /// Length of the trunk as a fraction of the picture's width, at middle distance.
    pub(super) size: f32,
    /// Length of the legs.
    pub(super) leg: f32,
    /// Thickness of a leg at the ankle.
    pub(super) ankle: f32,
    /// Depth of the trunk at the chest, in the middle, at the rump.
    pub(super) trunk: [f32; 3],
    /// How far the back rises above a straight line in the middle.
    pub(super) hump: f32,
    /// Length and thickness of the neck, and its rise: 0 level, 1 upright.
    pub(super) neck: [f32; 3],
    /// Length and height of the skull.
    pub(super) skull: [f32; 2],
    /// Length and thickness at the tip of the snout.
    pub(super) snout: [f32; 2],
    pub(super) ears: Ears,
    pub(super) tail: Tail,
    pub(super) coat: Rgb,
    pub(super) belly: Rgb,
    pub(super) legs: Rgb,
    pub(super) marks: &'static [Mark],
}

/// Ears with their height and width.
#[derive(Debug, PartialEq)]
pub(super) enum Ears {
    Round(f32),
    Pointed(f32, f32),
    Tufted(f32, f32),
    Leaf(f32, f32),
}

/// Tails with their length.
#[derive(Debug, PartialEq)]
pub(super) enum Tail {
    Stub(Rgb),
    Thin(f32),
    Brush(f32, Rgb),
    Ringed(f32, f32),
}

/// What sets a species apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Antlers,
    Bristles,
    Collar,
    DarkTailTip,
    Mask,
    PaleBib,
    PaleMuzzle,
    PaleRump,
    Proboscis,
    Quills,
    Rosettes,
    Ruff,
    Saddle,
    Spots,
    StripedFace,
    Tusks,
}

const WHITE: Rgb = [0.92, 0.9, 0.86];
const BLACK: Rgb = [0.07, 0.065, 0.06];

/// Every species in the order of the names; `empty` is one of them.
pub static SPECIES: [Species; 14] = [
    quadruped("badger", &BADGER),
    quadruped("bear", &BEAR),
    Species { name: "bird", form: Form::Bird },
    quadruped("boar", &BOAR),
    quadruped("deer", &DEER),
    Species { name: "empty", form: Form::Empty },
    quadruped("fox", &FOX),
    quadruped("hare", &HARE),
    quadruped("lynx", &LYNX),
    quadruped("margay", &MARGAY),
    quadruped("peccary", &PECCARY),
    quadruped("porcupine", &PORCUPINE),
    quadruped("raccoon", &RACCOON),
    quadruped("tapir", &TAPIR),
];

impl Species {
    /// The species of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SPECIES.iter().find(|species| species.name == name)
    }

    /// A number that belongs to the name.
    pub(super) fn hash(&self) -> u64 {
        self.name.bytes().fold(0, |hash: u64, byte| hash.wrapping_mul(257) ^ u64::from(byte))
    }
}

const fn quadruped(name: &'static str, build: &'static Build) -> Species {
    Species { name, form: Form::Quadruped(build) }
}

static BADGER: Build = Build {
    size: 0.32,
    leg: 0.15,
    ankle: 0.1,
    trunk: [0.32, 0.36, 0.34],
    hump: 0.05,
    neck: [0.16, 0.24, 0.25],
    skull: [0.2, 0.17],
    snout: [0.16, 0.06],
    ears: Ears::Round(0.05),
    tail: Tail::Thin(0.16),
    coat: [0.46, 0.45, 0.43],
    belly: [0.16, 0.15, 0.14],
    legs: BLACK,
    marks: &[Mark::StripedFace],
};

static BEAR: Build = Build {
    size: 0.46,
    leg: 0.3,
    ankle: 0.17,
    trunk: [0.56, 0.54, 0.52],
    hump: 0.06,
    neck: [0.2, 0.36, 0.3],
    skull: [0.26, 0.27],
    snout: [0.14, 0.12],
    ears: Ears::Round(0.075),
    tail: Tail::Stub([0.22, 0.14, 0.09]),
    coat: [0.22, 0.14, 0.09],
    belly: [0.14, 0.09, 0.06],
    legs: [0.15, 0.1, 0.07],
    marks: &[Mark::PaleMuzzle],
};

static BOAR: Build = Build {
    size: 0.4,
    leg: 0.25,
    ankle: 0.07,
    trunk: [0.54, 0.48, 0.4],
    hump: 0.05,
    neck: [0.12, 0.42, 0.15],
    skull: [0.28, 0.28],
    snout: [0.24, 0.1],
    ears: Ears::Pointed(0.14, 0.1),
    tail: Tail::Thin(0.24),
    coat: [0.2, 0.17, 0.145],
    belly: [0.15, 0.13, 0.11],
    legs: [0.1, 0.09, 0.08],
    marks: &[Mark::Bristles, Mark::Tusks],
};

static DEER: Build = Build {
    size: 0.36,
    leg: 0.62,
    ankle: 0.05,
    trunk: [0.4, 0.34, 0.38],
    hump: 0.0,
    neck: [0.4, 0.17, 0.78],
    skull: [0.18, 0.14],
    snout: [0.14, 0.07],
    ears: Ears::Leaf(0.17, 0.08),
    tail: Tail::Stub(WHITE),
    coat: [0.56, 0.37, 0.21],
    belly: [0.74, 0.63, 0.48],
    legs: [0.46, 0.31, 0.19],
    marks: &[Mark::Antlers, Mark::PaleRump],
};

static FOX: Build = Build {
    size: 0.3,
    leg: 0.34,
    ankle: 0.05,
    trunk: [0.26, 0.22, 0.24],
    hump: 0.0,
    neck: [0.16, 0.15, 0.4],
    skull: [0.17, 0.15],
    snout: [0.15, 0.035],
    ears: Ears::Pointed(0.16, 0.11),
    tail: Tail::Brush(0.62, WHITE),
    coat: [0.76, 0.38, 0.13],
    belly: [0.85, 0.78, 0.7],
    legs: [0.14, 0.1, 0.08],
    marks: &[Mark::PaleBib],
};

static HARE: Build = Build {
    size: 0.22,
    leg: 0.24,
    ankle: 0.07,
    trunk: [0.34, 0.46, 0.52],
    hump: 0.12,
    neck: [0.12, 0.2, 0.7],
    skull: [0.2, 0.18],
    snout: [0.08, 0.09],
    ears: Ears::Leaf(0.42, 0.085),
    tail: Tail::Stub(WHITE),
    coat: [0.56, 0.46, 0.34],
    belly: [0.8, 0.76, 0.68],
    legs: [0.5, 0.41, 0.31],
    marks: &[],
};

static LYNX: Build = Build {
    size: 0.34,
    leg: 0.46,
    ankle: 0.1,
    trunk: [0.38, 0.34, 0.38],
    hump: 0.0,
    neck: [0.14, 0.22, 0.5],
    skull: [0.22, 0.22],
    snout: [0.06, 0.1],
    ears: Ears::Tufted(0.14, 0.1),
    tail: Tail::Thin(0.16),
    coat: [0.64, 0.55, 0.43],
    belly: [0.84, 0.8, 0.72],
    legs: [0.6, 0.52, 0.42],
    marks: &[Mark::Spots, Mark::Ruff, Mark::DarkTailTip],
};

static MARGAY: Build = Build {
    size: 0.3,
    leg: 0.3,
    ankle: 0.085,
    trunk: [0.28, 0.26, 0.28],
    hump: 0.0,
    neck: [0.14, 0.17, 0.4],
    skull: [0.18, 0.17],
    snout: [0.05, 0.08],
    ears: Ears::Round(0.065),
    tail: Tail::Ringed(0.8, 0.09),
    coat: [0.8, 0.62, 0.34],
    belly: [0.93, 0.87, 0.74],
    legs: [0.77, 0.6, 0.35],
    marks: &[Mark::Rosettes, Mark::DarkTailTip],
};

static PECCARY: Build = Build {
    size: 0.32,
    leg: 0.27,
    ankle: 0.055,
    trunk: [0.44, 0.44, 0.42],
    hump: 0.04,
    neck: [0.1, 0.36, 0.15],
    skull: [0.24, 0.26],
    snout: [0.2, 0.1],
    ears: Ears::Pointed(0.08, 0.07),
    tail: Tail::Stub([0.3, 0.28, 0.26]),
    coat: [0.37, 0.35, 0.33],
    belly: [0.3, 0.28, 0.26],
    legs: [0.22, 0.2, 0.19],
    marks: &[Mark::Collar],
};

static PORCUPINE: Build = Build {
    size: 0.27,
    leg: 0.13,
    ankle: 0.09,
    trunk: [0.3, 0.36, 0.32],
    hump: 0.08,
    neck: [0.1, 0.22, 0.2],
    skull: [0.17, 0.16],
    snout: [0.1, 0.08],
    ears: Ears::Round(0.035),
    tail: Tail::Stub(BLACK),
    coat: [0.17, 0.14, 0.12],
    belly: [0.12, 0.1, 0.09],
    legs: BLACK,
    marks: &[Mark::Quills],
};

static RACCOON: Build = Build {
    size: 0.28,
    leg: 0.22,
    ankle: 0.07,
    trunk: [0.34, 0.4, 0.42],
    hump: 0.1,
    neck: [0.12, 0.2, 0.25],
    skull: [0.2, 0.18],
    snout: [0.11, 0.05],
    ears: Ears::Round(0.065),
    tail: Tail::Ringed(0.52, 0.14),
    coat: [0.5, 0.47, 0.43],
    belly: [0.6, 0.57, 0.52],
    legs: [0.24, 0.22, 0.2],
    marks: &[Mark::Mask],
};

static TAPIR: Build = Build {
    size: 0.44,
    leg: 0.34,
    ankle: 0.11,
    trunk: [0.5, 0.5, 0.5],
    hump: 0.04,
    neck: [0.2, 0.32, 0.3],
    skull: [0.24, 0.22],
    snout: [0.14, 0.1],
    ears: Ears::Round(0.06),
    tail: Tail::Stub(BLACK),
    coat: [0.1, 0.1, 0.11],
    belly: [0.12, 0.12, 0.12],
    legs: BLACK,
    marks: &[Mark::Saddle, Mark::Proboscis],
};
