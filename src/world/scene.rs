use super::canvas::{Canvas, Point, Rgb, mix, shade};
use super::draw::{Draw, noise};
use super::{HEIGHT, WIDTH};

/// The colours of a habitat.
struct Habitat {
    sky: [Rgb; 2],
    ground: [Rgb; 2],
    foliage: Rgb,
    trunk: Rgb,
    grass: Rgb,
    /// Trees, bushes, rocks, grass tufts: most of each.
    plants: [usize; 4],
    conifers: bool,
}

const HABITATS: [Habitat; 6] = [
    // Broadleaf forest.
    Habitat {
        sky: [[0.62, 0.72, 0.7], [0.74, 0.8, 0.7]],
        ground: [[0.36, 0.36, 0.22], [0.36, 0.29, 0.19]],
        foliage: [0.2, 0.34, 0.14],
        trunk: [0.28, 0.22, 0.17],
        grass: [0.3, 0.42, 0.16],
        plants: [9, 4, 2, 30],
        conifers: false,
    },
    // Savanna.
    Habitat {
        sky: [[0.5, 0.68, 0.86], [0.84, 0.86, 0.82]],
        ground: [[0.72, 0.62, 0.38], [0.62, 0.5, 0.29]],
        foliage: [0.42, 0.44, 0.2],
        trunk: [0.36, 0.29, 0.22],
        grass: [0.74, 0.64, 0.36],
        plants: [3, 4, 2, 70],
        conifers: false,
    },
    // Snow.
    Habitat {
        sky: [[0.7, 0.76, 0.84], [0.86, 0.88, 0.9]],
        ground: [[0.84, 0.87, 0.92], [0.93, 0.94, 0.96]],
        foliage: [0.14, 0.24, 0.2],
        trunk: [0.25, 0.2, 0.18],
        grass: [0.6, 0.56, 0.46],
        plants: [8, 2, 2, 10],
        conifers: true,
    },
    // Rocks and scrub.
    Habitat {
        sky: [[0.45, 0.62, 0.84], [0.76, 0.82, 0.86]],
        ground: [[0.6, 0.55, 0.47], [0.5, 0.44, 0.37]],
        foliage: [0.34, 0.38, 0.24],
        trunk: [0.32, 0.27, 0.23],
        grass: [0.52, 0.5, 0.32],
        plants: [2, 4, 10, 20],
        conifers: true,
    },
    // Rainforest.
    Habitat {
        sky: [[0.24, 0.36, 0.2], [0.42, 0.54, 0.3]],
        ground: [[0.24, 0.24, 0.13], [0.3, 0.23, 0.14]],
        foliage: [0.13, 0.33, 0.11],
        trunk: [0.22, 0.18, 0.13],
        grass: [0.18, 0.4, 0.14],
        plants: [12, 9, 1, 30],
        conifers: false,
    },
    // Meadow.
    Habitat {
        sky: [[0.52, 0.7, 0.88], [0.82, 0.88, 0.9]],
        ground: [[0.42, 0.55, 0.26], [0.36, 0.48, 0.2]],
        foliage: [0.24, 0.4, 0.18],
        trunk: [0.3, 0.25, 0.2],
        grass: [0.4, 0.56, 0.22],
        plants: [4, 3, 2, 90],
        conifers: true,
    },
];

/// What a camera always looks at.
pub(super) struct Scene {
    pub(super) canvas: Canvas,
    /// Row of the horizon.
    pub(super) horizon: f32,
    /// Colour of the grass in front of the lens.
    pub(super) grass: Rgb,
}

impl Scene {
    /// Draws the place of a camera.
    pub(super) fn new(seed: u64, camera: u32) -> Self {
        let mut draw = Draw::new(&[seed, 1, u64::from(camera)]);
        let habitat = &HABITATS[camera as usize % HABITATS.len()];
        let mut canvas = Canvas::new();
        let horizon = draw.range(0.2, 0.46) * HEIGHT as f32;
        let season = draw.range(0.85, 1.15);
        gradient(&mut canvas, habitat, horizon, draw.next());
        far(&mut canvas, habitat, horizon, &mut draw);
        plants(&mut canvas, habitat, horizon, season, &mut draw);
        Self { canvas, horizon, grass: shade(habitat.grass, season) }
    }
}

