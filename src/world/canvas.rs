use super::{HEIGHT, WIDTH};
use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, Transform};

/// Red, green, blue, each 0 to 1.
pub(super) type Rgb = [f32; 3];

/// A point or a step.
pub(super) type Point = (f32, f32);

/// A transparent picture to draw smooth shapes on.
pub(super) struct Canvas {
    pub(super) pixels: Pixmap,
    at: Transform,
}

impl Canvas {
    /// A transparent canvas of the size of a photo.
    pub(super) fn new() -> Self {
        let pixels = Pixmap::new(WIDTH, HEIGHT).expect("the size of a photo is not zero");
        Self { pixels, at: Transform::identity() }
    }

    /// Draws with the origin moved to `to`, then stretched, then turned (see [`turn`]).
    pub(super) fn placed<R>(
        &mut self,
        to: Point,
        stretch: Point,
        turn: f32,
        draw: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let before = self.at;
        let (cos, sin) = rotation(turn);
        self.at = before
            .pre_translate(to.0, to.1)
            .pre_scale(stretch.0, stretch.1)
            .pre_concat(Transform::from_row(cos, sin, -sin, cos, 0.0, 0.0));
        let result = draw(self);
        self.at = before;
        result
    }

    /// Fills an ellipse with radii `r` around `c`.
    pub(super) fn ellipse(&mut self, c: Point, r: Point, colour: Rgb, alpha: f32) {
        let rect = tiny_skia::Rect::from_ltrb(c.0 - r.0, c.1 - r.1, c.0 + r.0, c.1 + r.1);
        self.fill(rect.and_then(PathBuilder::from_oval), colour, alpha);
    }

    /// Fills a circle.
    pub(super) fn dot(&mut self, c: Point, r: f32, colour: Rgb) {
        self.ellipse(c, (r, r), colour, 1.0);
    }

    /// Fills a polygon.
    pub(super) fn polygon(&mut self, points: &[Point], colour: Rgb, alpha: f32) {
        let mut path = PathBuilder::new();
        for (i, p) in points.iter().enumerate() {
            if i == 0 { path.move_to(p.0, p.1) } else { path.line_to(p.0, p.1) }
        }
        path.close();
        self.fill(path.finish(), colour, alpha);
    }

    /// Fills the closed smooth curve that touches the middle of every edge of a polygon.
    pub(super) fn smooth(&mut self, points: &[Point], colour: Rgb, alpha: f32) {
        let n = points.len();
        let middle = |i: usize| {
            let (a, b) = (points[i % n], points[(i + 1) % n]);
            (f32::midpoint(a.0, b.0), f32::midpoint(a.1, b.1))
        };
        let mut path = PathBuilder::new();
        path.move_to(middle(n - 1).0, middle(n - 1).1);
        for (i, p) in points.iter().enumerate() {
            let to = middle(i);
            path.quad_to(p.0, p.1, to.0, to.1);
        }
        path.close();
        self.fill(path.finish(), colour, alpha);
    }

    /// A limb: from `a` with width `wa` to `b` with width `wb`, round at both ends.
    pub(super) fn limb(&mut self, a: Point, wa: f32, b: Point, wb: f32, colour: Rgb) {
        let (dx, dy) = (b.0 - a.0, b.1 - a.1);
        let length = (dx * dx + dy * dy).sqrt().max(1e-6);
        let (nx, ny) = (-dy / length / 2.0, dx / length / 2.0);
        self.dot(a, wa / 2.0, colour);
        self.dot(b, wb / 2.0, colour);
        let quad = [
            (a.0 + nx * wa, a.1 + ny * wa),
            (b.0 + nx * wb, b.1 + ny * wb),
            (b.0 - nx * wb, b.1 - ny * wb),
            (a.0 - nx * wa, a.1 - ny * wa),
        ];
        self.polygon(&quad, colour, 1.0);
    }

    /// A pointed blade or hair from `a`, `width` wide at its root, to the point `b`.
    pub(super) fn blade(&mut self, a: Point, width: f32, b: Point, colour: Rgb) {
        self.polygon(&[(a.0 - width / 2.0, a.1), (a.0 + width / 2.0, a.1), b], colour, 1.0);
    }

    fn fill(&mut self, path: Option<Path>, colour: Rgb, alpha: f32) {
        let Some(path) = path else { return };
        let [r, g, b] = colour.map(|v| v.clamp(0.0, 1.0));
        let mut paint = Paint::default();
        paint.set_color(Color::from_rgba(r, g, b, alpha.clamp(0.0, 1.0)).unwrap_or(Color::BLACK));
        self.pixels.fill_path(&path, &paint, FillRule::Winding, self.at, None);
    }
}

/// Cosine and sine of the angle whose half has tangent `t`: rational, so that no libm is asked.
fn rotation(t: f32) -> (f32, f32) {
    let scale = 1.0 + t * t;
    ((1.0 - t * t) / scale, 2.0 * t / scale)
}

/// `colour · factor`.
pub(super) fn shade(colour: Rgb, factor: f32) -> Rgb {
    colour.map(|v| v * factor)
}

/// `a · (1 − t) + b · t`.
pub(super) fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [0, 1, 2].map(|i| a[i] * (1.0 - t) + b[i] * t)
}
