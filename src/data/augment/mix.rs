//! Mixing the images and labels of a batch: mixup (Zhang et al. 2017) and CutMix (Yun et al. 2019).
//!
//! Only the numbers, drawn once for a batch; `engine::mixing` applies them. With partner p(i) of sample i,
//! mixup is `λ·x[i] + (1 - λ)·x[p(i)]`; CutMix puts the patch of `x[p(i)]` into `x[i]`. Either way the label becomes
//! `λ·y[i] + (1 - λ)·y[p(i)]`.

use super::check::{self, Key};
use super::erase::Patch;
use crate::error::Result;
use rand::Rng;
use rand_distr::{Beta, Distribution};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which sample of the batch each one is mixed with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// The one before it, the first with the last: torchvision's.
    #[default]
    Roll,
    /// A random permutation: the papers'. A sample may meet itself.
    Permutation,
}

/// How batches are mixed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MixSpec {
    /// α of mixup; 0 is none.
    #[schemars(range(min = 0, max = 100))]
    pub mixup: f64,
    /// α of CutMix; 0 is none.
    #[schemars(range(min = 0, max = 100))]
    pub cutmix: f64,
    /// Share of batches that are mixed.
    #[schemars(range(min = 0, max = 1))]
    pub p: f64,
    /// Share of the mixed batches that get CutMix where both are asked for.
    #[schemars(range(min = 0, max = 1))]
    pub switch: f64,
    /// Who is mixed with whom.
    pub pairing: Pairing,
}

impl Default for MixSpec {
    fn default() -> Self {
        Self { mixup: 0.0, cutmix: 0.0, p: 1.0, switch: 0.5, pairing: Pairing::Roll }
    }
}

/// How one batch is mixed.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Share of a sample itself in its label (and in its pixels, for mixup), 0 to 1.
    pub lambda: f64,
    /// CutMix: the part of the image, maybe empty, that comes from the partner. Nothing for mixup.
    pub patch: Option<Patch>,
    /// The partner of each sample.
    pub partners: Vec<usize>,
}

impl MixSpec {
    /// Whether any batch is mixed.
    pub fn is_on(&self) -> bool {
        self.p > 0.0 && (self.mixup > 0.0 || self.cutmix > 0.0)
    }

    /// The numbers for a batch of `len` images of `width` × `height`; nothing where it stays as it is.
    pub fn draw(&self, len: usize, width: usize, height: usize, random: &mut impl Rng) -> Option<Mix> {
        if !self.is_on() || !random.random_bool(self.p) {
            return None;
        }
        let cut = match (self.mixup > 0.0, self.cutmix > 0.0) {
            (true, true) => random.random_bool(self.switch),
            (_, cut) => cut,
        };
        let (lambda, patch) = if cut {
            let (patch, lambda) = cutmix(self.cutmix, width, height, random);
            (lambda, Some(patch))
        } else {
            (mixup(self.mixup, random), None)
        };
        Some(Mix { lambda, patch, partners: partners(len, self.pairing, random) })
    }

    /// Refuses numbers that mean nothing.
    ///
    /// # Errors
    /// When a value is out of its range; the key is named.
    pub fn check(&self, key: Key) -> Result<()> {
        for (name, alpha) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            // Below, Beta(α, α) is hardly more than a coin.
            if alpha != 0.0 {
                let hint = "0 is none; 0.2 is usual for mixup and 1 for CutMix";
                check::range(key.at(name), alpha, 0.01..=100.0, hint)?;
            }
        }
        check::range(key.at("p"), self.p, 0.0..=1.0, "the share of batches that are mixed")?;
        check::range(key.at("switch"), self.switch, 0.0..=1.0, "the share of CutMix where both are asked for")
    }
}

/// A share λ from Beta(α, α); 1, which mixes nothing, where α is not more than 0.
pub fn mixup(alpha: f64, random: &mut impl Rng) -> f64 {
    Beta::new(alpha, alpha).map_or(1.0, |beta| beta.sample(random))
}

