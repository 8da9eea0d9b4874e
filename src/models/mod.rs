//! The zoo: names, and the networks behind them.

pub mod aliases;
mod bn_inception;
mod cifar;
mod inception;
mod inception_resnet;
mod inception_v3;
mod mobilenet;
mod preact;
mod resnet;
mod shake;
mod shufflenet;
mod suggest;
mod vgg;

use crate::data::Preprocessing;
use crate::error::{Result, usage};
use crate::net::cost::Shape;
use crate::net::se::{Placement, SeSpec};
use crate::net::{Node, dropout, identity};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::path::PathBuf;

/// Which network, how its SE blocks are built, and what it starts from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSpec {
    /// A name of the zoo, such as `se-resnet-50`, or timm's or torchvision's, such as `seresnet50`.
    #[serde(deserialize_with = "canonical_name")]
    #[schemars(schema_with = "names_schema")]
    pub name: String,
    /// Its SE blocks; nothing to a network without them.
    pub se: SeSpec,
    /// Probability of dropout, in networks that have it; `null` is what the network was made with.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: Option<f64>,
    /// Stochastic depth, in networks with residual sums: the probability with which the last of them leaves its branch
    /// out; the first never does, and those between by the linear rule.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub drop_path: f64,
    /// Weights to start from; `null` starts from random ones.
    pub weights: Option<PathBuf>,
    /// What becomes of the classifier in `weights`.
    pub head: Head,
}

/// What becomes of the classifier of weights that training starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Head {
    /// It is taken over; the number of classes must be the same.
    Keep,
    /// It starts from random values, for any number of classes.
    New,
}

/// The names of the zoo, for editors to complete; capitals, and names with timm's tags, are as good.
fn names_schema(_: &mut SchemaGenerator) -> Schema {
    let aliases: Vec<&str> = ALIASES.iter().map(|alias| alias.name).collect();
    json_schema!({ "anyOf": [{ "enum": names() }, { "enum": aliases }, { "type": "string", "pattern": "[A-Z]|_in" }] })
}

/// Networks are stored under our names.
fn canonical_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(canonical(&String::deserialize(deserializer)?))
}

/// Our name of the network called `name`, in lower case. An unknown name stays what it is.
pub fn canonical(name: &str) -> String {
    alias_named(name).map_or_else(|| name.to_lowercase(), |alias| alias.canonical.to_string())
}

impl Default for ModelSpec {
    fn default() -> Self {
        Self::named("se-resnet-20")
    }
}

/// A network of the zoo, without its number of classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Entry {
    /// Name of the network without SE.
    pub base: &'static str,
    /// What tells it from its neighbours.
    pub about: &'static str,
    /// What it was made for.
    pub input: Shape,
    /// Number of classes it was made for.
    pub classes: i64,
    /// Length of the short side before the centre crop of an evaluation, in pixels.
    resize: usize,
    family: Family,
}

/// Which file describes it, and the row of its table.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Family {
    ResNet(resnet::Table),
    BnInception,
    InceptionV3,
    InceptionResNetV2,
    Vgg16,
    MobileNet,
    ShuffleNet,
    Cifar { blocks: usize },
    PreAct(preact::Table),
    Shake,
}

/// Who has what is asked for.
const PLACES: &str = "ResNet-50 and its relatives for photographs have all stages (2 to 5) and placements";

impl Family {
    /// Whether its networks have tensors of the same names and shapes as those of `other`.
    fn has_tensors_of(&self, other: &Self) -> bool {
        matches!((self, other), (Family::ResNet(one), Family::ResNet(two)) if one.has_tensors_of(two))
    }

    /// The stages that can have SE blocks or not; none where there is no such choice.
    fn stages(&self) -> &'static [i64] {
        match self {
            Family::ResNet(_) => &[2, 3, 4, 5],
            Family::Cifar { .. } | Family::PreAct(_) | Family::Shake => &[2, 3, 4],
            _ => &[],
        }
    }

    /// Where its SE blocks can sit.
    fn places(&self) -> &'static [Placement] {
        use Placement::{
            Identity, IdentityBeforeProjection, Inside, InsideBeforeNorm, Post, Pre, PreShared, Standard,
        };
        const UNIT: &[Placement] = &[Standard, Pre, PreShared, Post, Identity, IdentityBeforeProjection];
        const ALL: &[Placement] =
            &[Standard, Pre, PreShared, Post, Identity, IdentityBeforeProjection, Inside, InsideBeforeNorm];
        match self {
            Family::ResNet(table) if table.has_bottlenecks() => ALL,
            Family::ResNet(_) | Family::Cifar { .. } => UNIT,
            _ => &[Standard],
        }
    }
}

/// Most classes; a classifier on 2048 features then holds 8 GB.
const MAX_CLASSES: i64 = 1_000_000;

