//! What happens between the place and the file: light, lens, sensor and the info strip.

use image::{Rgb as Pixel, RgbImage};

use super::animal;
use super::canvas::{Canvas, Point, Rgb, mix, shade};
use super::draw::{Draw, noise};
use super::scene::{Scene, tuft};
use super::species::{Form, Species};
use super::{HEIGHT, WIDTH};

/// What belongs to a camera besides its place.
#[derive(Clone)]
pub(super) struct Lens {
    gain: Rgb,
    contrast: f32,
    blur: bool,
    sensor_noise: f32,
    /// Where the infrared flash points.
    flash: Point,
    strip: Strip,
}

#[derive(Clone, Copy, PartialEq)]
enum Strip {
    None,
    Black,
    White,
}

impl Lens {
    pub(super) fn new(seed: u64, camera: u32) -> Self {
        let mut draw = Draw::new(&[seed, 2, u64::from(camera)]);
        Self {
            gain: [draw.range(0.88, 1.12), draw.range(0.94, 1.06), draw.range(0.86, 1.12)],
            contrast: draw.range(0.85, 1.2),
            blur: draw.chance(0.35),
            sensor_noise: draw.range(0.008, 0.03),
            flash: (draw.range(0.38, 0.62), draw.range(0.5, 0.68)),
            strip: draw.pick(&[Strip::None, Strip::Black, Strip::Black, Strip::White]),
        }
    }
}

/// Takes one photo.
pub(super) fn take(scene: &Scene, lens: &Lens, species: &Species, draw: &mut Draw) -> RgbImage {
    let night = draw.chance(0.45);
    let mut place = Canvas::new();
    place.pixels.data_mut().copy_from_slice(scene.canvas.pixels.data());
    let mut layer = Canvas::new();
    let spot = Spot::new(species, scene, draw);
    let eyes = spot.draw_animal(&mut layer, &species.form, draw);
    let blur = if draw.chance(0.3) { draw.count(2, if night { 8 } else { 5 }) } else { 1 };
    smear(&mut layer, blur);
    if species.form != Form::Empty && !night {
        let c = (spot.foot.0, spot.foot.1 + 0.5);
        place.ellipse(c, (0.6 * spot.scale, 0.11 * spot.scale), [0.03, 0.03, 0.02], 0.4);
    }
    let rough = draw.next();
    let lit = |p: Rgb, alpha: f32, at: Point| coat_light(p, alpha, at, &spot, rough, night);
    blend(&mut place, &layer, lit);
    clutter(&mut place, scene, &spot, species, draw);
    let mut light = read(&place);
    if night {
        flash(&mut light, &layer, lens, scene, &eyes, draw);
    } else {
        daylight(&mut light, scene, draw);
    }
    develop(&mut light, lens, night, draw);
    let mut photo = quantise(&light);
    strip(&mut photo, lens.strip, night, draw);
    photo
}

/// What a frame of a burst hangs on.
pub(super) struct Draws {
    /// Clutter and light.
    pub(super) camera: Draw,
    /// The animal, its place and its pose.
    pub(super) burst: Draw,
    /// Its step, and noise.
    pub(super) frame: Draw,
}

/// How large animals are in the photos of a burst, beside other photos.
const SMALL: f32 = 0.6;

/// Takes one frame of a burst, in infrared.
pub(super) fn frame(scene: &Scene, lens: &Lens, species: &Species, draws: Draws) -> RgbImage {
    let Draws { mut camera, mut burst, mut frame } = draws;
    let mut place = Canvas::new();
    place.pixels.data_mut().copy_from_slice(scene.canvas.pixels.data());
    let mut layer = Canvas::new();
    let mut spot = Spot::new(species, scene, &mut burst);
    spot.scale *= SMALL;
    spot.foot.0 += frame.range(-1.5, 1.5);
    let eyes = spot.draw_animal(&mut layer, &species.form, &mut burst);
    let rough = burst.next();
    blend(&mut place, &layer, |p, alpha, at| coat_light(p, alpha, at, &spot, rough, true));
    let nobody = Species { name: "empty", form: Form::Empty };
    clutter(&mut place, scene, &spot, &nobody, &mut camera);
    let mut light = read(&place);
    flash(&mut light, &layer, lens, scene, &eyes, &mut camera);
    develop(&mut light, lens, true, &mut frame);
    let mut photo = quantise(&light);
    strip(&mut photo, lens.strip, true, &mut burst);
    photo
}

