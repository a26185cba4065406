//! Animals, drawn from the side in units of the trunk's length: feet on `y = 0`, head at positive `x`.

use super::canvas::{Canvas, Point, Rgb, mix, shade};
use super::draw::Draw;
use super::species::{Build, Ears, Form, Mark, Tail};

const DARK: Rgb = [0.07, 0.065, 0.06];
const PALE: Rgb = [0.93, 0.91, 0.87];

/// Where eyes shine back into the flash, in units of the trunk.
pub(super) type Eyes = Vec<Point>;

/// Draws an animal in a random pose and says where its eyes are.
pub(super) fn draw(canvas: &mut Canvas, form: &Form, draw: &mut Draw) -> Eyes {
    match form {
        Form::Empty => Vec::new(),
        Form::Quadruped(build) => Pose::new(build, draw).draw(canvas, draw),
        Form::Bird => bird(canvas, draw),
    }
}

struct Pose<'a> {
    build: &'a Build,
    coat: Rgb,
    belly: Rgb,
    stride: f32,
    lift: f32,
    nod: f32,
    tail: f32,
    antlers: bool,
}

impl<'a> Pose<'a> {
    fn new(build: &'a Build, draw: &mut Draw) -> Self {
        let tint = draw.range(0.82, 1.18);
        let grey = draw.range(0.0, 0.2);
        let mean = build.coat.iter().sum::<f32>() / 3.0;
        let grazing = draw.chance(0.25);
        Self {
            build,
            coat: shade(mix(build.coat, [mean; 3], grey), tint),
            belly: shade(build.belly, tint),
            stride: draw.range(-1.0, 1.0),
            lift: if grazing { draw.range(-1.3, -0.7) } else { draw.range(-0.25, 0.2) },
            nod: if grazing { draw.range(-0.45, -0.25) } else { draw.range(-0.22, 0.04) },
            tail: draw.range(-1.0, 1.0),
            antlers: draw.chance(0.65),
        }
    }

    fn has(&self, mark: Mark) -> bool {
        self.build.marks.contains(&mark)
    }

    fn chest(&self) -> Point {
        (0.36, self.build.leg + 0.6 * self.build.trunk[0])
    }

    fn poll(&self) -> Point {
        let [length, _, rise] = self.build.neck;
        let rise: f32 = (rise + self.lift).clamp(-0.95, 0.95);
        let from = self.chest();
        (from.0 + length * f32::sqrt(1.0 - rise * rise), from.1 + 0.1 * self.build.trunk[0] + length * rise)
    }

    fn draw(&self, canvas: &mut Canvas, draw: &mut Draw) -> Eyes {
        self.legs(canvas, -1.0);
        self.tail(canvas);
        self.trunk(canvas);
        self.coat_marks(canvas, draw);
        self.legs(canvas, 1.0);
        self.neck(canvas);
        let poll = self.poll();
        canvas.placed(poll, (1.0, 1.0), self.nod, |canvas| self.head(canvas));
        if self.has(Mark::Quills) {
            self.quills(canvas, draw);
        }
        let [length, height]: [f32; 2] = self.build.skull;
        vec![(poll.0 + 0.55 * length, poll.1 + 0.15 * height)]
    }

    fn legs(&self, canvas: &mut Canvas, side: f32) {
        let build = self.build;
        let dark = if side < 0.0 { 0.66 } else { 0.95 };
        let (upper, lower) = (shade(mix(self.coat, build.legs, 0.35), dark), shade(build.legs, dark));
        for (x, depth, phase, bend) in
            [(0.33, build.trunk[0], 1.0, 0.03), (-0.37, build.trunk[2], -0.8, -0.06)]
        {
            let swing = self.stride * phase * side * 0.3 * build.leg + 0.02 * side;
            let hip = (x, build.leg + 0.35 * depth);
            let knee = (x + 0.5 * swing + bend, 0.5 * build.leg);
            let foot = (x + swing, 0.5 * build.ankle);
            canvas.limb(hip, 0.42 * depth + build.ankle, knee, 1.25 * build.ankle, upper);
            canvas.limb(knee, 1.25 * build.ankle, foot, build.ankle, lower);
            canvas.ellipse(
                (foot.0 + 0.3 * build.ankle, foot.1),
                (0.75 * build.ankle, 0.45 * build.ankle),
                lower,
                1.0,
            );
        }
    }

