//! What the shapes of tensors say of SE blocks: reduction ratio, rounding and biases. Gates, squeezes and strides leave no
//! trace in them.

use super::Arrays;
use crate::net::se::{Rounding, SeSpec, Structure};
use std::collections::BTreeSet;

/// `se` with the reduction ratio, the rounding and the biases that the tensors have; those of `se` where they fit, or where
/// none fit.
pub fn se_of(arrays: &Arrays, se: &SeSpec) -> SeSpec {
    // (C, hidden) of all blocks, of the second FC's `[C, hidden, 1, 1]`.
    let widths: BTreeSet<(i64, i64)> = arrays
        .iter()
        .filter(|(name, _)| name.ends_with("se.fc2.weight"))
        .filter_map(|(_, array)| Some((*array.shape.first()?, *array.shape.get(1)?)))
        .collect();
    let Some((widest, _)) = widths.last().copied() else { return se.clone() };
    if matches!(se.structure, Structure::GapScale | Structure::GapSigmoid) {
        return se.clone();
    }
    let bias = arrays.keys().any(|name| name.ends_with("se.fc2.bias"));
    let fits = |se: &SeSpec| widths.iter().all(|(channels, hidden)| se.hidden(*channels) == *hidden);
    let ratios = [se.reduction, 16].into_iter().chain(1..=widest.min(MAX_RATIO)).filter(|ratio| *ratio >= 1);
    let roundings = [se.rounding, Rounding::Exact, Rounding::MultipleOf8];
    let mut candidates = ratios
        .flat_map(|reduction| roundings.map(|rounding| SeSpec { reduction, rounding, bias, ..se.clone() }));
    candidates.find(fits).unwrap_or_else(|| SeSpec { bias, ..se.clone() })
}

/// Largest ratio that is tried; a file may have a tensor of any shape.
const MAX_RATIO: i64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelSpec;
    use crate::net::params::params;
    use crate::weights::Array;

    fn arrays(spec: &ModelSpec) -> Arrays {
        let shapes =
            params(&spec.describe(3, 10).unwrap()).into_iter().map(|param| (param.name, param.shape));
        shapes.map(|(name, shape)| (name, Array { shape, values: Vec::new() })).collect()
    }

    #[test]
    fn widths_and_biases_are_found_again() {
        for model in ["se-resnet-18-v1.5", "se-resnet-50", "se-resnet-20", "se-bn-inception"] {
            for reduction in [1, 4, 8, 16, 32] {
                for (rounding, bias) in [(Rounding::Exact, false), (Rounding::MultipleOf8, true)] {
                    let se = SeSpec { reduction, rounding, bias, ..SeSpec::default() };
                    let spec = ModelSpec { se, ..ModelSpec::named(model) };
                    let found = se_of(&arrays(&spec), &SeSpec::default());
                    let described =
                        |se: &SeSpec| ModelSpec { se: se.clone(), ..spec.clone() }.describe(3, 10).unwrap();
                    assert_eq!(described(&found), described(&spec.se), "{model} {:?} {found:?}", spec.se);
                }
            }
        }
    }

    #[test]
    fn what_fits_stays_and_nothing_is_made_up() {
        let default = SeSpec::default();
        for model in ["se-resnet-50", "resnet-50"] {
            assert_eq!(se_of(&arrays(&ModelSpec::named(model)), &default), default);
        }
        let rounded = SeSpec { rounding: Rounding::MultipleOf8, ..default.clone() };
        assert_eq!(se_of(&arrays(&ModelSpec::named("se-resnet-50")), &rounded), rounded);
    }
}