/// For 224 × 224, of an image whose short side became 256.
const fn imagenet(base: &'static str, about: &'static str, family: Family) -> Entry {
    Entry { base, about, input: square(224), classes: 1000, resize: 256, family }
}

/// For 299 × 299.
const fn imagenet_299(base: &'static str, about: &'static str, resize: usize, family: Family) -> Entry {
    Entry { base, about, input: square(299), classes: 1000, resize, family }
}

const fn small(base: &'static str, about: &'static str, family: Family) -> Entry {
    Entry { base, about, input: square(32), classes: 10, resize: 32, family }
}

/// 6n + 2 layers.
const fn cifar(base: &'static str, blocks: usize) -> Entry {
    small(base, "He et al. 2015 §4.2, shortcuts without parameters", Family::Cifar { blocks })
}

const fn square(size: i64) -> Shape {
    Shape { channels: 3, height: size, width: size }
}

const RELEASED: &str = "the authors' form: stride on a block's first convolution, ceil-mode pool";
const RELEASED_X: &str = "the authors' form: stride on the 3×3, ceil-mode pool";
const V1_5: &str = "as in torchvision and timm: stride on the 3×3, padded pool";
const LEGACY: &str = "as in timm's legacy_seresnet: a ReLU before SE, ceil-mode pool";

use Family::ResNet;
use aliases::{ALIASES, Alias, alias_named};
use resnet::Form::{Legacy, Released, V1_5 as Ported};
use resnet::{basic, bottleneck, grouped, senet_154};

/// All networks; each also exists [with SE](Entry::se_name).
pub const ZOO: &[Entry] = &[
    imagenet("resnet-18", RELEASED, ResNet(basic([2, 2, 2, 2], Released))),
    imagenet("resnet-34", RELEASED, ResNet(basic([3, 4, 6, 3], Released))),
    imagenet("resnet-50", RELEASED, ResNet(bottleneck([3, 4, 6, 3], Released))),
    imagenet("resnet-101", RELEASED, ResNet(bottleneck([3, 4, 23, 3], Released))),
    imagenet("resnet-152", RELEASED, ResNet(bottleneck([3, 8, 36, 3], Released))),
    imagenet("resnet-18-v1.5", V1_5, ResNet(basic([2, 2, 2, 2], Ported))),
    imagenet("resnet-34-v1.5", V1_5, ResNet(basic([3, 4, 6, 3], Ported))),
    imagenet("resnet-50-v1.5", V1_5, ResNet(bottleneck([3, 4, 6, 3], Ported))),
    imagenet("resnet-101-v1.5", V1_5, ResNet(bottleneck([3, 4, 23, 3], Ported))),
    imagenet("resnet-152-v1.5", V1_5, ResNet(bottleneck([3, 8, 36, 3], Ported))),
    imagenet("resnet-18-legacy", LEGACY, ResNet(basic([2, 2, 2, 2], Legacy))),
    imagenet("resnet-34-legacy", LEGACY, ResNet(basic([3, 4, 6, 3], Legacy))),
    imagenet("resnext-50-32x4d", RELEASED_X, ResNet(grouped(32, 4, [3, 4, 6, 3], Released))),
    imagenet("resnext-101-32x4d", RELEASED_X, ResNet(grouped(32, 4, [3, 4, 23, 3], Released))),
    imagenet("resnext-101-64x4d", RELEASED_X, ResNet(grouped(64, 4, [3, 4, 23, 3], Released))),
    imagenet("resnext-101-32x8d", RELEASED_X, ResNet(grouped(32, 8, [3, 4, 23, 3], Released))),
    imagenet("resnext-50-32x4d-v1.5", V1_5, ResNet(grouped(32, 4, [3, 4, 6, 3], Ported))),
    imagenet("resnext-101-32x4d-v1.5", V1_5, ResNet(grouped(32, 4, [3, 4, 23, 3], Ported))),
    imagenet("resnext-101-64x4d-v1.5", V1_5, ResNet(grouped(64, 4, [3, 4, 23, 3], Ported))),
    imagenet("resnext-101-32x8d-v1.5", V1_5, ResNet(grouped(32, 8, [3, 4, 23, 3], Ported))),
    imagenet("senet-154-without-se", RELEASED_X, ResNet(senet_154(Released))),
    imagenet("senet-154-v1.5-without-se", V1_5, ResNet(senet_154(Ported))),
    imagenet("bn-inception", "as the authors of SE released it", Family::BnInception),
    imagenet_299("inception-v3", "as in torchvision, no auxiliary classifier", 342, Family::InceptionV3),
    imagenet_299(
        "inception-resnet-v2",
        "as Google released it and timm has it",
        352,
        Family::InceptionResNetV2,
    ),
    imagenet("vgg-16-bn", "as in torchvision, with batch normalisation", Family::Vgg16),
    imagenet("mobilenet", "width 1.0, as in timm: ReLU6", Family::MobileNet),
    imagenet("shufflenet", "width 1, 3 groups", Family::ShuffleNet),
    cifar("resnet-20", 3),
    cifar("resnet-32", 5),
    cifar("resnet-44", 7),
    cifar("resnet-56", 9),
    cifar("resnet-110", 18),
    small("preact-resnet-110", "He et al. 2016, basic blocks", Family::PreAct(preact::RESNET_110)),
    small("preact-resnet-164", "He et al. 2016, bottlenecks", Family::PreAct(preact::RESNET_164)),
    small("wrn-16-8", "Zagoruyko & Komodakis 2016", Family::PreAct(preact::WRN_16_8)),
    small("shake-shake-26-2x96d", "Gastaldi 2017, mixed by image", Family::Shake),
];