/// Where the animal stands and how large it is there.
struct Spot {
    foot: Point,
    scale: f32,
    flip: f32,
    turned: f32,
    tilt: f32,
}

impl Spot {
    fn new(species: &Species, scene: &Scene, draw: &mut Draw) -> Self {
        let size = match &species.form {
            Form::Empty => 0.3,
            Form::Quadruped(build) => build.size,
            Form::Bird => 0.25,
        };
        let near = draw.range(0.0, 1.0);
        let scale = size * (0.78 + 0.62 * near) * WIDTH as f32;
        let bottom = scene.horizon.max(0.42 * HEIGHT as f32);
        let y = bottom + (0.2 + 0.68 * near) * (0.93 * HEIGHT as f32 - bottom);
        let edge = 0.45 * scale;
        Self {
            foot: (draw.range(edge, WIDTH as f32 - edge), y + draw.range(-3.0, 3.0)),
            scale,
            flip: draw.pick(&[-1.0, 1.0]),
            turned: draw.range(0.72, 1.0),
            tilt: draw.range(-0.05, 0.05),
        }
    }

    fn draw_animal(&self, layer: &mut Canvas, form: &Form, draw: &mut Draw) -> Vec<Point> {
        let stretch = (self.scale * self.flip * self.turned, -self.scale);
        let eyes = layer.placed(self.foot, stretch, self.tilt, |canvas| animal::draw(canvas, form, draw));
        eyes.into_iter().map(|e| (self.foot.0 + e.0 * stretch.0, self.foot.1 + e.1 * stretch.1)).collect()
    }
}

/// Spreads every pixel over `width` columns: the animal moved while the shutter was open.
fn smear(layer: &mut Canvas, width: usize) {
    if width < 2 {
        return;
    }
    let (columns, source) = (WIDTH as usize, layer.pixels.data().to_vec());
    for (i, out) in layer.pixels.data_mut().iter_mut().enumerate() {
        let (x, rest) = (i / 4 % columns, i - i / 4 % columns * 4);
        let from = x.saturating_sub(width / 2);
        let to = (from + width).min(columns);
        let sum: usize = (from..to).map(|x| usize::from(source[rest + 4 * x])).sum();
        *out = (sum / width) as u8;
    }
}

/// Light from above and rough fur.
fn coat_light(p: Rgb, alpha: f32, at: Point, spot: &Spot, rough: u64, night: bool) -> Rgb {
    let height = (spot.foot.1 - at.1) / spot.scale;
    let from_above = if night { 0.95 } else { 0.72 + 0.42 * height.clamp(0.0, 1.0) };
    let fur = 0.84 + 0.32 * noise(rough, at.0 / 1.6, at.1 / 1.2);
    if night {
        // Infrared makes coats pale and takes their colour.
        let grey = (p[0] + p[1] + p[2]) / 3.0;
        return [(0.16 * alpha + 0.8 * grey) * fur; 3];
    }
    shade(p, from_above * fur)
}

fn blend(place: &mut Canvas, layer: &Canvas, lit: impl Fn(Rgb, f32, Point) -> Rgb) {
    let source = layer.pixels.data();
    for (i, out) in place.pixels.data_mut().chunks_exact_mut(4).enumerate() {
        let p = &source[4 * i..4 * i + 4];
        if p[3] == 0 {
            continue;
        }
        let at = ((i % WIDTH as usize) as f32, (i / WIDTH as usize) as f32);
        let alpha = f32::from(p[3]) / 255.0;
        let colour = lit([p[0], p[1], p[2]].map(|v| f32::from(v) / 255.0), alpha, at);
        for (o, v) in out.iter_mut().zip(colour) {
            *o = ((f32::from(*o) / 255.0 * (1.0 - alpha) + v).clamp(0.0, 1.0) * 255.0) as u8;
        }
    }
}

