//! Inspection: what the gates of a trained network's SE blocks do (paper §7.2, Figures 6 and 7).

use super::classes::spelled;
use super::eval::{Examined, Request, Subject};
use crate::data::Dataset;
use crate::error::{Result, TorchContext, failed, nearest, usage};
use crate::net::gates::{BlockGate, gated_blocks};
use crate::report::event::{Observer, Tick};
use crate::report::excitation::{Activations, BlockGates, Excitation, Saturation};
use tch::{Device, Kind, TchError};

/// Classes that are looked at one by one where nobody chooses, at most.
const FEW_CLASSES: usize = 20;
/// Below this a gate is shut, and above 1 - this it is open.
const SHUT: f64 = 0.1;

/// Runs the evaluation images through the network and averages the gates of each block: over the images of each of
/// `chosen` classes (all, if there are few and none is chosen), and over all images.
///
/// # Errors
/// When weights, data and network do not fit together, it has no gates, or a class is unknown.
pub fn excitation(
    subject: Subject<'_>,
    request: &Request,
    chosen: &[String],
    observer: &mut dyn Observer,
) -> Result<(Excitation, Option<String>)> {
    let examined = Examined::open(subject, request)?;
    let Examined { trained, dataset, experiment, .. } = &examined;
    let names = gated_blocks(&trained.node);
    if names.is_empty() {
        let message = format!("{} has no SE blocks with gates", trained.spec.name);
        return Err(failed(message).hint("inspect a network whose name begins with `se-`").into());
    }
    let classes = choose(chosen, dataset.as_ref())?;
    let (mut blocks, mut done): (Vec<Sums>, u64) = (Vec::new(), 0);
    let normalise = trained.normalise();
    for batch in examined.batches() {
        let batch = batch?;
        let labels = to_host_labels(&batch.labels).torch_context(|| "cannot read the labels".to_string())?;
        let gates = normalise.apply(&batch.pixels).and_then(|images| trained.net.gates(&images));
        let gates = gates.torch_context(|| "cannot compute the gates of a batch".to_string())?;
        if blocks.is_empty() {
            blocks =
                gates.iter().map(|gate| Sums::new(gate.values.size()[1] as usize, classes.len())).collect();
        }
        for (block, gate) in blocks.iter_mut().zip(&gates) {
            block
                .add(gate, &labels, &classes)
                .torch_context(|| format!("cannot read the gates of {}", gate.block))?;
        }
        done += batch.len as u64;
        observer.tick(Tick::Eval { done, total: dataset.len() as u64 });
    }
    let spelling = spelled(dataset.classes());
    let setting = vec![format!("{}, {done} evaluation images", experiment.data.in_words())];
    let excitation = Excitation {
        model: trained.spec.name.clone(),
        setting,
        seen: done,
        classes: classes.iter().map(|class| spelling[*class].to_string()).collect(),
        blocks: names
            .iter()
            .zip(&blocks)
            .enumerate()
            .map(|(at, (name, sums))| sums.gates(name, at, &names))
            .collect(),
    };
    Ok((excitation, examined.warning))
}

fn to_host_labels(labels: &tch::Tensor) -> Result<Vec<i64>, TchError> {
    Vec::<i64>::try_from(labels.f_to_device(Device::Cpu)?)
}

/// Indices of the classes that are looked at one by one.
fn choose(chosen: &[String], dataset: &dyn Dataset) -> Result<Vec<usize>> {
    let classes = dataset.classes();
    if chosen.is_empty() {
        return Ok(if classes.len() <= FEW_CLASSES { (0..classes.len()).collect() } else { Vec::new() });
    }
    let names = spelled(classes);
    let find = |word: &String| {
        let found = classes
            .iter()
            .zip(&names)
            .position(|(class, name)| [class.as_str(), *name].contains(&word.as_str()));
        found.ok_or_else(|| {
            let message = format!("the data has no class `{word}`");
            let hint = nearest(word, names.iter().copied()).map(|near| format!("did you mean `{near}`?"));
            usage(message)
                .hint(hint.unwrap_or_else(|| format!("the first of its {} is `{}`", names.len(), names[0])))
                .into()
        })
    };
    chosen.iter().map(find).collect()
}

/// Sums over images of one block's gates.
struct Sums {
    all: Moments,
    by_class: Vec<Moments>,
    shut: u64,
    open: u64,
}

/// Count, sum and sum of squares for each channel.
#[derive(Clone)]
struct Moments {
    images: u64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn new(channels: usize) -> Self {
        Self { images: 0, sum: vec![0.0; channels], squares: vec![0.0; channels] }
    }

    fn add(&mut self, values: &[f32]) {
        self.images += 1;
        for ((sum, squares), value) in self.sum.iter_mut().zip(&mut self.squares).zip(values) {
            let value = f64::from(*value);
            *sum += value;
            *squares += value * value;
        }
    }

    fn activations(&self) -> Activations {
        let images = self.images as f64;
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / images).collect();
        let variance =
            self.squares.iter().zip(&mean).map(|(squares, mean)| (squares / images - mean * mean).max(0.0));
        let deviation = variance.map(f64::sqrt).collect();
        let known = |values: Vec<f64>| if self.images == 0 { Vec::new() } else { values };
        Activations { images: self.images, deviation: known(deviation), mean: known(mean) }
    }
}

