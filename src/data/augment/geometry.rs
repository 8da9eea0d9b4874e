//! Shears, shifts and rotations of an image within its frame, black where nothing is.
//!
//! The same bytes as torchvision's for PIL images: Pillow's fixed-point arithmetic (16 bits of fraction) for the
//! nearest pixel, its double precision for pure shifts and for the bilinear filter.

use super::check::{self, Key};
use super::frame::Frame;
use crate::error::Result;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a pixel between four pixels is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The nearest one: torchvision's default for policies.
    Nearest,
    /// All four by their distance.
    Bilinear,
}

/// Takes pixel (x, y) from (a·x + b·y + c, d·x + e·y + f), in coordinates with pixel centres at halves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// a, b, c.
    x: [f64; 3],
    /// d, e, f.
    y: [f64; 3],
}

impl Affine {
    /// Each row moves left by `level` pixels for each row above it (torchvision's ShearX, whose sign is random).
    pub fn shear_x(level: f64) -> Self {
        Self { x: [1.0, level, 0.0], y: [0.0, 1.0, 0.0] }
    }

    /// Each column moves up by `level` pixels for each column left of it (torchvision's ShearY).
    pub fn shear_y(level: f64) -> Self {
        Self { x: [1.0, 0.0, 0.0], y: [level, 1.0, 0.0] }
    }

    /// The image moves right and down by whole pixels.
    pub fn translation(right: i64, down: i64) -> Self {
        Self { x: [1.0, 0.0, -(right as f64)], y: [0.0, 1.0, -(down as f64)] }
    }

    /// A counter-clockwise rotation about the centre of a `width` × `height` image.
    pub fn rotation(degrees: f64, width: usize, height: usize) -> Self {
        let angle = -degrees.rem_euclid(360.0).to_radians();
        // Pillow's way to make quarter turns exact.
        let tidy = |value: f64| (value * 1e15).round() / 1e15;
        let (cos, sin) = (tidy(angle.cos()), tidy(angle.sin()));
        let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
        Self { x: [cos, sin, cos * -x + sin * -y + x], y: [-sin, cos, -sin * -x + cos * -y + y] }
    }

    /// Where the middle of pixel (x, y) comes from.
    fn source(&self, x: usize, y: usize) -> (f64, f64) {
        let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
        (self.x[0] * x + self.x[1] * y + self.x[2], self.y[0] * x + self.y[1] * y + self.y[2])
    }
}

/// Moves every pixel.
pub fn transform(frame: &mut Frame, affine: &Affine, filter: Filter) {
    let (width, height, channels) = (frame.width(), frame.height(), frame.channels());
    if width == 0 || height == 0 {
        return;
    }
    let (old, new) = frame.rewrite();
    new.fill(0);
    match (filter, channels) {
        (Filter::Nearest, 3) => nearest::<3>(old, new, [width, height], affine),
        (Filter::Nearest, _) => nearest::<1>(old, new, [width, height], affine),
        (Filter::Bilinear, 3) => bilinear::<3>(old, new, [width, height], affine),
        (Filter::Bilinear, _) => bilinear::<1>(old, new, [width, height], affine),
    }
}

/// Coordinates of 16 fraction bits.
fn fixed(value: f64) -> i64 {
    (value * 65536.0 + 0.5).floor() as i64
}

fn nearest<const C: usize>(old: &[u8], new: &mut [u8], [width, height]: [usize; 2], affine: &Affine) {
    let Affine { x: [a, b, c], y: [d, e, f] } = *affine;
    let [right_x, right_y, down_x, down_y] = [a, d, b, e].map(fixed);
    let (mut row_x, mut row_y) = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
    let (old, _) = old.as_chunks::<C>();
    let (new, _) = new.as_chunks_mut::<C>();
    for row in new.chunks_exact_mut(width) {
        let (mut x, mut y) = (row_x, row_y);
        for pixel in row {
            let (from_x, from_y) = (x >> 16, y >> 16);
            if (0..width as i64).contains(&from_x) && (0..height as i64).contains(&from_y) {
                *pixel = old[from_y as usize * width + from_x as usize];
            }
            x += right_x;
            y += right_y;
        }
        row_x += down_x;
        row_y += down_y;
    }
}