    fn trunk(&self, canvas: &mut Canvas) {
        let Build { leg, trunk: [chest, middle, rump], hump, .. } = *self.build;
        let belly = leg - 0.04;
        let top = leg + chest.max(middle).max(rump);
        let outline = [
            (-0.6, leg + 0.5 * rump),
            (-0.54, leg + rump * 1.05),
            (-0.25, leg + rump.max(middle) + hump),
            (0.08, leg + middle + 1.2 * hump),
            (0.34, leg + chest * 1.12),
            (0.55, leg + chest * 0.95),
            (0.58, leg + chest * 0.4),
            (0.42, leg - 0.08 * chest),
            (0.1, belly + 0.01),
            (-0.2, belly + chest - middle.min(chest)),
            (-0.46, leg - 0.05 * rump),
        ];
        canvas.smooth(&outline, self.coat, 1.0);
        let light: Vec<Point> = outline.iter().map(|p| (p.0 * 0.86, belly + (p.1 - belly) * 0.42)).collect();
        canvas.smooth(&light, self.belly, 0.75);
        let back: Vec<Point> = outline.iter().map(|p| (p.0 * 0.8, top - (top - p.1) * 0.35 - 0.04)).collect();
        canvas.smooth(&back, shade(self.coat, 1.12), 0.4);
        if self.has(Mark::PaleRump) {
            canvas.ellipse((-0.5, leg + 0.62 * rump), (0.09, 0.13), PALE, 0.95);
        }
    }

    fn neck(&self, canvas: &mut Canvas) {
        let [_, thick, _] = self.build.neck;
        let (chest, poll) = (self.chest(), self.poll());
        let skull = self.build.skull;
        let end = (poll.0 + 0.3 * skull[0], poll.1);
        canvas.limb(chest, thick * 1.25, end, (thick * 0.85).min(skull[1]), self.coat);
        if self.has(Mark::PaleBib) {
            canvas.limb((0.5, chest.1 - 0.06), 0.09, (end.0, end.1 - 0.05), 0.08, PALE);
        }
        if self.has(Mark::Collar) {
            canvas.limb(
                (0.28, self.build.leg + 0.98 * self.build.trunk[0]),
                0.05,
                (0.48, self.build.leg + 0.1),
                0.07,
                PALE,
            );
        }
    }

    fn tail(&self, canvas: &mut Canvas) {
        let root = (-0.47, self.build.leg + 0.78 * self.build.trunk[2]);
        let tip_colour = if self.has(Mark::DarkTailTip) { DARK } else { self.coat };
        match self.build.tail {
            Tail::Stub(colour) => canvas.ellipse((root.0 - 0.06, root.1 + 0.02), (0.075, 0.06), colour, 1.0),
            Tail::Thin(length) => {
                let tip = (root.0 - 0.6 * length, root.1 - (0.4 - 0.7 * self.tail) * length);
                canvas.limb(root, 0.06, tip, 0.05, self.coat);
                canvas.dot(tip, 0.04, tip_colour);
            }
            Tail::Brush(length, tip) => {
                let drop = (0.75 - 0.55 * self.tail) * length;
                let (mid, end) = (
                    (root.0 - 0.5 * length, root.1 - 0.4 * drop),
                    (root.0 - 0.85 * length, root.1 - 0.8 * drop),
                );
                canvas.limb(root, 0.08, mid, 0.2, self.coat);
                canvas.limb(mid, 0.2, end, 0.13, self.coat);
                canvas.limb(end, 0.14, (end.0 - 0.12 * length, end.1 - 0.12 * drop), 0.05, tip);
            }
            Tail::Ringed(length, width) => self.ringed_tail(canvas, root, length, width, tip_colour),
        }
    }

    fn ringed_tail(&self, canvas: &mut Canvas, root: Point, length: f32, width: f32, tip: Rgb) {
        let at = |t: f32| {
            let sag = (1.6 * t - (1.1 + 0.7 * self.tail) * t * t) * 0.6;
            (root.0 - 0.85 * length * t, root.1 - sag * length)
        };
        for ring in 0..9_u8 {
            let (a, b) = (f32::from(ring) / 9.0, f32::from(ring + 1) / 9.0);
            let colour = if ring == 8 {
                tip
            } else if ring % 2 == 1 {
                DARK
            } else {
                self.coat
            };
            canvas.limb(at(a), width, at(b), width, colour);
        }
    }