impl Sums {
    fn new(channels: usize, classes: usize) -> Self {
        let moments = Moments::new(channels);
        Self { all: moments.clone(), by_class: vec![moments; classes], shut: 0, open: 0 }
    }

    fn add(&mut self, gate: &BlockGate, labels: &[i64], classes: &[usize]) -> Result<(), TchError> {
        // sync: the gates of a batch are read once.
        let values =
            gate.values.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
        let values = Vec::<f32>::try_from(values)?;
        self.shut += values.iter().filter(|value| f64::from(**value) < SHUT).count() as u64;
        self.open += values.iter().filter(|value| f64::from(**value) > 1.0 - SHUT).count() as u64;
        for (image, label) in values.chunks_exact(self.all.sum.len()).zip(labels) {
            self.all.add(image);
            if let Some(class) = classes.iter().position(|class| *class as i64 == *label) {
                self.by_class[class].add(image);
            }
        }
        Ok(())
    }

    /// What came of it, for the block called `name`, which is number `at` of `names`.
    fn gates(&self, name: &str, at: usize, names: &[String]) -> BlockGates {
        let place = Place::of(name);
        let values = (self.all.images * self.all.sum.len() as u64) as f64;
        BlockGates {
            name: name.to_string(),
            label: place.label(name),
            stage: place.stage,
            is_last_of_stage: names.get(at + 1).is_none_or(|next| {
                let next = Place::of(next);
                next.group != place.group || place.group.is_empty()
            }),
            all: self.all.activations(),
            by_class: self.by_class.iter().map(Moments::activations).collect(),
            saturation: Saturation {
                mean: self.all.sum.iter().sum::<f64>() / values,
                shut: self.shut as f64 / values,
                open: self.open as f64 / values,
                between_classes: self.between_classes(),
            },
        }
    }

    /// Share of the variance over images, channel by channel, that lies between the classes.
    fn between_classes(&self) -> Option<f64> {
        let classes: Vec<&Moments> = self.by_class.iter().filter(|class| class.images > 0).collect();
        if classes.len() < 2 {
            return None;
        }
        let images: f64 = classes.iter().map(|class| class.images as f64).sum();
        let (mut between, mut total) = (0.0, 0.0);
        for channel in 0..self.all.sum.len() {
            let mean = classes.iter().map(|class| class.sum[channel]).sum::<f64>() / images;
            let squares: f64 = classes.iter().map(|class| class.squares[channel]).sum();
            let of_class = |class: &&Moments| {
                let count = class.images as f64;
                count * (class.sum[channel] / count - mean).powi(2)
            };
            between += classes.iter().map(of_class).sum::<f64>();
            total += squares - images * mean * mean;
        }
        (total > 0.0).then(|| (between / total).clamp(0.0, 1.0))
    }
}

/// Where in a network a block sits, by its name.
struct Place {
    /// The paper's stage.
    stage: Option<i64>,
    /// Number within the stage, from 1.
    number: Option<i64>,
    /// What blocks of one stage have in common.
    group: String,
}

impl Place {
    /// `layer3.5.se` is the sixth block of stage 4.
    fn of(name: &str) -> Self {
        let unit = name.strip_suffix(".se").unwrap_or(name);
        let (group, number) = unit.rsplit_once('.').unwrap_or(("", unit));
        let stage = group.strip_prefix("layer").and_then(|layer| layer.parse::<i64>().ok());
        Self {
            stage: stage.map(|layer| layer + 1),
            number: number.parse::<i64>().ok().map(|number| number + 1),
            group: group.to_string(),
        }
    }

    fn label(&self, name: &str) -> String {
        match (self.stage, self.number) {
            (Some(stage), Some(number)) => format!("SE_{stage}_{number}"),
            _ => name.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_called_as_in_the_paper() {
        let labels =
            ["layer1.2.se", "layer4.0.se", "inception_3a.se"].map(|name| Place::of(name).label(name));
        assert_eq!(labels, ["SE_2_3", "SE_5_1", "inception_3a.se"]);
    }

    #[test]
    fn means_deviations_and_what_lies_between_classes() {
        let mut sums = Sums::new(2, 2);
        // Channel 0 tells the classes apart and nothing else; channel 1 is the same for all.
        for (class, value) in [(0, 0.25), (0, 0.25), (1, 0.75), (1, 0.75)] {
            sums.all.add(&[value, 0.5]);
            sums.by_class[class].add(&[value, 0.5]);
        }
        let gates = sums.gates("layer1.0.se", 0, &["layer1.0.se".to_string(), "layer1.1.se".to_string()]);
        assert_eq!(
            (gates.all.images, &gates.all.mean, &gates.all.deviation),
            (4, &vec![0.5, 0.5], &vec![0.25, 0.0])
        );
        assert_eq!(gates.by_class[1].mean, [0.75, 0.5]);
        assert_eq!(gates.saturation.between_classes, Some(1.0));
        assert!(!gates.is_last_of_stage);
    }
}
