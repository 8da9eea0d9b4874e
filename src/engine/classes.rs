//! Which class of a data set is which output of a network. Names decide, not the order: a part of the classes, or other
//! folders' order, must not shift the labels.

use super::trained::Trained;
use crate::data::class_order::{ClassOrder, are_numbers, as_text, by_number, number};
use crate::error::{Result, failed, usage};
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
    /// How numbers were read, and what is said of it, where the other order would give other outputs.
    reading: Option<(ClassOrder, String)>,
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
    /// has named, unless `order` says that they are sorted as text. Where nobody has named them, other names count in
    /// their order.
    ///
    /// # Errors
    /// When a class is none of the network's, two are the same, or there are no numbers to be read in an `order`.
    pub fn new(classes: &[String], trained: &Trained, order: ClassOrder) -> Result<Self> {
        Self::between(classes, &trained.classes, trained.classes_are_named, order)
    }

    fn between(found: &[String], known: &[String], are_named: bool, order: ClassOrder) -> Result<Self> {
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
        if are_numbers(found) && (!are_named || is_imagenet()) {
            if let Some(read) = Self::of_numbers(found, known, are_named, order) {
                return Ok(read);
            }
        } else if order != ClassOrder::Auto {
            let message = if are_numbers(found) {
                "`--class-order` is given, but the network's classes have names, by which the data's folders are matched"
            } else {
                "`--class-order` is given, but the data's classes are not named by numbers"
            };
            return Err(usage(message).hint("leave it out").into());
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
            return Ok(Self { outputs, names: own_names(&names), reading: None });
        };
        if are_named || found.len() != known.len() {
            let message = format!(
                "the data has a class `{}`, which is none of the {} that the network was trained for",
                spelling[missing],
                known.len()
            );
            return Err(failed(message).hint(hint).into());
        }
        Ok(Self { outputs: (0..found.len()).collect(), names: own_names(&spelling), reading: None })
    }

    /// For classes that are all numbers, and a network that has nothing to match them by; `None` where names decide after
    /// all.
    fn of_numbers(found: &[String], known: &[String], are_named: bool, order: ClassOrder) -> Option<Self> {
        let is_whole = found.len() == known.len();
        let counts_from_0 = as_numbers(found);
        // Where some are missing, those that a network's numbers name.
        let all = if is_whole { found.to_vec() } else { (0..known.len()).map(|n| n.to_string()).collect() };
        if order == ClassOrder::Auto && are_named && counts_from_0.is_none()
            || !is_whole && (are_named || found.iter().any(|class| !all.contains(class)))
        {
            return None;
        }
        let outputs_in = |sorted: &[String]| -> Vec<usize> {
            let outputs: HashMap<&String, usize> = sorted.iter().zip(0..).collect();
            found.iter().map(|class| outputs[class]).collect()
        };
        let (text, numeric) = (as_text(&all), by_number(&all));
        let (of_text, of_numbers) = (outputs_in(&text), outputs_in(&numeric));
        let chosen = match order {
            ClassOrder::Auto if counts_from_0.is_some() || !is_whole => ClassOrder::Numeric,
            ClassOrder::Auto => ClassOrder::Alphabetical,
            given => given,
        };
        let example = (0..found.len()).find(|class| of_text[*class] != of_numbers[*class]);
        let reading = example.map(|class| {
            let (folder, text, number) = (&found[class], of_text[class], of_numbers[class]);
            let said = if chosen == ClassOrder::Numeric {
                format!(
                    "class folders are named by numbers: folder {folder} is output {number} (`--class-order alphabetical`: \
                     output {text}, as torchvision's ImageFolder sorts them)"
                )
            } else {
                format!(
                    "class folders are named by numbers and sorted as text, as torchvision's ImageFolder does: folder \
                     {folder} is output {text} (`--class-order numeric`: output {number})"
                )
            };
            (chosen, said)
        });
        let (outputs, sorted) = match chosen {
            ClassOrder::Numeric => (of_numbers, numeric),
            _ => (of_text, text),
        };
        // ImageNet's outputs have names of their own, if the folders are its labels.
        let is_imagenet = known.len() == models::imagenet_classes().count() && chosen == ClassOrder::Numeric;
        let names = if is_imagenet && counts_from_0.is_some() {
            spelled(known).into_iter().map(str::to_string).collect()
        } else {
            sorted
        };
        Some(Self { outputs, names, reading })
    }

    /// How class folders that are named by numbers were read, and a sentence about it, where the other order would give
    /// other outputs.
    pub fn reading(&self) -> Option<&(ClassOrder, String)> {
        self.reading.as_ref()
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
    let numbers: Vec<usize> = classes.iter().map(|class| number(class)).collect::<Option<_>>()?;
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
        Ok(ClassMap::between(&strings(found), &strings(known), are_named, ClassOrder::Auto)?.outputs)
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
            let found = ClassMap::between(&numbers, known, true, ClassOrder::Auto).unwrap();
            assert_eq!((numbers[2].as_str(), found.outputs[2]), ("10", 10));
            assert_eq!(found.names(true)[2], names[10]);
            let some = ClassMap::between(&ids[990..], known, false, ClassOrder::Auto).unwrap();
            assert_eq!((some.len(), some.outputs(), some.outputs[0]), (10, 1000, 990));
            assert_eq!(some.names(true), names[990..]);
            let few =
                ClassMap::between(&numbers[..10], known, true, ClassOrder::Auto).unwrap_err().to_string();
            assert!(few.contains("class `0`"), "{few}");
        }
        let twice = ClassMap::between(&[ids[3].clone(), names[3].clone()], &names, true, ClassOrder::Auto)
            .unwrap_err()
            .to_string();
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
        let named =
            ClassMap::between(&strings(&["cat", "dog", "fox"]), &strings(&numbers), false, ClassOrder::Auto)
                .unwrap();
        assert_eq!(named.names(false), ["cat", "dog", "fox"]);
        assert_eq!(as_numbers(&strings(&["01", "00"])), Some(vec![1, 0]));
        for other in [["0", "2"], ["1", "1"], ["-0", "1"], ["0", "99999999999999999999"]] {
            assert_eq!(as_numbers(&strings(&other)), None, "{other:?}");
        }
    }

    #[test]
    fn numbers_are_read_as_the_order_says_and_that_is_said() {
        let read = |found: &[&str], outputs: usize, are_named: bool, order: ClassOrder| {
            let known: Vec<String> = (0..outputs).map(|output| output.to_string()).collect();
            let map = ClassMap::between(&strings(found), &known, are_named, order).unwrap();
            let said = map.reading().map(|(_, said)| said.clone()).unwrap_or_default();
            (map.outputs.clone(), said, map.names(true))
        };
        use ClassOrder::{Alphabetical, Auto, Numeric};
        let eleven = ["0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9"];
        let by_number = vec![0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9];
        for order in [Auto, Numeric] {
            let (outputs, said, names) = read(&eleven, 11, false, order);
            assert_eq!((outputs, names), (by_number.clone(), strings(&eleven)));
            assert!(
                said.contains("folder 10 is output 10 (`--class-order alphabetical`: output 2"),
                "{said}"
            );
        }
        let (outputs, said, names) = read(&eleven, 11, false, Alphabetical);
        assert_eq!((outputs, names), ((0..11).collect::<Vec<_>>(), strings(&eleven)));
        assert!(said.contains("folder 10 is output 2 (`--class-order numeric`: output 10"), "{said}");

        // Numbers from 1 on: nothing says that they are outputs.
        let from_1 = ["1", "10", "2", "3", "4", "5", "6", "7", "8", "9"];
        let (outputs, said, _) = read(&from_1, 10, false, Auto);
        assert_eq!(outputs, (0..10).collect::<Vec<_>>());
        assert!(said.contains("folder 10 is output 1 (`--class-order numeric`: output 9"), "{said}");
        assert_eq!(read(&from_1, 10, false, Numeric).0, [0, 9, 1, 2, 3, 4, 5, 6, 7, 8]);

        // Some of the folders: the others' names are known.
        let (outputs, said, _) = read(&["2", "10"], 11, false, Auto);
        assert!(outputs == [2, 10] && said.contains("folder 2 is output 2"), "{said}");
        let (outputs, _, names) = read(&["2", "10"], 11, false, Alphabetical);
        assert_eq!((outputs, names), (vec![3, 2], strings(&["2", "10"])));

        // Where both orders are one, and where names decide, nothing is said.
        let padded = ["00", "01", "02", "03", "04", "05", "06", "07", "08", "09", "10"];
        for (found, are_named) in [(&padded, false), (&eleven, true)] {
            let (outputs, said, _) = read(found, 11, are_named, Auto);
            let expected = if are_named { by_number.clone() } else { (0..11).collect() };
            assert!(outputs == expected && said.is_empty(), "{found:?}: {said}");
        }
        let refusal = |found: &[&str], are_named: bool| {
            let known = if are_named { strings(found) } else { strings(&["0", "1"]) };
            ClassMap::between(&strings(found), &known, are_named, Numeric).unwrap_err().to_string()
        };
        assert!(refusal(&["0", "1"], true).contains("classes have names"));
        assert!(refusal(&["cat", "dog"], false).contains("not named by numbers"));
        let (_, names) = imagenet();
        let mut folders: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        folders.sort_unstable();
        for are_named in [true, false] {
            let map = ClassMap::between(&folders, &names, are_named, Alphabetical).unwrap();
            assert_eq!((map.outputs[2], map.names(false)[2].as_str()), (2, "10"));
        }
    }

    #[test]
    fn targets_are_labels_of_outputs_or_outputs_of_labels() {
        let map = ClassMap::between(
            &strings(&["cat", "ant"]),
            &strings(&["ant", "bee", "cat"]),
            true,
            ClassOrder::Auto,
        )
        .unwrap();
        let (logits, labels) = (Tensor::from_slice2(&[[1f32, 2., 3.]]), Tensor::from_slice(&[0i64]));
        let choose = |targets: &Targets| {
            let (logits, labels) = targets.choose(logits.shallow_clone(), &labels).unwrap();
            (Vec::<f32>::try_from(logits.flatten(0, -1)).unwrap(), labels.int64_value(&[0]))
        };
        assert_eq!(choose(&map.targets(false, Device::Cpu).unwrap()), (vec![1., 2., 3.], 2));
        assert_eq!(choose(&map.targets(true, Device::Cpu).unwrap()), (vec![3., 1.], 0));
        let own =
            ClassMap::between(&strings(&["ant"]), &strings(&["ant", "bee"]), true, ClassOrder::Auto).unwrap();
        assert!(matches!(own.targets(false, Device::Cpu).unwrap(), Targets::Own));
        assert!(matches!(own.targets(true, Device::Cpu).unwrap(), Targets::Subset(_)));
    }
}