fn gradient(canvas: &mut Canvas, habitat: &Habitat, horizon: f32, seed: u64) {
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let (fx, fy) = (x as f32, y as f32);
            let colour = if fy < horizon {
                mix(habitat.sky[0], habitat.sky[1], fy / horizon)
            } else {
                let depth = (fy - horizon) / (HEIGHT as f32 - horizon);
                let scale = 3.0 + 12.0 * depth;
                let coarse = noise(seed, fx / scale / 1.8, fy / scale * 1.5);
                let fine = noise(seed ^ 1, fx / 2.2, fy / 1.4);
                let patch = 0.62 + 0.48 * coarse + 0.28 * fine * (0.4 + 0.6 * depth);
                shade(mix(habitat.ground[0], habitat.ground[1], depth), patch)
            };
            put(canvas, x, y, colour);
        }
    }
}

fn put(canvas: &mut Canvas, x: u32, y: u32, colour: Rgb) {
    let at = ((y * WIDTH + x) * 4) as usize;
    let data = canvas.pixels.data_mut();
    for (c, v) in colour.iter().enumerate() {
        data[at + c] = (v.clamp(0.0, 1.0) * 255.0) as u8;
    }
    data[at + 3] = 255;
}

fn far(canvas: &mut Canvas, habitat: &Habitat, horizon: f32, draw: &mut Draw) {
    for layer in 0..3_u8 {
        let haze = mix(habitat.foliage, habitat.sky[1], 0.6 - 0.2 * f32::from(layer));
        let tall = draw.range(0.05, 0.2) * HEIGHT as f32;
        for _ in 0..18 {
            let (x, r) = (draw.range(-10.0, WIDTH as f32 + 10.0), draw.range(5.0, 14.0));
            let colour = shade(haze, draw.range(0.85, 1.12));
            if habitat.conifers {
                let top = horizon - tall * draw.range(0.5, 1.6);
                canvas.polygon(
                    &[(x - 0.6 * r, horizon + 3.0), (x + 0.6 * r, horizon + 3.0), (x, top)],
                    colour,
                    1.0,
                );
            } else {
                canvas.ellipse((x, horizon - 0.2 * tall), (r, tall * draw.range(0.5, 1.0)), colour, 1.0);
            }
        }
    }
}

fn plants(canvas: &mut Canvas, habitat: &Habitat, horizon: f32, season: f32, draw: &mut Draw) {
    let [trees, bushes, rocks, tufts] = habitat.plants;
    let mut feet: Vec<(f32, u8)> = Vec::new();
    for (kind, most) in [(0, trees), (1, bushes), (2, rocks), (3, tufts)] {
        for _ in 0..draw.count(most / 2, most + 1) {
            let depth = draw.unit();
            feet.push((if kind == 3 { depth } else { depth * depth * 0.75 }, kind));
        }
    }
    feet.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (depth, kind) in feet {
        let foot = (draw.range(0.0, WIDTH as f32), horizon + depth * (HEIGHT as f32 - horizon));
        let scale = (0.25 + 0.9 * depth) * HEIGHT as f32;
        let leaves = shade(habitat.foliage, season * draw.range(0.75, 1.25));
        match kind {
            0 => tree(canvas, habitat, foot, scale, leaves, draw),
            1 => bush(canvas, foot, 0.2 * scale, leaves, draw),
            2 => rock(canvas, foot, 0.16 * scale, draw),
            _ => tuft(canvas, foot, 0.1 * scale, shade(habitat.grass, season * draw.range(0.7, 1.2)), draw),
        }
    }
}

