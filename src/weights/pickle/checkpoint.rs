//! Where trainers keep the weights, and the moving average of them, among all that a checkpoint holds.

use super::Step;
use super::machine::{Machine, Value};
use crate::error::{Problem, failed};
use crate::printable::{name as shown, quoted};
use crate::weights::state_dict::AVERAGE_COUNTER;
use std::collections::{BTreeMap, HashSet};

/// Keys of the weights: timm, torchvision's references, Lightning, Composer, DeepSpeed, BasicSR and others; in order of
/// preference.
const WEIGHTS: [&str; 13] = [
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "net_state_dict",
    "weights",
    "module",
    "params",
    "shadow",
    "state",
    "checkpoint",
];

/// Keys of their moving average.
const AVERAGES: [&str; 12] = [
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "model_state_dict_ema",
    "ema",
    "ema_model",
    "ema_state",
    "ema_weights",
    "params_ema",
    "averaged_model",
    "swa_state_dict",
];

/// Dicts within dicts that are searched.
const MAX_DEPTH: usize = 4;

/// The tensors that were meant.
pub struct Chosen<'a> {
    /// Each with its name and its place in the machine.
    pub tensors: Vec<(&'a str, usize)>,
    pub notes: Vec<String>,
}

/// A dict of tensors, and the keys that lead to it.
struct Found<'a> {
    keys: Vec<&'a str>,
    dict: BTreeMap<&'a str, Value<'a>>,
}

type Dict<'a> = BTreeMap<&'a str, Value<'a>>;

/// Chooses the weights of what the pickle left or, with `average`, their moving average.
pub fn choose<'a>(machine: &Machine<'a>, top: Value<'a>, average: bool) -> Step<Chosen<'a>> {
    let (Value::Dict(id) | Value::Object(_, id)) = top else {
        return Err(failed(format!("holds {}, not a dict of tensors", top.kind())).hint(SAVE));
    };
    let dict = machine.dict(id);
    if let (Value::Object(class, _), true) = (top, dict.is_empty()) {
        return Err(whole_object(machine, class, ""));
    }
    let averaged = averages(machine, &dict);
    // Loose tensors beside an average are counters, not a network.
    let is_network = |found: &Found<'_>| {
        averaged.is_none()
            || !found.keys.is_empty()
            || tensors(&found.dict).any(|(name, _)| name.contains('.'))
    };
    let plain = weights(machine, dict.clone(), 0, &mut HashSet::from([id])).filter(is_network);
    let is_average = |found: &Found<'_>| found.dict.contains_key(AVERAGE_COUNTER);
    let mut notes = Vec::new();
    let found = match (average, averaged, plain) {
        (true, Some(averaged), _) => averaged,
        (true, None, Some(plain)) if is_average(&plain) => plain,
        (true, None, _) => {
            return Err(failed(format!("holds no moving average of the weights; {}", keys(&dict)))
                .hint("without `--ema` the weights themselves are taken"));
        }
        (false, Some(averaged), Some(plain)) => {
            let key = quoted(&averaged.keys.join("."));
            notes.push(format!("it also holds a moving average of the weights ({key}), which `--ema` takes"));
            plain
        }
        (false, None, Some(plain)) => {
            if is_average(&plain) {
                notes.push(format!("the weights are a moving average (`{AVERAGE_COUNTER}`)"));
            }
            plain
        }
        (false, Some(averaged), None) => {
            let key = quoted(&averaged.keys.join("."));
            notes.push(format!("it holds the moving average of the weights alone ({key}); that was taken"));
            averaged
        }
        (false, None, None) => only_other(machine, &dict, &mut notes)?,
    };
    // A tensor of a kind that is not read must not be missing without a word.
    for (name, value) in &found.dict {
        if let Value::Object(class, _) = value
            && let ("torch._utils" | "torch._tensor", function) = machine.class(*class)
        {
            return Err(failed(format!(
                "tensor {}: made by `{}`, which is not read",
                quoted(name),
                shown(function)
            ))
            .hint("quantized, sparse and nested tensors are not read: save the weights as dense float32"));
        }
    }
    Ok(Chosen { tensors: tensors(&found.dict).collect(), notes })
}

/// How weights are saved.
const SAVE: &str = "save the weights by name: `torch.save(model.state_dict(), \"new.pth\")`";

