//! Which class of a data set is which output of a network. Names decide, not the order: a part of the classes, or other
//! folders' order, must not shift the labels.

use super::trained::Trained;
use crate::error::{Result, failed};
use crate::models;
use std::collections::HashMap;
use tch::{Device, TchError, Tensor};

/// The outputs of a network that a data set's classes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    /// The output of each of the data set's labels; no output twice.
    outputs: Vec<usize>,
    /// Names of all outputs.
    names: Vec<String>,
}

/// What is compared with what.
#[derive(Debug)]
pub enum Targets {
    /// All logits with the data set's own labels.
    Own,
    /// All logits with other labels: int64 `[classes of the data set]` has the output of each.
    Renamed(Tensor),
    /// The logits of the data set's classes alone, in its order, with its own labels: int64 as above.
    Subset(Tensor),
}

impl ClassMap {
    /// For a data set with these `classes`. They are found by their names, ImageNet's by WordNet id as well as by name;
    /// numbers from 0 on (ImageNet-V2's folders) are labels of a network for ImageNet, and of one whose classes nobody
    /// has named. Where nobody has named them, other names count in their order.
    ///
    /// # Errors
    /// When a class is none of the network's, or two are the same.
    pub fn new(classes: &[String], trained: &Trained) -> Result<Self> {
        Self::between(classes, &trained.classes, trained.classes_are_named)
    }

    fn between(found: &[String], known: &[String], are_named: bool) -> Result<Self> {
        let hint = "evaluate on the data set that the run was trained on, or on some of its classes";
        if found.len() > known.len() {
            let message = format!(
                "the network was trained for {} classes, but the data has {}",
                known.len(),
                found.len()
            );
            return Err(failed(message).hint(hint).into());
        }
        let own_names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let names = spelled(known);
        let is_imagenet = || names.iter().copied().eq(models::imagenet_classes().map(|(_, name)| name));
        if found.len() == known.len()
            && (!are_named || is_imagenet())
            && let Some(outputs) = as_numbers(found)
        {
            return Ok(Self { outputs, names: own_names(&names) });
        }
        let outputs: HashMap<&str, usize> = names.iter().copied().zip(0..).collect();
        let spelling = spelled(found);
        let by_name: Vec<Option<usize>> = spelling.iter().map(|name| outputs.get(name).copied()).collect();
        let Some(missing) = by_name.iter().position(Option::is_none) else {
            let outputs: Vec<usize> = by_name.into_iter().flatten().collect();
            let mut owners = HashMap::new();
            for (class, output) in outputs.iter().enumerate() {
                if let Some(other) = owners.insert(output, class) {
                    let message = format!(
                        "the data's classes `{}` and `{}` are one and the same of the network",
                        found[other], found[class]
                    );
                    return Err(failed(message).hint("put their images into one folder").into());
                }
            }
            return Ok(Self { outputs, names: own_names(&names) });
        };
        if are_named || found.len() != known.len() {
            let message = format!(
                "the data has a class `{}`, which is none of the {} that the network was trained for",
                spelling[missing],
                known.len()
            );
            return Err(failed(message).hint(hint).into());
        }
        Ok(Self { outputs: (0..found.len()).collect(), names: own_names(&spelling) })
    }

    /// Classes of the data set.
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Whether the data set has none.
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Outputs of the network.
    pub fn outputs(&self) -> usize {
        self.names.len()
    }

    /// What to compare: among all outputs, or with `subset` among those of the data set's classes.
    pub fn targets(&self, subset: bool, device: Device) -> Result<Targets, TchError> {
        let in_order = self.outputs.iter().copied().eq(0..self.len());
        if in_order && (!subset || self.len() == self.outputs()) {
            return Ok(Targets::Own);
        }
        let outputs: Vec<i64> = self.outputs.iter().map(|output| *output as i64).collect();
        let outputs = Tensor::f_from_slice(&outputs)?.f_to_device(device)?;
        Ok(if subset { Targets::Subset(outputs) } else { Targets::Renamed(outputs) })
    }

    /// Names of the classes that are compared, in the order of their logits.
    pub fn names(&self, subset: bool) -> Vec<String> {
        match subset {
            true => self.outputs.iter().map(|output| self.names[*output].clone()).collect(),
            false => self.names.clone(),
        }
    }
}

impl Targets {
    /// The logits `[N, classes]` and labels `[N]` that are compared, of a network's logits `[N, outputs]` and a data
    /// set's labels.
    pub fn choose(&self, logits: Tensor, labels: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        Ok(match self {
            Self::Own => (logits, labels.shallow_clone()),
            Self::Renamed(outputs) => (logits, outputs.f_index_select(0, labels)?),
            Self::Subset(outputs) => (logits.f_index_select(1, outputs)?, labels.shallow_clone()),
        })
    }
}

/// The classes as numbers, if they are those from 0 on, in any order.
fn as_numbers(classes: &[String]) -> Option<Vec<usize>> {
    let number = |class: &String| {
        let digits = (1..=9).contains(&class.len()) && class.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| class.parse().ok()).flatten()
    };
    let numbers: Vec<usize> = classes.iter().map(number).collect::<Option<_>>()?;
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..numbers.len()).then_some(numbers)
}

