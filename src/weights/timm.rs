//! What timm's `config.json` beside a weights file says: the architecture, and how images are prepared for it.

use crate::data::preprocessing::{ShortSide, is_mean, is_std};
use crate::data::{MAX_SIZE, Preprocessing};
use crate::error::{Result, failed};
use crate::files;
use crate::printable;
use serde_json::Value;
use std::path::Path;

/// The file's name in timm's repositories.
const NAME: &str = "config.json";

/// timm's `DEFAULT_CROP_PCT`, of configurations that have none.
const CROP_PCT: f64 = 0.875;

/// As timm's `push_to_hf_hub` writes it.
#[derive(Debug, Clone, PartialEq)]
pub struct TimmConfig {
    /// timm's name of the network.
    pub architecture: String,
    /// How images are prepared, as far as it is declared.
    declared: Declared,
    /// What it declares that is not done, a sentence each.
    pub notes: Vec<String>,
    /// Names of the classes, where they are said.
    pub classes: Vec<String>,
}

/// `input_size`, `crop_pct`, `mean` and `std`.
#[derive(Debug, Clone, Default, PartialEq)]
struct Declared {
    size: Option<usize>,
    crop_pct: Option<f64>,
    mean: Option<Vec<f64>>,
    std: Option<Vec<f64>>,
}

impl TimmConfig {
    /// The configuration in the folder of the weights file `path`; none where there is none, or another program's.
    ///
    /// # Errors
    /// When it cannot be read, or is timm's and holds something impossible.
    pub fn beside(path: &Path) -> Result<Option<Self>> {
        let file = path.with_file_name(NAME);
        if !file.is_file() {
            return Ok(None);
        }
        let document: Value = match files::parse_json(&files::read(&file)?) {
            Ok(document) => document,
            Err(error) => {
                let message = format!("{}: not JSON: {error}", file.display());
                return Err(failed(message).hint(AWAY).into());
            }
        };
        let Some(architecture) = document["architecture"].as_str() else { return Ok(None) };
        // Before timm 0.9 the keys were in the document itself.
        let config =
            if document["pretrained_cfg"].is_object() { &document["pretrained_cfg"] } else { &document };
        let declared =
            Declared::of(config).map_err(|what| failed(format!("{}: {what}", file.display())).hint(AWAY))?;
        let names = document["label_names"].as_array().or_else(|| config["label_names"].as_array());
        let names = names.into_iter().flatten().map(|name| name.as_str().map(str::to_string));
        Ok(Some(Self {
            architecture: architecture.to_string(),
            declared,
            notes: notes(&file, config),
            classes: names.collect::<Option<_>>().unwrap_or_default(),
        }))
    }

    /// How images are prepared for it: what is declared, else what `default` says. None where nothing is declared.
    pub fn preprocessing(&self, default: &Preprocessing) -> Option<Preprocessing> {
        let Declared { size, crop_pct, mean, std } = &self.declared;
        if self.declared == Declared::default() {
            return None;
        }
        let mut preprocessing = default.clone();
        if size.is_some() || crop_pct.is_some() {
            preprocessing.size = size.unwrap_or(default.size);
            let ratio = ShortSide::CropRatio(crop_pct.unwrap_or(CROP_PCT));
            preprocessing.resize = ratio.pixels(preprocessing.size);
        }
        preprocessing.mean = mean.clone().unwrap_or(preprocessing.mean);
        preprocessing.std = std.clone().unwrap_or(preprocessing.std);
        (preprocessing.mean.len() == preprocessing.std.len()).then_some(preprocessing)
    }
}

const AWAY: &str = "correct it, or move it away: the network's defaults are used then";

impl Declared {
    fn of(config: &Value) -> Result<Self, String> {
        let list = |key: &str| match &config[key] {
            Value::Null => Ok(None),
            Value::Array(values) => {
                let numbers: Option<Vec<f64>> = values.iter().map(Value::as_f64).collect();
                numbers.map(Some).ok_or_else(|| format!("`{key}` holds something else than numbers"))
            }
            other => Err(format!("`{key}` is {}, but a list is expected", short(other))),
        };
        let size = match list("input_size")?.as_deref() {
            None => None,
            Some(&[_, height, width]) if height == width && (1.0..=MAX_SIZE as f64).contains(&height) => {
                Some(height as usize)
            }
            Some(other) => {
                return Err(format!(
                    "`input_size` is {other:?}, but channels, height and width of square images are expected"
                ));
            }
        };
        let crop_pct = match &config["crop_pct"] {
            Value::Null => None,
            value => match value.as_f64() {
                Some(ratio) if ratio > 0.01 && ratio <= 1.0 => Some(ratio),
                _ => return Err(format!("`crop_pct` is {}, but a fraction of 1 is expected", short(value))),
            },
        };
        let [mean, std] = [list("mean")?, list("std")?];
        for (key, values, is_possible) in
            [("mean", &mean, is_mean as fn(f64) -> bool), ("std", &std, is_std as fn(f64) -> bool)]
        {
            if let Some(value) = values.iter().flatten().find(|value| !is_possible(**value)) {
                return Err(format!("`{key}` holds {value}, but fractions of 255 are expected"));
            }
        }
        if let (Some(mean), Some(std)) = (&mean, &std)
            && (mean.is_empty() || mean.len() != std.len())
        {
            return Err(format!("`mean` has {} values, `std` {}", mean.len(), std.len()));
        }
        Ok(Self { size, crop_pct, mean, std })
    }
}