/// The classes of ImageNet-1k: a line for each, of its WordNet id and its name.
const IMAGENET_CLASSES: &str = include_str!("imagenet_classes.txt");

/// WordNet ids and names of the 1000 classes of ImageNet-1k, in the order of their labels.
pub fn imagenet_classes() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = IMAGENET_CLASSES.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' '))
}

impl Entry {
    /// Name of the network with SE: `se-` and the other name, but SENet-154 is never called otherwise.
    pub fn se_name(&self) -> String {
        match self.base.strip_suffix("-without-se") {
            Some(name) => name.to_string(),
            None => format!("se-{}", self.base),
        }
    }

    /// How photographs are prepared for it, as torchvision and timm do: ImageNet's statistics, Google's for the
    /// networks of 299 × 299.
    pub fn preprocessing(&self) -> Preprocessing {
        let (size, resize) = (self.input.height as usize, self.resize);
        match self.family {
            Family::InceptionV3 | Family::InceptionResNetV2 => {
                Preprocessing { size, resize, mean: vec![0.5; 3], std: vec![0.5; 3] }
            }
            _ => Preprocessing { size, resize, ..Preprocessing::default() },
        }
    }

    /// Name of the last layer, whose outputs are the classes.
    pub fn classifier(&self) -> &'static str {
        match self.family {
            Family::InceptionResNetV2 => "classif",
            Family::Vgg16 => "classifier.6",
            Family::MobileNet => "classifier",
            _ => "fc",
        }
    }
}

/// All names, those without SE first.
pub fn names() -> Vec<String> {
    let plain = ZOO.iter().map(|entry| entry.base.to_string());
    plain.chain(ZOO.iter().map(Entry::se_name)).collect()
}

/// The entry behind `name` (upper or lower case, or an [alias](aliases)), and whether it has SE blocks.
///
/// # Errors
/// When the zoo has no such network; names of which it may be a misspelling are suggested.
pub fn find(name: &str) -> Result<(&'static Entry, bool)> {
    let lower = canonical(name);
    if let Some(entry) = ZOO.iter().find(|entry| entry.base == lower) {
        return Ok((entry, false));
    }
    if let Some(entry) = ZOO.iter().find(|entry| entry.se_name() == lower) {
        return Ok((entry, true));
    }
    let described = |name: String| match alias_named(&name) {
        Some(alias) => format!("`{name}` ({})", alias.canonical),
        None => format!("`{name}`"),
    };
    let near: Vec<String> = suggest::suggestions(&lower).into_iter().map(described).collect();
    let hint = match near.is_empty() {
        false => format!("did you mean {}? `senet summary --list` names all", near.join(" or ")),
        true => "`senet summary --list` names all".to_string(),
    };
    Err(usage(format!("unknown network `{name}` (`model.name`)")).hint(hint).into())
}

/// What all families ask of a specification.
#[derive(Clone, Copy)]
struct Variant<'a> {
    /// The SE blocks, if there are any.
    se: Option<&'a SeSpec>,
    /// C of the images.
    channels: i64,
    classes: i64,
    dropout: Option<f64>,
}

impl Variant<'_> {
    /// `features` of `[c_in, c]` channels with an SE block behind them, in networks with SE.
    fn recalibrated(&self, features: Node, channels: [i64; 2]) -> Node {
        match self.se {
            Some(se) => se.after(features, channels),
            None => features,
        }
    }

    /// An SE block within a branch, in networks whose SE sits in this place.
    fn recalibrated_inside(&self, place: Placement, channels: i64) -> Node {
        match self.se {
            Some(se) if se.placement == place => se.block(channels),
            _ => identity(),
        }
    }

    /// The same, for the blocks of a stage.
    fn in_stage(&self, stage: i64) -> Self {
        Self { se: self.se.filter(|se| se.is_in(stage)), ..*self }
    }

    /// The probability of dropout that was asked for, or what the network was made with.
    fn dropout_or(&self, made_with: f64) -> f64 {
        self.dropout.unwrap_or(made_with)
    }

    fn dropout(&self, made_with: f64) -> Node {
        dropout(self.dropout_or(made_with))
    }
}