fn tree(canvas: &mut Canvas, habitat: &Habitat, foot: Point, scale: f32, leaves: Rgb, draw: &mut Draw) {
    let width = scale * draw.range(0.05, 0.13);
    let top = (foot.0 + draw.range(-0.15, 0.15) * scale, foot.1 - scale * draw.range(0.9, 1.8));
    let bark = shade(habitat.trunk, draw.range(0.75, 1.3));
    canvas.limb(foot, width * 1.3, top, width * 0.6, bark);
    let light = ((foot.0 - 0.3 * width), foot.1);
    canvas.limb(light, width * 0.3, (top.0 - 0.15 * width, top.1), width * 0.15, shade(bark, 1.3));
    if habitat.conifers {
        for step in 0..4_u8 {
            let t = f32::from(step) / 4.0;
            let y = foot.1 - scale * (0.3 + 0.85 * t);
            let w = scale * (0.4 - 0.27 * t);
            let x = foot.0 + (top.0 - foot.0) * t;
            canvas.polygon(
                &[(x - w, y), (x + w, y), (x, y - 0.5 * scale)],
                shade(leaves, 0.85 + 0.1 * t),
                1.0,
            );
        }
    } else {
        for _ in 0..7 {
            let c = (top.0 + draw.range(-0.4, 0.4) * scale, top.1 + draw.range(-0.2, 0.3) * scale);
            let r = draw.range(0.12, 0.28) * scale;
            canvas.ellipse(c, (r, 0.7 * r), shade(leaves, draw.range(0.75, 1.25)), 0.92);
        }
    }
}

fn bush(canvas: &mut Canvas, foot: Point, scale: f32, leaves: Rgb, draw: &mut Draw) {
    for _ in 0..9 {
        let c = (foot.0 + draw.range(-1.0, 1.0) * scale, foot.1 - draw.range(0.0, 0.9) * scale);
        let r = draw.range(0.25, 0.55) * scale;
        canvas.ellipse(c, (r, 0.8 * r), shade(leaves, draw.range(0.7, 1.3)), 0.95);
    }
    for _ in 0..10 {
        let a = (foot.0 + draw.range(-0.9, 0.9) * scale, foot.1 - draw.range(0.1, 0.9) * scale);
        let b = (a.0 + draw.range(-0.5, 0.5) * scale, a.1 - draw.range(0.1, 0.5) * scale);
        canvas.blade(a, 0.14 * scale, b, shade(leaves, draw.range(0.8, 1.5)));
    }
}

fn rock(canvas: &mut Canvas, foot: Point, scale: f32, draw: &mut Draw) {
    let grey = draw.range(0.34, 0.56);
    let colour = [grey, 0.97 * grey, 0.92 * grey];
    let (w, h) = (scale * draw.range(0.8, 1.7), scale * draw.range(0.5, 1.0));
    canvas.ellipse((foot.0 + 0.1 * w, foot.1), (1.05 * w, 0.25 * h), shade(colour, 0.4), 0.6);
    let outline =
        [(-1.0, 0.0), (-0.85, 0.7), (-0.2, 1.05), (0.5, 0.9), (1.0, 0.4), (1.05, 0.0), (0.0, -0.15)];
    let points: Vec<Point> =
        outline.iter().map(|p| (foot.0 + p.0 * w + draw.range(-0.1, 0.1) * w, foot.1 - p.1 * h)).collect();
    canvas.polygon(&points, colour, 1.0);
    let lit: Vec<Point> =
        points[1..4].iter().copied().chain([(foot.0 - 0.1 * w, foot.1 - 0.5 * h)]).collect();
    canvas.polygon(&lit, shade(colour, 1.22), 0.8);
}

/// A tuft of grass: blades from one foot.
pub(super) fn tuft(canvas: &mut Canvas, foot: Point, scale: f32, colour: Rgb, draw: &mut Draw) {
    for _ in 0..5 {
        let root = (foot.0 + draw.range(-0.35, 0.35) * scale, foot.1);
        let tip = (root.0 + draw.range(-0.6, 0.6) * scale, foot.1 - draw.range(0.5, 1.3) * scale);
        canvas.blade(root, (0.14 * scale).max(0.7), tip, shade(colour, draw.range(0.75, 1.25)));
    }
}