/// What is declared in `file` and not done.
fn notes(file: &Path, config: &Value) -> Vec<String> {
    let (file, mut notes) = (file.display(), Vec::new());
    let named = |key: &str, done: &str| {
        config[key].as_str().filter(|name| *name != done).map(|name| printable::name(name).to_string())
    };
    if let Some(name) = named("interpolation", "bilinear") {
        notes.push(format!(
            "{file} declares {name} interpolation, but images are resized bilinearly: logits differ from timm's a little"
        ));
    }
    if let Some(name) = named("crop_mode", "center") {
        notes.push(format!(
            "{file} declares the crop mode `{name}`, but the short side is resized and the centre cropped"
        ));
    }
    let test = (config["test_input_size"][1].as_u64(), config["test_crop_pct"].as_f64());
    if test != (None, None) {
        let size = test.0.map_or(String::new(), |size| format!(" --size {size}"));
        let ratio = test.1.map_or(String::new(), |ratio| format!(" --crop-ratio {ratio}"));
        notes.push(format!(
            "{file} declares another size for tests, which timm's validate.py takes:{size}{ratio}"
        ));
    }
    notes
}

/// A JSON value for a message.
fn short(value: &Value) -> String {
    let text: String = value.to_string().chars().take(40).collect();
    printable::name(&text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn config(text: &str) -> Result<Option<TimmConfig>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), text).unwrap();
        TimmConfig::beside(&dir.path().join("model.safetensors"))
    }

    #[test]
    fn a_configuration_of_timm_says_how_images_are_prepared() {
        let of_today = r#"{"architecture": "mobilenetv1_100", "num_classes": 1000, "pretrained_cfg": {
            "input_size": [3, 224, 224], "test_input_size": [3, 256, 256], "crop_pct": 0.95, "test_crop_pct": 1.0,
            "interpolation": "bicubic", "crop_mode": "squash", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
            "label_names": ["cat", "dog"]}"#;
        let found = config(of_today).unwrap().unwrap();
        let expected = Preprocessing { size: 224, resize: 235, mean: vec![0.5; 3], std: vec![0.5; 3] };
        let default = Preprocessing::default();
        assert_eq!(found.architecture, "mobilenetv1_100");
        assert_eq!(found.preprocessing(&default), Some(expected));
        assert_eq!(found.classes, ["cat", "dog"]);
        for (note, part) in found.notes.iter().zip([
            "config.json declares bicubic interpolation",
            "the crop mode `squash`",
            "--size 256 --crop-ratio 1",
        ]) {
            assert!(note.contains(part), "{note}");
        }
        assert_eq!(found.notes.len(), 3);
        let old = r#"{"architecture": "seresnet50", "input_size": [3, 224, 224], "mean": [0.4, 0.4, 0.4], "std": [1, 1, 1],
                      "interpolation": "bilinear", "crop_mode": "center"}"#;
        let old = config(old).unwrap().unwrap();
        assert!(old.notes.is_empty(), "{:?}", old.notes);
        let old = old.preprocessing(&default).unwrap();
        assert_eq!((old.resize, old.mean, old.std), (256, vec![0.4; 3], vec![1.0; 3]));
        let part = config(r#"{"architecture": "x", "std": [0.5, 0.5, 0.5]}"#).unwrap().unwrap();
        let expected = Preprocessing { std: vec![0.5; 3], ..default.clone() };
        assert_eq!(part.preprocessing(&default), Some(expected));
        let none = config(r#"{"architecture": "x", "num_classes": 2}"#).unwrap().unwrap();
        assert_eq!(none.preprocessing(&default), None);
    }

    #[test]
    fn other_files_of_that_name_are_no_configuration_of_timm() {
        for text in ["{}", "[]", r#"{"model": {"name": "se-resnet-20"}}"#, r#"{"architectures": ["ResNet"]}"#]
        {
            assert_eq!(config(text).unwrap(), None, "{text}");
        }
        assert_eq!(TimmConfig::beside(Path::new("/nowhere/a.pth")).unwrap(), None);
        assert_eq!(TimmConfig::beside(Path::new("a.pth")).unwrap(), None);
    }

    #[test]
    fn impossible_values_are_named() {
        for (keys, part) in [
            (r#""std": [0, 0, 0]"#, "config.json: `std` holds 0"),
            (r#""mean": [123.7]"#, "`mean` holds 123.7"),
            (r#""mean": [0.5], "std": [0.5, 0.5, 0.5]"#, "`mean` has 1 values, `std` 3"),
            (r#""mean": ["a"]"#, "`mean` holds something else"),
            (r#""mean": "0.5""#, "`mean` is \"0.5\", but a list"),
            (r#""input_size": [3, 224, 160]"#, "square images"),
            (r#""input_size": [3, 0, 0]"#, "square images"),
            (r#""crop_pct": 87.5"#, "`crop_pct` is 87.5"),
        ] {
            let text = config(&format!(r#"{{"architecture": "x", {keys}}}"#)).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        }
        assert!(config("no JSON").unwrap_err().to_string().contains("config.json: not JSON"));
    }
}