/// Grass, stems and leaves in front of the animal.
fn clutter(place: &mut Canvas, scene: &Scene, spot: &Spot, species: &Species, draw: &mut Draw) {
    let (w, h) = (WIDTH as f32, HEIGHT as f32);
    let around = if species.form == Form::Empty { 0 } else { draw.count(2, 12) };
    for _ in 0..around {
        let x = spot.foot.0 + draw.range(-0.7, 0.7) * spot.scale;
        tuft(place, (x, spot.foot.1 + 2.0), 0.2 * spot.scale, shade(scene.grass, draw.range(0.7, 1.1)), draw);
    }
    for _ in 0..draw.count(0, 9) {
        let colour = shade(scene.grass, draw.range(0.5, 1.0));
        tuft(place, (draw.range(0.0, w), h + 2.0), draw.range(0.1, 0.26) * h, colour, draw);
    }
    if draw.chance(0.22) {
        let x = draw.range(0.0, w);
        let width = draw.range(3.0, 13.0);
        let bark = shade([0.27, 0.22, 0.18], draw.range(0.6, 1.4));
        let lean = draw.range(-14.0, 14.0);
        place.limb((x, h + 5.0), width * 1.2, (x + lean, -5.0), width, bark);
        place.limb(
            (x - 0.3 * width, h + 5.0),
            width * 0.3,
            (x + lean - 0.25 * width, -5.0),
            width * 0.2,
            shade(bark, 1.3),
        );
    }
    if draw.chance(0.18) {
        let root = (draw.pick(&[-3.0, w + 3.0]), draw.range(0.0, 0.8) * h);
        for _ in 0..4 {
            let tip = (root.0 + (w / 2.0 - root.0) * draw.range(0.15, 0.5), root.1 + draw.range(-18.0, 26.0));
            let side = (f32::midpoint(tip.0, root.0), f32::midpoint(tip.1, root.1) - draw.range(4.0, 9.0));
            let under = (side.0, side.1 + draw.range(9.0, 16.0));
            place.smooth(&[root, side, tip, under], shade(scene.grass, draw.range(0.5, 0.9)), 0.95);
        }
    }
}

type Light = Vec<Rgb>;

fn read(place: &Canvas) -> Light {
    let pixels = place.pixels.data().chunks_exact(4);
    pixels.map(|p| [p[0], p[1], p[2]].map(|v| f32::from(v) / 255.0)).collect()
}

fn daylight(light: &mut Light, scene: &Scene, draw: &mut Draw) {
    let exposure = draw.range(0.68, 1.22);
    let warm = draw.range(-0.08, 0.12);
    let tint = [1.0 + warm, 1.0, 1.0 - warm];
    let (dapple, seed) = (if draw.chance(0.4) { draw.range(0.2, 0.6) } else { 0.0 }, draw.next());
    let fog = if draw.chance(0.15) { draw.range(0.15, 0.5) } else { 0.0 };
    for (i, p) in light.iter_mut().enumerate() {
        let (x, y) = ((i % WIDTH as usize) as f32, (i / WIDTH as usize) as f32);
        let patch = 1.0 + dapple * (6.0 * noise(seed, x / 13.0, y / 8.0) - 3.3).clamp(0.0, 1.0);
        let far = (1.0 - (y - scene.horizon) / HEIGHT as f32).clamp(0.4, 1.0);
        let seen = [0, 1, 2].map(|c| p[c] * tint[c] * exposure * patch);
        *p = mix(seen, [0.78, 0.8, 0.82], fog * far);
    }
}

/// Infrared light from the camera: grey, bright in the middle and near, black far away.
fn flash(light: &mut Light, layer: &Canvas, lens: &Lens, scene: &Scene, eyes: &[Point], draw: &mut Draw) {
    let power = draw.range(0.9, 1.5);
    let reach = draw.range(1.2, 2.6);
    let (w, h) = (WIDTH as f32, HEIGHT as f32);
    for (i, p) in light.iter_mut().enumerate() {
        let (x, y) = ((i % WIDTH as usize) as f32, (i / WIDTH as usize) as f32);
        let (dx, dy) = (x / w - lens.flash.0, (y / h - lens.flash.1) * 0.8);
        let beam = 1.0 / (1.0 + 7.0 * (dx * dx + dy * dy) / (0.5 * reach));
        let near = ((y - scene.horizon) / (h - scene.horizon)).clamp(0.0, 1.0);
        let animal = f32::from(layer.pixels.data()[4 * i + 3]) / 255.0;
        // Leaves shine in infrared, so green counts most; the sky gives nothing back.
        let grey = 0.3 * p[0] + 0.55 * p[1] + 0.15 * p[2];
        let depth = (0.14 + 0.72 * near) * (1.0 - animal) + 1.1 * animal;
        *p = [(grey * depth * beam * power * 1.3 + 0.02).clamp(0.0, 1.0); 3];
    }
    let size = draw.range(1.0, 2.0);
    for eye in eyes.iter().filter(|_| draw.clone().chance(0.8)) {
        glow(light, *eye, size);
    }
}

