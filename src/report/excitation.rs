//! What the gates of a trained network do (paper §7.2, Figures 6 and 7), as values.

use super::csv::quoted;
use serde::Serialize;

/// The gates of every SE block over a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Excitation {
    /// The network.
    pub model: String,
    /// Where its weights and the images are from, in words, a line each.
    pub setting: Vec<String>,
    /// Images that went through it.
    pub seen: u64,
    /// Names of the chosen classes.
    pub classes: Vec<String>,
    /// The blocks, from the first to the last.
    pub blocks: Vec<BlockGates>,
}

/// The gates of one SE block.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlockGates {
    /// Name of the block's parameters, such as `layer3.5.se`.
    pub name: String,
    /// The paper's name, `SE_4_6` for the sixth block of stage 4, in networks that have stages.
    pub label: String,
    /// Stage, counted as in the paper; `null` in networks without.
    pub stage: Option<i64>,
    /// Whether it is the last of its stage: the paper's figures show these.
    pub is_last_of_stage: bool,
    /// Over all images.
    pub all: Activations,
    /// Over the images of each chosen class.
    pub by_class: Vec<Activations>,
    /// How far the gates are open or shut.
    pub saturation: Saturation,
}

/// Mean gate of each channel over some images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Activations {
    /// Images.
    pub images: u64,
    /// Mean of each channel.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel over the images.
    pub deviation: Vec<f64>,
}

/// Shares of all values (images × channels) of a block's gates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Saturation {
    /// Mean value.
    pub mean: f64,
    /// Share below 0.1: shut.
    pub shut: f64,
    /// Share above 0.9: open.
    pub open: f64,
    /// Share of the values' variance that the classes explain, from 0 (all classes alike) to 1; of the chosen classes.
    pub between_classes: Option<f64>,
}

/// The name of the line over all images, beside those of classes.
const ALL: &str = "all";

impl BlockGates {
    /// How many channels its gates have.
    pub fn channels(&self) -> usize {
        let activations = self.by_class.iter().chain([&self.all]);
        activations.map(|over| over.mean.len().max(over.deviation.len())).max().unwrap_or_default()
    }
}

impl Activations {
    /// Mean and standard deviation of a channel, if there were images to take them of.
    pub fn of_channel(&self, channel: usize) -> (Option<f64>, Option<f64>) {
        let figure = |figures: &[f64]| {
            let figure = figures.get(channel).copied().filter(|figure| figure.is_finite());
            figure.filter(|_| self.images > 0)
        };
        (figure(&self.mean), figure(&self.deviation))
    }
}

/// A line for each channel of each block: one for each chosen class, then one over all images. A cell is empty where
/// there is no figure.
pub fn csv(excitation: &Excitation) -> String {
    let mut csv = "block,label,stage,channel,class,images,mean,deviation\n".to_string();
    let classes: Vec<String> = excitation.classes.iter().map(|class| quoted(class)).collect();
    for block in &excitation.blocks {
        let stage = block.stage.map_or_else(String::new, |stage| stage.to_string());
        let names = [quoted(&block.name), quoted(&block.label), stage].join(",");
        for channel in 0..block.channels() {
            let by_class = classes.iter().map(String::as_str).zip(&block.by_class);
            for (class, over) in by_class.chain([(ALL, &block.all)]) {
                let (mean, deviation) = over.of_channel(channel);
                let [mean, deviation] = [mean, deviation].map(cell);
                csv += &format!("{names},{channel},{class},{},{mean},{deviation}\n", over.images);
            }
        }
    }
    csv
}

fn cell(figure: Option<f64>) -> String {
    figure.map_or_else(String::new, |figure| figure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_a_line_for_each_channel_and_class() {
        let over =
            |images, mean: &[f64]| Activations { images, mean: mean.to_vec(), deviation: vec![0.25; 2] };
        let block = BlockGates {
            name: "layer1.0.se".into(),
            label: "SE \"a\"".into(),
            stage: Some(2),
            is_last_of_stage: true,
            all: over(9, &[0.5, 0.125]),
            by_class: vec![over(4, &[f64::NAN, 0.75]), over(0, &[])],
            saturation: Saturation { mean: 0.5, shut: 0.0, open: 0.0, between_classes: None },
        };
        let excitation = Excitation {
            model: "net".into(),
            setting: vec![],
            seen: 9,
            classes: vec!["tench, Tinca".into(), "pug".into()],
            blocks: vec![block],
        };
        let csv = csv(&excitation);
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(
            lines,
            [
                "block,label,stage,channel,class,images,mean,deviation",
                "layer1.0.se,\"SE \"\"a\"\"\",2,0,\"tench, Tinca\",4,,0.25",
                "layer1.0.se,\"SE \"\"a\"\"\",2,0,pug,0,,",
                "layer1.0.se,\"SE \"\"a\"\"\",2,0,all,9,0.5,0.25",
                "layer1.0.se,\"SE \"\"a\"\"\",2,1,\"tench, Tinca\",4,0.75,0.25",
                "layer1.0.se,\"SE \"\"a\"\"\",2,1,pug,0,,",
                "layer1.0.se,\"SE \"\"a\"\"\",2,1,all,9,0.125,0.25",
            ]
        );
    }
}