/// A patch of about a share 1 - λ of the area, λ from Beta(α, α), cut at the edges; and the share that is left
/// around it (torchvision's, after the paper).
pub fn cutmix(alpha: f64, width: usize, height: usize, random: &mut impl Rng) -> (Patch, f64) {
    let lambda = mixup(alpha, random);
    let half = 0.5 * (1.0 - lambda).sqrt();
    let mut side = |side: usize| {
        let centre = random.random_range(0..side.max(1));
        let reach = (half * side as f64) as usize;
        let start = centre.saturating_sub(reach);
        (start, (centre + reach).min(side) - start)
    };
    let ((x, part_w), (y, part_h)) = (side(width), side(height));
    let share = (part_w * part_h) as f64 / (width * height).max(1) as f64;
    (Patch { x, y, width: part_w, height: part_h }, 1.0 - share)
}

/// The partner of each of `len` samples: a permutation of 0..`len`.
pub fn partners(len: usize, pairing: Pairing, random: &mut impl Rng) -> Vec<usize> {
    match pairing {
        Pairing::Roll => (0..len).map(|sample| (sample + len - 1) % len).collect(),
        Pairing::Permutation => {
            let mut partners: Vec<usize> = (0..len).collect();
            for place in 0..len {
                partners.swap(place, random.random_range(place..len));
            }
            partners
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng;

    #[test]
    fn shares_have_the_moments_of_beta() {
        for alpha in [0.01, 0.1, 0.2, 0.8, 1.0, 2.0, 100.0] {
            let mut random = rng::stream(0, "test", [0, 0]);
            let draws: Vec<f64> = (0..20_000).map(|_| mixup(alpha, &mut random)).collect();
            assert!(draws.iter().all(|lambda| (0.0..=1.0).contains(lambda)), "α = {alpha}");
            let mean = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|lambda| (lambda - 0.5).powi(2)).sum::<f64>() / 20_000.0;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 0.02, "α = {alpha}: mean {mean}");
            assert!((variance / expected - 1.0).abs() < 0.05, "α = {alpha}: variance {variance}");
        }
    }

    #[test]
    fn a_cut_stays_inside_and_its_share_is_its_area() {
        let mut random = rng::stream(0, "test", [0, 0]);
        let mut mean = 0.0;
        for _ in 0..5000 {
            let (patch, lambda) = cutmix(1.0, 32, 20, &mut random);
            assert!(patch.x + patch.width <= 32 && patch.y + patch.height <= 20, "{patch:?}");
            let area = (patch.width * patch.height) as f64 / (32.0 * 20.0);
            assert_eq!(lambda, 1.0 - area);
            mean += lambda / 5000.0;
        }
        // Half the area on average, less what falls over the edges.
        assert!((0.6..0.75).contains(&mean), "{mean}");
        assert_eq!(cutmix(1.0, 0, 0, &mut random).1, 1.0);
    }

    #[test]
    fn every_sample_is_a_partner_once() {
        let mut random = rng::stream(0, "test", [0, 0]);
        assert_eq!(partners(4, Pairing::Roll, &mut random), [3, 0, 1, 2]);
        assert_eq!(partners(0, Pairing::Roll, &mut random), [0; 0]);
        let mut drawn = partners(50, Pairing::Permutation, &mut random);
        assert_ne!(drawn, (0..50).collect::<Vec<_>>());
        drawn.sort_unstable();
        assert_eq!(drawn, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn shares_of_batches_are_as_asked() {
        let spec = MixSpec { mixup: 0.2, cutmix: 1.0, p: 0.5, switch: 0.25, ..MixSpec::default() };
        let mut random = rng::stream(0, "test", [0, 0]);
        let drawn: Vec<_> = (0..4000).filter_map(|_| spec.draw(8, 32, 32, &mut random)).collect();
        let cut = drawn.iter().filter(|mix| mix.patch.is_some()).count() as f64 / drawn.len() as f64;
        assert!((drawn.len() as f64 / 4000.0 - 0.5).abs() < 0.03 && (cut - 0.25).abs() < 0.04);
        assert_eq!(MixSpec::default().draw(8, 32, 32, &mut random), None);
        let error = MixSpec { mixup: -0.2, ..spec }.check(Key::object("train.mix")).unwrap_err();
        assert_eq!(error.to_string(), "`train.mix.mixup` is -0.2, but 0.01 to 100 is expected");
    }
}