fn glow(light: &mut Light, eye: Point, size: f32) {
    for (i, p) in light.iter_mut().enumerate() {
        let (dx, dy) = ((i % WIDTH as usize) as f32 - eye.0, (i / WIDTH as usize) as f32 - eye.1);
        let near = 1.0 - (dx * dx + dy * dy) / (size * size * 3.0);
        if near > 0.0 {
            *p = p.map(|v| v + 1.3 * near);
        }
    }
}

fn develop(light: &mut Light, lens: &Lens, night: bool, draw: &mut Draw) {
    if lens.blur || draw.chance(0.15) {
        soften(light);
    }
    let noise = lens.sensor_noise * if night { 1.9 } else { 1.0 };
    let gain = if night { [1.0; 3] } else { lens.gain };
    let middle = if night { 0.2 } else { 0.45 };
    for (i, p) in light.iter_mut().enumerate() {
        let (x, y) =
            ((i % WIDTH as usize) as f32 / WIDTH as f32, (i / WIDTH as usize) as f32 / HEIGHT as f32);
        let corner = 1.0 - 0.55 * ((x - 0.5) * (x - 0.5) + (y - 0.5) * (y - 0.5));
        let grain = draw.normal() * noise;
        for (v, gain) in p.iter_mut().zip(gain) {
            let chroma = if night { 0.0 } else { draw.normal() * 0.5 * noise };
            *v = ((*v * gain * corner - middle) * lens.contrast + middle + grain + chroma).clamp(0.0, 1.0);
        }
    }
}

/// A 3 × 3 binomial filter.
fn soften(light: &mut Light) {
    let source = light.clone();
    let (w, h) = (WIDTH as usize, HEIGHT as usize);
    for y in 1..h - 1 {
        for x in 1..w - 1 {
            let row = |y: usize, c: usize| {
                source[y * w + x - 1][c] + 2.0 * source[y * w + x][c] + source[y * w + x + 1][c]
            };
            light[y * w + x] = [0, 1, 2].map(|c| (row(y - 1, c) + 2.0 * row(y, c) + row(y + 1, c)) / 16.0);
        }
    }
}

fn quantise(light: &Light) -> RgbImage {
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        Pixel(light[(y * WIDTH + x) as usize].map(|v| (v * 255.0 + 0.5) as u8))
    })
}

/// Digits 0 to 9 on 3 × 5 pixels, top row first, three bits a row.
const DIGITS: [u16; 10] = [0x7b6f, 0x2c97, 0x73e7, 0x73cf, 0x5bc9, 0x79cf, 0x79ef, 0x7249, 0x7bef, 0x7bcf];

/// The band at the bottom with time, temperature and the moon, as cameras burn it in.
fn strip(photo: &mut RgbImage, strip: Strip, night: bool, draw: &mut Draw) {
    let (paper, ink) = match strip {
        Strip::None => return,
        Strip::Black => (12, 235),
        Strip::White => (238, 20),
    };
    let top = HEIGHT - 9;
    for y in top..HEIGHT {
        for x in 0..WIDTH {
            photo.put_pixel(x, y, Pixel([paper; 3]));
        }
    }
    let hour = if night { [20, 21, 22, 23, 0, 1, 2, 3, 4][draw.count(0, 9)] } else { draw.count(6, 20) };
    let fields = [
        (4, draw.count(1, 29)),
        (13, draw.count(1, 13)),
        (28, hour),
        (37, draw.count(0, 60)),
        (52, draw.count(0, 30)),
    ];
    for (x, value) in fields {
        digit(photo, x, top + 2, value / 10, ink);
        digit(photo, x + 4, top + 2, value % 10, ink);
    }
    for y in 0..5 {
        for x in 0..14 {
            photo.put_pixel(
                WIDTH - 20 + x,
                top + 2 + y,
                Pixel([if (x / 2 + y) % 3 == 0 { paper } else { ink }; 3]),
            );
        }
    }
}

fn digit(photo: &mut RgbImage, x: u32, y: u32, value: usize, ink: u8) {
    for bit in 0..15_u32 {
        if DIGITS[value % 10] >> (14 - bit) & 1 == 1 {
            photo.put_pixel(x + bit % 3, y + bit / 3, Pixel([ink; 3]));
        }
    }
}
