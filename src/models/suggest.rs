//! Suggestions for misspelt names of networks. Names of different networks are close to each other (`resnest50`,
//! `skresnet50`, `resnet50d`), so only a slip of the keyboard is taken for one, never another word or number.

use super::aliases::ALIASES;
use super::names;

/// Names, ours and [aliases](ALIASES), of which `typed` may be a misspelling: other or no separators, or a letter
/// missing, doubled or swapped with its neighbour.
pub fn suggestions(typed: &str) -> Vec<String> {
    let typed_runs = runs(&typed.to_lowercase());
    let aliases = ALIASES.iter().map(|alias| alias.name.to_string());
    let matches = |name: &String, slips: usize| {
        let runs = runs(name);
        runs.len() == typed_runs.len()
            && runs.iter().zip(&typed_runs).filter(|(run, typed)| run != typed).count() <= slips
            && runs.iter().zip(&typed_runs).all(|(run, typed)| run == typed || is_slip(typed, run))
    };
    let candidates: Vec<String> = aliases.chain(names()).collect();
    let with_slips =
        |slips| candidates.iter().filter(|name| matches(name, slips)).cloned().collect::<Vec<_>>();
    let found = (0..=1).map(with_slips).find(|found| !found.is_empty()).unwrap_or_default();
    // Names with the same separators are likelier; `seresnet-50`, of which there are none, may be two networks.
    let separators = |name: &str| name.chars().filter(|c| !c.is_alphanumeric()).collect::<String>();
    let likelier: Vec<String> =
        found.iter().filter(|name| separators(name) == separators(typed)).cloned().collect();
    if likelier.is_empty() { found } else { likelier }
}

/// The name as runs of letters and of digits, without what separates them: `se-resnext-50-32x4d` is `seresnext`, `50`,
/// `32`, `x`, `4`, `d`.
fn runs(name: &str) -> Vec<String> {
    let mut runs: Vec<String> = Vec::new();
    let mut after_separator = false;
    for c in name.chars() {
        if !c.is_alphanumeric() {
            after_separator = true;
            continue;
        }
        match runs.last_mut() {
            Some(run)
                if run.chars().all(|last| last.is_ascii_digit() == c.is_ascii_digit())
                    && !(after_separator && c.is_ascii_digit()) =>
            {
                run.push(c);
            }
            _ => runs.push(c.to_string()),
        }
        after_separator = false;
    }
    runs
}

/// Whether `typed` is `word` with two neighbours swapped, a letter missing, or a letter doubled. Numbers are never
/// misspelt: they are another network's.
fn is_slip(typed: &str, word: &str) -> bool {
    let [typed, word]: [Vec<char>; 2] = [typed, word].map(|run| run.chars().collect());
    // A word of a few letters, such as `d` or `bn`, is a variant.
    if word.len() < 4 || typed.iter().chain(&word).any(char::is_ascii_digit) {
        return false;
    }
    let without = |letters: &[char], at: usize| [&letters[..at], &letters[at + 1..]].concat();
    let is_swapped = || {
        (1..word.len()).any(|at| {
            let mut swapped = word.clone();
            swapped.swap(at - 1, at);
            swapped == typed
        })
    };
    let is_missing = || (0..word.len()).any(|at| without(&word, at) == typed);
    let is_doubled = || (1..typed.len()).any(|at| typed[at] == typed[at - 1] && without(&typed, at) == word);
    is_swapped() || is_missing() || is_doubled()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_lead_to_the_name_that_was_meant() {
        for (typed, meant) in [
            ("se-resent-50", "se-resnet-50"),
            ("seresent50", "seresnet50"),
            ("se_resnett50", "se_resnet50"),
            ("resnett50", "resnet50"),
            ("SE_ResNet_50_v1.5", "se-resnet-50-v1.5"),
            ("se-mobilnet", "se-mobilenet"),
            ("se-inception-v3", "se-inception-v3"),
            ("legacy-seresnet50", "legacy_seresnet50"),
            ("resnext50-32x4d", "resnext50_32x4d"),
        ] {
            let found = suggestions(typed);
            assert_eq!(found.first().map_or("", String::as_str), meant, "{typed}: {found:?}");
        }
        let both = suggestions("seresnet-50");
        assert!(both.contains(&"seresnet50".into()) && both.contains(&"se-resnet-50".into()), "{both:?}");
    }

    #[test]
    fn other_networks_lead_nowhere() {
        for name in [
            "seresnet51",
            "se-resnet-51",
            "resnet50d",
            "resnet-50d",
            "resnest50",
            "skresnet50",
            "ecaresnet50t",
            "wide_resnet50_2",
            "resnetv2_50",
            "res2net50",
            "seresnext26d_32x4d",
            "efficientnet_b0",
            "resnet26",
            "vgg16",
            "vgg19_bn",
            "inception_v4",
            "mobilenetv1_125",
            "mobilenet_v2",
            "shufflenet_v2_x1_0",
            "transformer",
            "",
        ] {
            assert_eq!(suggestions(name), Vec::<String>::new(), "{name}");
        }
    }
}