/// The weights in `dict`: below one of their usual keys, or its own tensors.
fn weights<'a>(
    machine: &Machine<'a>,
    dict: Dict<'a>,
    depth: usize,
    seen: &mut HashSet<usize>,
) -> Option<Found<'a>> {
    if depth < MAX_DEPTH {
        for (key, id) in WEIGHTS.iter().filter_map(|key| below(&dict, key)) {
            if seen.insert(id)
                && let Some(mut found) = weights(machine, machine.dict(id), depth + 1, seen)
            {
                found.keys.insert(0, key);
                return Some(found);
            }
        }
    }
    let holds_tensors = tensors(&dict).next().is_some();
    holds_tensors.then(|| Found { keys: Vec::new(), dict })
}

/// The moving average in a checkpoint, beside the weights or where Composer keeps its state.
fn averages<'a>(machine: &Machine<'a>, dict: &Dict<'a>) -> Option<Found<'a>> {
    let of = |dict: &Dict<'a>| {
        AVERAGES.iter().filter_map(|key| below(dict, key)).find_map(|(key, id)| {
            let mut found = weights(machine, machine.dict(id), 1, &mut HashSet::from([id]))?;
            found.keys.insert(0, key);
            Some(found)
        })
    };
    of(dict).or_else(|| {
        let (key, id) = below(dict, "state")?;
        let mut found = of(&machine.dict(id))?;
        found.keys.insert(0, key);
        Some(found)
    })
}

/// The dict under `key`.
fn below<'a>(dict: &Dict<'a>, key: &str) -> Option<(&'a str, usize)> {
    match dict.get_key_value(key)? {
        (key, Value::Dict(id) | Value::Object(_, id)) => Some((key, *id)),
        _ => None,
    }
}

fn tensors<'a, 'd>(dict: &'d Dict<'a>) -> impl Iterator<Item = (&'a str, usize)> + use<'a, 'd> {
    dict.iter().filter_map(|(name, value)| match value {
        Value::Tensor(id) => Some((*name, *id)),
        _ => None,
    })
}

/// The tensors under the only key that has a dict of them, whatever it is called.
fn only_other<'a>(machine: &Machine<'a>, dict: &Dict<'a>, notes: &mut Vec<String>) -> Step<Found<'a>> {
    for key in WEIGHTS.iter().chain(&AVERAGES) {
        if let Some(Value::Object(class, _)) = dict.get(key) {
            return Err(whole_object(machine, *class, &format!("[\"{key}\"]")));
        }
    }
    let others = dict.iter().filter_map(|(key, value)| match value {
        Value::Dict(id) => Some((*key, machine.dict(*id))),
        _ => None,
    });
    let mut others = others.filter(|(_, dict)| tensors(dict).any(|(name, _)| name.contains('.')));
    match (others.next(), others.next()) {
        (Some((key, dict)), None) => {
            notes.push(format!("the weights are those under {}", quoted(key)));
            Ok(Found { keys: vec![key], dict })
        }
        (Some((one, _)), Some((other, _))) => {
            let which = format!("{} and {} both hold tensors", quoted(one), quoted(other));
            Err(failed(format!("does not say which of its tensors are the weights: {which}")).hint(SAVE))
        }
        (None, _) => Err(failed(format!("holds no tensors; {}", keys(dict)))
            .hint(format!("the tensors are looked for at the top and under {}", WEIGHTS.join(", ")))),
    }
}

fn keys(dict: &Dict<'_>) -> String {
    let keys: Vec<String> =
        dict.keys().take(8).map(|key| if key.is_empty() { quoted(key) } else { shown(key) }).collect();
    let more = if dict.len() > keys.len() { ", …" } else { "" };
    format!("its keys are [{}{more}]", keys.join(", "))
}

/// A pickled object where weights were expected, most often a whole module: its class would have to be imported and run.
fn whole_object(machine: &Machine<'_>, class: usize, key: &str) -> Problem {
    let (module, name) = machine.class(class);
    let class = shown(&format!("{module}.{name}"));
    failed(format!("holds a whole object of the class `{class}`, not a dict of tensors")).hint(format!(
        "if you trust the file, save the weights of that module with PyTorch: \
         `torch.save(torch.load(\"old.pth\", weights_only=False){key}.state_dict(), \"new.pth\")`"
    ))
}