fn bilinear<const C: usize>(old: &[u8], new: &mut [u8], [width, height]: [usize; 2], affine: &Affine) {
    let (old, _) = old.as_chunks::<C>();
    let (new, _) = new.as_chunks_mut::<C>();
    for (at, pixel) in new.iter_mut().enumerate() {
        let (x, y) = affine.source(at % width, at / width);
        if !(0.0..width as f64).contains(&x) || !(0.0..height as f64).contains(&y) {
            continue;
        }
        let (x, y) = (x - 0.5, y - 0.5);
        let (left, upper) = (x.floor(), y.floor());
        let (x_share, y_share) = (x - left, y - upper);
        // Beyond the edge is the edge.
        let inside = |place: f64, side: usize| (place.max(0.0) as usize).min(side - 1);
        let (left, right) = (inside(left, width), inside(left + 1.0, width));
        let (upper, lower) = (inside(upper, height) * width, inside(upper + 1.0, height) * width);
        let corners = [upper + left, upper + right, lower + left, lower + right].map(|at| &old[at]);
        for (channel, value) in pixel.iter_mut().enumerate() {
            let [upper_left, upper_right, lower_left, lower_right] =
                corners.map(|rgb| f64::from(rgb[channel]));
            let above = upper_left + (upper_right - upper_left) * x_share;
            let below = lower_left + (lower_right - lower_left) * x_share;
            *value = (above + (below - above) * y_share) as u8;
        }
    }
}

/// Turns the image counter-clockwise about its centre. 0° and 180° (and 90° and 270° of square images) are exact
/// with either filter.
pub fn rotate(frame: &mut Frame, degrees: f64, filter: Filter) {
    let degrees = degrees.rem_euclid(360.0);
    if degrees == 0.0 {
        return;
    }
    let square = frame.width() == frame.height();
    let exact = degrees == 180.0 || (square && (degrees == 90.0 || degrees == 270.0));
    let filter = if exact { Filter::Nearest } else { filter };
    let affine = Affine::rotation(degrees, frame.width(), frame.height());
    transform(frame, &affine, filter);
}

/// A rotation by a random angle from -`degrees` to `degrees`, bilinear, black outside; the authors' release has 10.
/// torchvision's `RandomRotation(degrees, InterpolationMode.BILINEAR)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// Largest angle, 0 to 180.
    #[schemars(range(min = 0, max = 180))]
    pub degrees: f64,
}

impl Default for Rotation {
    /// The authors' release.
    fn default() -> Self {
        Self { degrees: 10.0 }
    }
}

impl Rotation {
    /// Changes the image.
    pub fn apply(&self, frame: &mut Frame, random: &mut impl Rng) {
        rotate(frame, random.random_range(-self.degrees..=self.degrees), Filter::Bilinear);
    }

    /// Refuses angles that mean nothing.
    ///
    /// # Errors
    /// When the angle is out of its range; the key is named.
    pub fn check(&self, key: Key) -> Result<()> {
        check::range(key.at("degrees"), self.degrees, 0.0..=180.0, "the authors' release has 10")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    fn moved(affine: &Affine) -> Vec<u8> {
        let mut pixels: Vec<u8> = (1..=9).collect();
        transform(&mut Frame::new(3, 3, 1, &mut pixels), affine, Filter::Nearest);
        pixels
    }

    #[test]
    fn shifts_and_shears_move_the_content() {
        assert_eq!(moved(&Affine::translation(1, 0)), [0, 1, 2, 0, 4, 5, 0, 7, 8]);
        assert_eq!(moved(&Affine::translation(0, -1)), [4, 5, 6, 7, 8, 9, 0, 0, 0]);
        assert_eq!(moved(&Affine::translation(i64::from(i32::MAX), 0)), [0; 9]);
        assert_eq!(moved(&Affine::shear_x(-0.99)), [1, 2, 3, 0, 4, 5, 0, 0, 7]);
        assert_eq!(moved(&Affine::shear_y(-0.99)), [1, 0, 0, 4, 2, 0, 7, 5, 3]);
    }

    #[test]
    fn quarter_turns_are_exact_and_counter_clockwise() {
        for filter in [Filter::Nearest, Filter::Bilinear] {
            let mut pixels: Vec<u8> = (1..=9).collect();
            rotate(&mut Frame::new(3, 3, 1, &mut pixels), 90.0, filter);
            assert_eq!(pixels, [3, 6, 9, 2, 5, 8, 1, 4, 7]);
            rotate(&mut Frame::new(3, 3, 1, &mut pixels), -90.0, filter);
            assert_eq!(pixels, (1..=9).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_rotation_of_no_degrees_changes_nothing() {
        let mut pixels: Vec<u8> = (1..=9).collect();
        let mut random = rng::stream(0, "test", [0, 0]);
        Rotation { degrees: 0.0 }.apply(&mut Frame::new(3, 3, 1, &mut pixels), &mut random);
        assert_eq!(pixels, (1..=9).collect::<Vec<_>>());
    }
}