    fn coat_marks(&self, canvas: &mut Canvas, draw: &mut Draw) {
        let Build { leg, trunk: [chest, middle, rump], .. } = *self.build;
        if self.has(Mark::Saddle) {
            let saddle = [
                (-0.5, leg + 0.15),
                (-0.48, leg + 1.1 * rump),
                (-0.05, leg + middle * 1.2),
                (0.14, leg + middle),
                (0.02, leg),
                (-0.3, leg - 0.02),
            ];
            canvas.smooth(&saddle, [0.87, 0.86, 0.84], 1.0);
        }
        if self.has(Mark::Bristles) {
            for i in 0..14_u8 {
                let t = f32::from(i) / 13.0;
                let root = (-0.3 + 0.75 * t, leg + middle * (1.0 - t) + chest * 0.93 * t + 0.02);
                canvas.blade(root, 0.07, (root.0 - 0.07, root.1 + 0.05 + 0.07 * t), shade(self.coat, 0.55));
            }
        }
        let (count, ring) = match (self.has(Mark::Rosettes), self.has(Mark::Spots)) {
            (true, _) => (34, true),
            (_, true) => (30, false),
            _ => return,
        };
        for i in 0..count {
            let x = -0.46 + 0.9 * i as f32 / count as f32;
            let y = leg + draw.range(0.16, 0.94) * middle;
            let r = draw.range(0.02, 0.03) * if ring { 1.35 } else { 0.8 };
            canvas.ellipse((x, y), (1.35 * r, r), shade(self.coat, 0.22), 0.95);
            if ring {
                canvas.ellipse((x, y), (0.6 * r, 0.4 * r), shade(self.coat, 0.75), 1.0);
            }
        }
    }

    fn quills(&self, canvas: &mut Canvas, draw: &mut Draw) {
        let Build { leg, trunk, .. } = *self.build;
        for i in 0..90 {
            let t = i as f32 / 89.0;
            let (x, y) = (0.34 - 0.9 * t, leg + trunk[1] * draw.range(0.3, 1.0));
            let long = draw.range(0.16, 0.34) * (0.6 + 0.7 * t);
            let tip = (x - long * (0.65 + 0.35 * t), y + long * (0.9 - 0.7 * t));
            let middle = (f32::midpoint(x, tip.0), f32::midpoint(y, tip.1));
            canvas.blade((x, y), 0.035, tip, [0.86, 0.83, 0.75]);
            canvas.limb((x, y), 0.03, middle, 0.02, DARK);
        }
    }

    /// The head, with the origin where the neck meets it.
    fn head(&self, canvas: &mut Canvas) {
        let [length, height]: [f32; 2] = self.build.skull;
        let [snout, tip]: [f32; 2] = self.build.snout;
        let face = self.face_colour();
        self.ears(canvas, 0.7);
        if self.has(Mark::Antlers) && self.antlers {
            antlers(canvas, (0.3 * length, 0.45 * height));
        }
        let end = (length + snout - tip / 2.0, -0.14 * height);
        let muzzle = if self.has(Mark::PaleMuzzle) { mix(self.coat, PALE, 0.45) } else { face };
        canvas.limb((0.6 * length, -0.03 * height), 0.75 * height, end, tip, muzzle);
        canvas.ellipse((0.5 * length, 0.0), (0.56 * length, 0.52 * height), face, 1.0);
        self.face_marks(canvas, end);
        self.ears(canvas, 1.0);
        canvas.dot((end.0 + 0.35 * tip, end.1 + 0.12 * tip), f32::max(0.34 * tip, 0.022), DARK);
        let eye = (0.62 * length, 0.14 * height);
        canvas.dot(eye, f32::max(0.09 * height, 0.018), DARK);
    }

    fn face_colour(&self) -> Rgb {
        if self.has(Mark::StripedFace) { PALE } else { shade(self.coat, 1.05) }
    }

    fn face_marks(&self, canvas: &mut Canvas, end: Point) {
        let [length, height]: [f32; 2] = self.build.skull;
        let tip = self.build.snout[1];
        if self.has(Mark::StripedFace) {
            canvas.limb((-0.1 * length, 0.16 * height), 0.24 * height, (end.0, end.1 + 0.02), 0.04, DARK);
        }
        if self.has(Mark::Mask) {
            canvas.ellipse((0.6 * length, 0.36 * height), (0.42 * length, 0.12 * height), PALE, 1.0);
            canvas.ellipse((0.62 * length, 0.06 * height), (0.4 * length, 0.2 * height), DARK, 1.0);
            canvas.limb((0.85 * length, -0.22 * height), 0.08, (end.0 - 0.02, end.1 - 0.02), 0.05, PALE);
        }
        if self.has(Mark::PaleBib) {
            canvas.limb((0.5 * length, -0.28 * height), 0.06, (end.0 - 0.02, end.1 - 0.03), 0.03, PALE);
        }
        if self.has(Mark::Ruff) {
            canvas.polygon(
                &[(0.1 * length, -0.1), (0.6 * length, -0.08), (0.22 * length, -0.75 * height)],
                PALE,
                1.0,
            );
        }
        if self.has(Mark::Tusks) {
            canvas.blade((end.0 - 0.1, end.1 - 0.03), 0.035, (end.0 - 0.06, end.1 + 0.08), PALE);
        }
        if self.has(Mark::Proboscis) {
            canvas.limb(end, tip, (end.0 + 0.05, end.1 - 0.14), 0.6 * tip, self.coat);
        }
    }