impl ModelSpec {
    /// The network of this name with the default settings.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_string(),
            se: SeSpec::default(),
            dropout: None,
            drop_path: 0.0,
            weights: None,
            head: Head::Keep,
        }
    }

    /// The network that a user calls `name`, with the settings that an [alias](aliases) means.
    ///
    /// # Errors
    /// When the zoo has no such network.
    pub fn called(name: &str) -> Result<Self> {
        find(name)?;
        Ok(alias_named(name).map_or_else(|| Self::named(&name.to_lowercase()), Alias::spec))
    }

    /// The description of this network for images of `channels` channels and that many `classes`.
    ///
    /// # Errors
    /// When the name is unknown or a setting is out of its range.
    pub fn describe(&self, channels: i64, classes: i64) -> Result<Node> {
        let (entry, with_se) = find(&self.name)?;
        self.se.check()?;
        if let Some(p) = self.dropout.filter(|p| !(0.0..1.0).contains(p)) {
            let message = format!("`model.dropout` is {p}, but it must be from 0 to less than 1");
            return Err(usage(message).hint("`null` is what the network was made with").into());
        }
        if !(1..=MAX_CLASSES).contains(&classes) {
            let message =
                format!("a network of {classes} classes cannot be made: 1 to {MAX_CLASSES} are possible");
            return Err(usage(message).hint("ImageNet-1k has 1000 classes, ImageNet-21k 21841").into());
        }
        self.check_se_places(entry)?;
        let se = with_se.then_some(&self.se);
        let variant = Variant { se, channels, classes, dropout: self.dropout };
        let node = match entry.family {
            Family::ResNet(table) => resnet::describe(&table, &variant),
            Family::BnInception => bn_inception::describe(&variant),
            Family::InceptionV3 => inception_v3::describe(&variant),
            Family::InceptionResNetV2 => inception_resnet::describe(&variant),
            Family::Vgg16 => vgg::describe(&variant),
            Family::MobileNet => mobilenet::describe(&variant),
            Family::ShuffleNet => shufflenet::describe(&variant),
            Family::Cifar { blocks } => cifar::describe(blocks, &variant),
            Family::PreAct(table) => preact::describe(&table, &variant),
            Family::Shake => shake::describe(&variant),
        };
        if self.drop_path == 0.0 {
            return Ok(node);
        }
        self.check_drop_path(&node)?;
        Ok(node.with_drop_path(self.drop_path))
    }

    fn check_drop_path(&self, node: &Node) -> Result<()> {
        let rate = self.drop_path;
        if !(0.0..1.0).contains(&rate) {
            let message = format!("`model.drop_path` is {rate}, but it must be from 0 to less than 1");
            return Err(usage(message).hint("0.05 to 0.2 is usual").into());
        }
        if node.sums() == 0 {
            let message = format!("`model.drop_path` is {rate}, but {} has no residual sums", self.name);
            return Err(usage(message)
                .hint("stochastic depth leaves out branches of sums; set it to 0")
                .into());
        }
        Ok(())
    }

    /// Refuses SE blocks in places that the network does not have.
    fn check_se_places(&self, entry: &Entry) -> Result<()> {
        let possible = entry.family.stages();
        if let Some(stages) = self.se.stages.as_deref() {
            let fits = !stages.is_empty() && stages.iter().all(|stage| possible.contains(stage));
            if !fits {
                let list: Vec<_> = possible.iter().map(i64::to_string).collect();
                let possible = match list.is_empty() {
                    true => "`null`, all that it has".to_string(),
                    false => format!("some of {}", list.join(", ")),
                };
                let message = format!("`model.se.stages` is {stages:?}, but {} takes {possible}", self.name);
                return Err(usage(message).hint(PLACES).into());
            }
        }
        let placement = self.se.placement;
        if !entry.family.places().contains(&placement) {
            let lacks = match placement {
                Placement::Inside | Placement::InsideBeforeNorm => "bottlenecks",
                _ => "residual units that end with a ReLU",
            };
            let name = serde_json::to_value(placement)?;
            let message = format!("`model.se.placement` is {name}, but {} has no {lacks}", self.name);
            return Err(usage(message).hint(PLACES).into());
        }
        Ok(())
    }

    /// The same network without its SE blocks.
    pub fn without_se(&self) -> Self {
        let name = find(&self.name).map_or_else(|_| self.name.clone(), |(entry, _)| entry.base.to_string());
        Self { name, ..self.clone() }
    }
}