/// Names of classes, ImageNet's by their names where the folders are called by their WordNet ids.
pub fn spelled(classes: &[String]) -> Vec<&str> {
    let names: HashMap<&str, &str> = models::imagenet_classes().collect();
    classes.iter().map(|class| names.get(class.as_str()).copied().unwrap_or(class)).collect()
}

/// The labels that ImageNet has for these classes, if they are its, by name or by WordNet id.
pub fn imagenet_labels(classes: &[String]) -> Vec<Option<u16>> {
    let labels: HashMap<&str, u16> = models::imagenet_classes().map(|(_, name)| name).zip(0..).collect();
    spelled(classes).into_iter().map(|name| labels.get(name).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| word.to_string()).collect()
    }

    fn map(found: &[&str], known: &[&str], are_named: bool) -> Result<Vec<usize>> {
        Ok(ClassMap::between(&strings(found), &strings(known), are_named)?.outputs)
    }

    fn imagenet() -> (Vec<String>, Vec<String>) {
        models::imagenet_classes().map(|(id, name)| (id.to_string(), name.to_string())).unzip()
    }

    #[test]
    fn classes_are_found_by_name() {
        let known = ["ant", "bee", "cat", "dog"];
        assert_eq!(map(&known, &known, true).unwrap(), [0, 1, 2, 3]);
        assert_eq!(map(&["cat", "ant"], &known, true).unwrap(), [2, 0]);
        let refusal = |found: &[&str]| map(found, &known, true).unwrap_err().to_string();
        assert!(refusal(&["ant", "fox"]).contains("class `fox`, which is none of the 4"));
        assert!(refusal(&["0", "1", "2", "3"]).contains("class `0`"));
        let five = refusal(&["ant", "bee", "cat", "dog", "fox"]);
        assert!(five.contains("trained for 4 classes, but the data has 5"), "{five}");
    }

    #[test]
    fn imagenets_classes_have_an_id_a_name_and_a_number() {
        let (ids, names) = imagenet();
        for known in [&ids, &names] {
            // Numbers sorted as text, as folders are.
            let mut numbers: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
            numbers.sort_unstable();
            let found = ClassMap::between(&numbers, known, true).unwrap();
            assert_eq!((numbers[2].as_str(), found.outputs[2]), ("10", 10));
            assert_eq!(found.names(true)[2], names[10]);
            let some = ClassMap::between(&ids[990..], known, false).unwrap();
            assert_eq!((some.len(), some.outputs(), some.outputs[0]), (10, 1000, 990));
            assert_eq!(some.names(true), names[990..]);
            let few = ClassMap::between(&numbers[..10], known, true).unwrap_err().to_string();
            assert!(few.contains("class `0`"), "{few}");
        }
        let twice =
            ClassMap::between(&[ids[3].clone(), names[3].clone()], &names, true).unwrap_err().to_string();
        assert!(twice.contains("one and the same"), "{twice}");
        let labels = imagenet_labels(&[names[7].clone(), "unicorn".to_string(), ids[9].clone()]);
        assert_eq!(labels, [Some(7), None, Some(9)]);
    }

    #[test]
    fn classes_that_nobody_named_count_in_order() {
        let numbers = ["0", "1", "2"];
        assert_eq!(map(&["cat", "dog", "fox"], &numbers, false).unwrap(), [0, 1, 2]);
        assert_eq!(map(&["2", "0", "1"], &numbers, false).unwrap(), [2, 0, 1]);
        assert!(map(&["cat", "dog"], &numbers, false).is_err());
        let named = ClassMap::between(&strings(&["cat", "dog", "fox"]), &strings(&numbers), false).unwrap();
        assert_eq!(named.names(false), ["cat", "dog", "fox"]);
        assert_eq!(as_numbers(&strings(&["01", "00"])), Some(vec![1, 0]));
        for other in [["0", "2"], ["1", "1"], ["-0", "1"], ["0", "99999999999999999999"]] {
            assert_eq!(as_numbers(&strings(&other)), None, "{other:?}");
        }
    }

    #[test]
    fn targets_are_labels_of_outputs_or_outputs_of_labels() {
        let map =
            ClassMap::between(&strings(&["cat", "ant"]), &strings(&["ant", "bee", "cat"]), true).unwrap();
        let (logits, labels) = (Tensor::from_slice2(&[[1f32, 2., 3.]]), Tensor::from_slice(&[0i64]));
        let choose = |targets: &Targets| {
            let (logits, labels) = targets.choose(logits.shallow_clone(), &labels).unwrap();
            (Vec::<f32>::try_from(logits.flatten(0, -1)).unwrap(), labels.int64_value(&[0]))
        };
        assert_eq!(choose(&map.targets(false, Device::Cpu).unwrap()), (vec![1., 2., 3.], 2));
        assert_eq!(choose(&map.targets(true, Device::Cpu).unwrap()), (vec![3., 1.], 0));
        let own = ClassMap::between(&strings(&["ant"]), &strings(&["ant", "bee"]), true).unwrap();
        assert!(matches!(own.targets(false, Device::Cpu).unwrap(), Targets::Own));
        assert!(matches!(own.targets(true, Device::Cpu).unwrap(), Targets::Subset(_)));
    }
}