    fn ears(&self, canvas: &mut Canvas, light: f32) {
        let [length, height]: [f32; 2] = self.build.skull;
        let root = (0.22 * length + if light < 1.0 { 0.07 } else { 0.0 }, 0.36 * height);
        let colour = shade(self.coat, light);
        match self.build.ears {
            Ears::Round(r) => {
                canvas.dot((root.0, root.1 + 0.6 * r), r, colour);
                canvas.dot((root.0, root.1 + 0.6 * r), 0.55 * r, shade(colour, 0.6));
            }
            Ears::Pointed(h, w) | Ears::Tufted(h, w) => {
                let tip = (root.0 - 0.2 * h, root.1 + h);
                canvas.polygon(
                    &[(root.0 - w / 2.0, root.1 - 0.03), (root.0 + w / 2.0, root.1 - 0.03), tip],
                    colour,
                    1.0,
                );
                if matches!(self.build.ears, Ears::Tufted(..)) {
                    canvas.blade((tip.0, tip.1 - 0.05), 0.05, (tip.0 - 0.03, tip.1 + 0.1), DARK);
                }
            }
            Ears::Leaf(h, w) => {
                let lean = -0.45 * h;
                let leaf = [
                    (root.0 + 0.4 * w, root.1 - 0.05),
                    (root.0 + lean + w, root.1 + 0.7 * h),
                    (root.0 + lean, root.1 + 1.15 * h),
                    (root.0 + lean - 0.5 * w, root.1 + 0.6 * h),
                    (root.0 - 0.5 * w, root.1),
                ];
                canvas.smooth(&leaf, colour, 1.0);
            }
        }
    }
}

fn antlers(canvas: &mut Canvas, root: Point) {
    let bone = [0.62, 0.52, 0.38];
    for (lean, light) in [(0.1, 0.7), (0.0, 1.0)] {
        let colour = shade(bone, light);
        let at = |x: f32, y: f32| (root.0 + lean + x, root.1 + y);
        canvas.limb(at(0.0, 0.0), 0.045, at(-0.12, 0.2), 0.04, colour);
        canvas.limb(at(-0.12, 0.2), 0.04, at(-0.06, 0.42), 0.025, colour);
        canvas.limb(at(-0.06, 0.1), 0.03, at(0.09, 0.22), 0.02, colour);
        canvas.limb(at(-0.12, 0.22), 0.03, at(0.06, 0.34), 0.02, colour);
    }
}

fn bird(canvas: &mut Canvas, draw: &mut Draw) -> Eyes {
    let tint = draw.range(0.8, 1.2);
    let body = shade([0.2, 0.17, 0.14], tint);
    let (stride, pecking) = (draw.range(-0.12, 0.12), draw.chance(0.3));
    let leg = [0.6, 0.42, 0.3];
    for (x, swing) in [(-0.02, -stride), (0.08, stride)] {
        canvas.limb((x, 0.45), 0.08, (x + swing, 0.03), 0.045, leg);
        canvas.limb((x + swing, 0.03), 0.04, (x + swing + 0.12, 0.02), 0.03, leg);
    }
    for i in 0..5_u8 {
        let spread = f32::from(i) * 0.06;
        let tip = (-0.86 + 0.5 * spread, 0.5 + 1.2 * spread + 0.1 * draw.unit());
        canvas.limb((-0.3, 0.58), 0.09, tip, 0.12, shade(body, 0.8 + 0.2 * f32::from(i % 2)));
        canvas.dot(tip, 0.065, [0.62, 0.45, 0.25]);
    }
    canvas.ellipse((0.0, 0.6), (0.42, 0.27), body, 1.0);
    canvas.ellipse((-0.08, 0.63), (0.28, 0.15), shade([0.36, 0.26, 0.17], tint), 1.0);
    for i in 0..4_u8 {
        let x = -0.3 + 0.12 * f32::from(i);
        canvas.limb((x, 0.56), 0.025, (x + 0.05, 0.7), 0.02, PALE);
    }
    let head = if pecking { (0.58, 0.3) } else { (0.46, 1.12) };
    let crop = (0.32, 0.7);
    canvas.limb(crop, 0.26, head, 0.1, mix(body, [0.35, 0.4, 0.6], 0.4));
    canvas.dot(head, 0.085, [0.72, 0.16, 0.12]);
    canvas.limb(
        (head.0 + 0.04, head.1 - 0.06),
        0.05,
        (head.0 + 0.05, head.1 - 0.17),
        0.04,
        [0.75, 0.12, 0.1],
    );
    canvas.blade((head.0 + 0.07, head.1 - 0.03), 0.03, (head.0 + 0.19, head.1 - 0.02), [0.8, 0.65, 0.3]);
    vec![(head.0 + 0.03, head.1 + 0.02)]
}
