//! A batch mixed as [`Mix`] says: its images, on the device, and what a network should say of them.

use crate::data::augment::erase::Patch;
use crate::data::augment::mix::Mix;
use crate::net::loss::{Mixed, Target};
use tch::{Device, TchError, Tensor};

/// Mixes float images `[N, C, H, W]`; channels_last stays channels_last.
///
/// # Errors
/// When libtorch refuses, for example for want of memory.
pub fn images(mix: &Mix, images: &Tensor) -> Result<Tensor, TchError> {
    let images = images.f_permute([0, 2, 3, 1])?;
    let others = images.f_index_select(0, &partners(mix, images.device())?)?;
    let mixed = match mix.patch {
        None => others.f_lerp(&images, mix.lambda)?,
        Some(Patch { x, y, width, height }) => {
            let mut mixed = images.f_empty_like()?;
            mixed.f_copy_(&images)?;
            let part =
                |of: &Tensor| of.f_narrow(1, y as i64, height as i64)?.f_narrow(2, x as i64, width as i64);
            part(&mixed)?.f_copy_(&part(&others)?)?;
            mixed
        }
    };
    mixed.f_permute([0, 3, 1, 2])
}

/// What a network should say of the mixed images of classes `labels`, int64 `[N]`.
///
/// # Errors
/// When libtorch refuses.
pub fn target(mix: &Mix, labels: &Tensor) -> Result<Target, TchError> {
    let others = labels.f_index_select(0, &partners(mix, labels.device())?)?;
    let share = Tensor::f_from_slice(&[mix.lambda as f32])?.f_to_device(labels.device())?;
    Ok(Target { labels: labels.shallow_clone(), mixed: Some(Mixed { labels: others, share }) })
}

fn partners(mix: &Mix, device: Device) -> Result<Tensor, TchError> {
    let partners: Vec<i64> = mix.partners.iter().map(|&partner| partner as i64).collect();
    Tensor::f_from_slice(&partners)?.f_to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_and_targets_are_mixed_by_the_formula() {
        let plain = Tensor::rand([3, 2, 4, 5], (tch::Kind::Float, Device::Cpu));
        let plain = plain.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        let labels = Tensor::from_slice(&[0i64, 1, 2]);
        let partners = vec![2, 0, 1];
        let others = plain.index_select(0, &Tensor::from_slice(&[2i64, 0, 1]));
        let mix = Mix { lambda: 0.3, patch: None, partners: partners.clone() };
        let off = images(&mix, &plain).unwrap() - (&plain * 0.3 + &others * 0.7);
        assert!(off.abs().max().double_value(&[]) < 1e-6);
        let shares = target(&mix, &labels).unwrap().shares(3, 0.0).unwrap();
        let expected = Tensor::from_slice(&[0.3f32, 0.0, 0.7, 0.7, 0.3, 0.0, 0.0, 0.7, 0.3]).view([3, 3]);
        assert!((shares - expected).abs().max().double_value(&[]) < 1e-6);

        let patch = Patch { x: 1, y: 2, width: 3, height: 2 };
        let cut = images(&Mix { lambda: 0.7, patch: Some(patch), partners }, &plain).unwrap();
        assert_eq!(cut.stride(), plain.stride(), "channels_last");
        for (y, x) in [(0, 0), (2, 0), (2, 1), (3, 3), (3, 4), (1, 1)] {
            let inside = (2..4).contains(&y) && (1..4).contains(&x);
            let from = if inside { &others } else { &plain };
            assert_eq!(cut.double_value(&[1, 1, y, x]), from.double_value(&[1, 1, y, x]), "({y}, {x})");
        }
    }
}
