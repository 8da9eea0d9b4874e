//! A made-up data set that a network can learn: each class is a pattern of soft blobs, each sample that pattern
//! shifted, dimmed and covered with noise. Needs no files; the same for the same seed.

use super::{Dataset, Image, Split};
use crate::error::Result;
use crate::rng;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What to make up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SyntheticSpec {
    /// Number of classes.
    #[schemars(range(min = 1, max = MAX_CLASSES))]
    pub classes: usize,
    /// Number of training samples.
    #[schemars(range(min = 1, max = MAX_SAMPLES))]
    pub train: usize,
    /// Number of evaluation samples.
    #[schemars(range(min = 1, max = MAX_SAMPLES))]
    pub eval: usize,
    /// Channels: 1 or 3.
    #[schemars(extend("enum" = [1, 3]))]
    pub channels: usize,
    /// Height and width in pixels.
    #[schemars(range(min = 1, max = super::MAX_SIZE))]
    pub size: usize,
}

impl Default for SyntheticSpec {
    fn default() -> Self {
        Self { classes: 10, train: 2048, eval: 512, channels: 3, size: 32 }
    }
}

/// Most classes; their patterns are in memory.
pub const MAX_CLASSES: usize = 100_000;

/// Most samples of a half; the order of an epoch is in memory.
pub const MAX_SAMPLES: usize = 10_000_000;

/// Side of the coarse grid that a class's pattern is made of.
const GRID: usize = 5;

/// The made-up data.
pub struct SyntheticDataset {
    spec: SyntheticSpec,
    split: Split,
    seed: u64,
    names: Vec<String>,
    /// `[class][channel][GRID · GRID]` brightness.
    patterns: Vec<Vec<Vec<f32>>>,
}

impl SyntheticDataset {
    /// One half of the data.
    pub fn new(spec: &SyntheticSpec, split: Split, seed: u64) -> Self {
        let pattern = |class: usize| {
            let mut random = rng::stream(seed, "synthetic class", [class as u64, 0]);
            let mut cells = || (0..GRID * GRID).map(|_| random.random::<f32>()).collect::<Vec<_>>();
            (0..spec.channels).map(|_| cells()).collect()
        };
        Self {
            spec: spec.clone(),
            split,
            seed,
            names: (0..spec.classes).map(|class| format!("class-{class}")).collect(),
            patterns: (0..spec.classes).map(pattern).collect(),
        }
    }
}

impl Dataset for SyntheticDataset {
    fn len(&self) -> usize {
        match self.split {
            Split::Train => self.spec.train,
            Split::Eval => self.spec.eval,
        }
    }

    fn classes(&self) -> &[String] {
        &self.names
    }

    fn channels(&self) -> usize {
        self.spec.channels
    }

    fn natural_size(&self) -> Option<(usize, usize)> {
        Some((self.spec.size, self.spec.size))
    }

    fn label(&self, index: usize) -> usize {
        index % self.spec.classes
    }

    fn image(&self, index: usize) -> Result<Image> {
        let purpose = match self.split {
            Split::Train => "synthetic train",
            Split::Eval => "synthetic eval",
        };
        let mut random = rng::stream(self.seed, purpose, [index as u64, 0]);
        let SyntheticSpec { channels, size, .. } = self.spec;
        let pattern = &self.patterns[self.label(index)];
        let (shift_x, shift_y) = (random.random_range(-0.4..0.4f32), random.random_range(-0.4..0.4f32));
        let contrast = random.random_range(0.6..1.0f32);
        let mut pixels = Vec::with_capacity(size * size * channels);
        for y in 0..size {
            for x in 0..size {
                let at = |place: usize, shift: f32| place as f32 / size as f32 * (GRID - 1) as f32 + shift;
                for cells in pattern {
                    let value = bilinear(cells, at(x, shift_x), at(y, shift_y));
                    let noise = random.random_range(-0.2..0.2f32);
                    pixels.push((((value - 0.5) * contrast + 0.5 + noise) * 255.0).clamp(0.0, 255.0) as u8);
                }
            }
        }
        Ok(Image { width: size, height: size, channels, pixels })
    }

    fn source_name(&self, index: usize) -> String {
        format!("made-up image {}", self.relative_name(index))
    }

    fn relative_name(&self, index: usize) -> String {
        format!("{}:{index}", self.split.name())
    }
}

/// Value between the cells of a GRID × GRID pattern; beyond its border, the border's.
fn bilinear(cells: &[f32], x: f32, y: f32) -> f32 {
    let last = (GRID - 1) as f32;
    let (x, y) = (x.clamp(0.0, last), y.clamp(0.0, last));
    let (left, top) = ((x as usize).min(GRID - 2), (y as usize).min(GRID - 2));
    let (fx, fy) = (x - left as f32, y - top as f32);
    let cell = |row: usize, column: usize| cells[(top + row) * GRID + left + column];
    let upper = cell(0, 0) * (1.0 - fx) + cell(0, 1) * fx;
    let lower = cell(1, 0) * (1.0 - fx) + cell(1, 1) * fx;
    upper * (1.0 - fy) + lower * fy
}
