//! From the names that a trainer's wrappers gave the tensors of a network to the network's own.

use super::{Array, Arrays};
use crate::printable;
use std::collections::BTreeSet;

/// Modules that PyTorch puts around parts of a network, anywhere in a name: `torch.compile`, FSDP, activation checkpointing.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Torch's averages (`AveragedModel`) count their updates under this name, which is how they are known.
pub const AVERAGE_COUNTER: &str = "n_averaged";

/// Tensors by the names that the network itself gives them.
#[derive(Debug, Default)]
pub struct Unwrapped {
    /// The tensors.
    pub arrays: Arrays,
    /// Numbers that belong to no layer: how many steps an average has (`n_averaged`).
    pub counters: Vec<String>,
    /// What was removed from the names, in words.
    pub notes: Vec<String>,
}

/// Removes the prefix that all names share (`module.` of `DataParallel` and averages, `model.` of Lightning, `_orig_mod.` of
/// `torch.compile`) as far as it is none of the network's own modules, and the wrappers within names.
///
/// # Errors
/// With the name that two tensors have then.
pub fn unwrap(arrays: Arrays, is_own: impl Fn(&str) -> bool) -> Result<Unwrapped, String> {
    let mut unwrapped = Unwrapped::default();
    let is_counter = |(name, array): &(String, Array)| array.shape.is_empty() && !name.contains('.');
    let (counters, mut named): (Vec<_>, Vec<_>) = arrays.into_iter().partition(is_counter);
    unwrapped.counters = counters.into_iter().map(|(name, _)| name).collect();
    let prefix = shared_prefix(named.iter().map(|(name, _)| &**name), is_own);
    if prefix > 0 {
        let text = printable::quoted(&named[0].0[..prefix]);
        unwrapped
            .notes
            .push(format!("the prefix {text}, which all {} names share, was removed", named.len()));
        named.iter_mut().for_each(|(name, _)| drop(name.drain(..prefix)));
    }
    let mut removed: BTreeSet<&str> = BTreeSet::new();
    for (name, array) in named {
        let parts = name.split('.').filter(|part| {
            let wrapper = WRAPPERS.iter().find(|wrapper| *wrapper == part);
            removed.extend(wrapper);
            wrapper.is_none()
        });
        let name = parts.collect::<Vec<_>>().join(".");
        if unwrapped.arrays.insert(name.clone(), array).is_some() {
            return Err(name);
        }
    }
    for wrapper in removed {
        unwrapped.notes.push(format!("`{wrapper}.` was removed from the names"));
    }
    Ok(unwrapped)
}

/// Bytes of the longest prefix of whole modules that all names share and of which no module is the network's own.
fn shared_prefix<'a>(names: impl Iterator<Item = &'a str> + Clone, is_own: impl Fn(&str) -> bool) -> usize {
    let Some(first) = names.clone().next() else { return 0 };
    let mut prefix = 0;
    while let Some(end) = first[prefix..].find('.').map(|at| prefix + at + 1) {
        let shared = names.clone().all(|name| name.get(..end) == Some(&first[..end]) && name.len() > end);
        if !shared || is_own(&first[prefix..end - 1]) {
            break;
        }
        prefix = end;
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let array = || Array { shape: vec![1], values: vec![1.0] };
        let mut arrays: Arrays = names.iter().map(|name| (name.to_string(), array())).collect();
        arrays.insert("n_averaged".to_string(), Array { shape: vec![], values: vec![7.0] });
        let unwrapped = unwrap(arrays, |part| ["conv1", "fc", "features"].contains(&part)).unwrap();
        assert_eq!(unwrapped.counters, ["n_averaged"]);
        (unwrapped.arrays.into_keys().collect(), unwrapped.notes)
    }

    #[test]
    fn prefixes_that_all_names_share_are_removed_and_named() {
        let own = ["conv1.weight", "fc.bias"];
        assert_eq!(names(&own), (own.map(String::from).to_vec(), vec![]));
        for prefix in ["module.", "_orig_mod.module.", "module._orig_mod.", "model.", "a.b.c."] {
            let wrapped = own.map(|name| format!("{prefix}{name}"));
            let (found, notes) = names(&wrapped.each_ref().map(|name| &**name));
            assert_eq!(found, own, "{prefix}");
            assert_eq!(notes, [format!("the prefix `{prefix}`, which all 2 names share, was removed")]);
        }
        // A name that does not share it, and a module of the network.
        assert_eq!(names(&["module.conv1.weight", "fc.bias"]).0, ["fc.bias", "module.conv1.weight"]);
        assert_eq!(
            names(&["features.0.weight", "features.0.bias"]).0,
            ["features.0.bias", "features.0.weight"]
        );
        let within = names(&["conv1._orig_mod.weight", "fc._fsdp_wrapped_module.bias"]);
        assert_eq!(within.0, own);
        assert_eq!(within.1.len(), 2);
        assert_eq!(names(&[]).0, Vec::<String>::new());
    }

    #[test]
    fn two_tensors_of_one_name_are_an_error() {
        let array = Array { shape: vec![1], values: vec![1.0] };
        let arrays = ["fc.bias", "fc._orig_mod.bias"].map(|name| (name.to_string(), array.clone()));
        assert_eq!(unwrap(arrays.into_iter().collect(), |part| part == "fc").unwrap_err(), "fc.bias");
    }
}
