//! The index of shards: members become samples.

use super::super::images::{EXTENSIONS, MAX_FILE_BYTES, has_image_extension};
use super::super::index::{FRESH, Index, Kind, MAX_CLASSES, Stamp, Unit, is_inside};
use super::super::workers;
use super::find::Found;
use super::tar::{Fault, Member, MemberKind, Members, decimal};
use super::{Broken, ShardOptions};
use crate::error::{Problem, Result, failed};
use crate::escaped::shown;
use crate::files::parse_json;
use anyhow::Context;
use serde::Deserialize;
use std::fs::{self, File};
use std::path::Path;

/// Longest label file and longest JSON file.
const MAX_CLS: u64 = 64;
const MAX_JSON: u64 = 1 << 20;

/// Whether an index is still that of the shards, or why not.
pub(super) fn is_current(index: &Index, found: &Found, broken: Broken) -> Result<(), String> {
    let names = (0..index.units()).map(|unit| index.unit_path(unit));
    if !names.eq(found.names.iter().map(String::as_bytes)) {
        return Err("the shards are others".to_string());
    }
    if broken == Broken::Refuse
        && (index.skipped()[3] > 0 || (0..index.units()).any(|unit| index.cut(unit).is_some()))
    {
        return Err("it leaves out what is broken".to_string());
    }
    let changed = |unit: usize| {
        let path = found.folder.join(&found.names[unit]);
        if index.stamp(unit).modified == FRESH {
            return Some(format!("{} was new when it was listed", shown(&path)));
        }
        let stamp = fs::metadata(&path).map(|metadata| Stamp::of_shard(&metadata));
        (stamp.ok() != Some(index.stamp(unit))).then(|| format!("{} has changed", shown(&path)))
    };
    match workers::map(index.units(), workers::for_listing(), changed).into_iter().flatten().next() {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

/// Reads the headers of all shards.
pub(super) fn list(found: &Found, root: &Path, options: &ShardOptions) -> Result<Index> {
    let units = workers::map(found.names.len(), workers::for_listing(), |shard| {
        let path = found.folder.join(&found.names[shard]);
        list_shard(&path, &found.names[shard], options)
    });
    Index::build(Kind::Shards, root, &[], units.into_iter().collect::<Result<Vec<_>>>()?)
}

/// The members of one key.
#[derive(Default)]
struct Group {
    key: Vec<u8>,
    header: u64,
    image: Option<(u64, u64)>,
    cls: Option<(u64, u64)>,
    json: Option<(u64, u64)>,
    /// Images whose file names have more dots, and which are no other form of an image of this key.
    dotted: u32,
    /// Whether there are labels of such names.
    has_dotted_labels: bool,
}

fn list_shard(path: &Path, name: &str, options: &ShardOptions) -> Result<Unit> {
    let unreadable = || format!("cannot read {}", shown(path));
    let file = File::open(path).with_context(unreadable)?;
    let metadata = file.metadata().with_context(unreadable)?;
    let stamp = options.cache.settled(Stamp::of_shard(&metadata), Kind::Shards);
    let unit = Unit::new(name.as_bytes(), stamp);
    list_members(Members::new(&file, metadata.len()), unit, path, options.broken)
}

/// Adds the samples among the members of a shard to `unit`. `path` only names the shard in errors.
///
/// # Errors
/// When the archive is damaged, a sample has no label, or two samples have the same key.
pub fn list_members(mut members: Members<'_>, mut unit: Unit, path: &Path, broken: Broken) -> Result<Unit> {
    let mut group = Group::default();
    let damaged = |fault: Fault| -> anyhow::Error {
        let hint = match fault.truncated {
            true => "fetch it again; `senet data pack --salvage` takes the whole samples before the cut",
            false => "fetch or pack it again",
        };
        problem(path, fault.offset, &fault.what).hint(hint).into()
    };
    loop {
        match members.next_member() {
            Ok(Some(member)) => {
                take_in(&mut group, &member, &mut unit, &mut members, path, broken)?;
            }
            Ok(None) => break,
            Err(fault) if fault.truncated && broken == Broken::KeepWhole => {
                // At 0 there would be no mark that it is cut; an empty file is cut at "1".
                unit.cut = fault.offset.max(1);
                break;
            }
            Err(fault) => return Err(damaged(fault)),
        }
    }
    if unit.cut == 0 || (group.image.is_some() && (group.cls.is_some() || group.json.is_some())) {
        close(&group, &mut unit, &mut members, path, broken)?;
    }
    refuse_twins(&unit, path)?;
    Ok(unit)
}

fn problem(path: &Path, offset: u64, what: &str) -> Problem {
    failed(format!("{}, byte {offset}: {what}", shown(path)))
}

/// A member finds its place in its group, or begins the next.
fn take_in(
    group: &mut Group,
    member: &Member,
    unit: &mut Unit,
    members: &mut Members<'_>,
    path: &Path,
    broken: Broken,
) -> Result<()> {
    match member.kind {
        MemberKind::Folder => return Ok(()),
        MemberKind::Link | MemberKind::Special => {
            unit.skipped[0] += 1;
            return Ok(());
        }
        MemberKind::File => {}
    }
    if !is_inside(&member.name) {
        unit.skipped[1] += 1;
        return Ok(());
    }
    let name = member.name.strip_prefix(b"./").unwrap_or(&member.name);
    let base = name.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    // Hidden files and files without a dot belong to no sample.
    let Some(dot) = name[base..].iter().position(|byte| *byte == b'.').filter(|dot| *dot > 0) else {
        return Ok(());
    };
    let (key, extension) = (&name[..base + dot], name[base + dot + 1..].to_ascii_lowercase());
    if key != group.key {
        close(group, unit, members, path, broken)?;
        *group = Group { key: key.to_vec(), header: member.header, ..Group::default() };
    }
    let image = EXTENSIONS.iter().any(|known| extension == known.as_bytes());
    let slot = match extension.as_slice() {
        _ if image => &mut group.image,
        b"cls" => &mut group.cls,
        b"json" => &mut group.json,
        other => {
            group.dotted += u32::from(other.contains(&b'.') && has_image_extension(other));
            group.has_dotted_labels |= other.ends_with(b".cls") || other.ends_with(b".json");
            return Ok(());
        }
    };
    if slot.is_some() {
        let what = if image { "image" } else { "label" };
        let what = format!("a second {what} of the key `{}`", group.key.escape_ascii());
        return Err(problem(path, member.header, &what)
            .hint("a key must have one image and one label")
            .into());
    }
    if image && member.size > MAX_FILE_BYTES {
        let what = format!("`{}`: {} bytes are too many for an image", name.escape_ascii(), member.size);
        return Err(problem(path, member.header, &what).hint("pack the shard again without it").into());
    }
    *slot = Some((member.offset, member.size));
    Ok(())
}

/// A whole group becomes a sample.
fn close(
    group: &Group,
    unit: &mut Unit,
    members: &mut Members<'_>,
    path: &Path,
    broken: Broken,
) -> Result<()> {
    if group.key.is_empty() {
        return Ok(());
    }
    // Beside an image of the key, `KEY.seg.png` is another form of it.
    if group.image.is_none() || group.has_dotted_labels {
        unit.skipped[4] += group.dotted;
    }
    let Some((offset, length)) = group.image else {
        unit.skipped[2] += u32::from(group.dotted == 0);
        return Ok(());
    };
    let key = group.key.escape_ascii();
    let label = match (group.cls, group.json) {
        (Some((at, size)), _) => {
            let bytes = members
                .read(at, size, MAX_CLS, "a label")
                .map_err(|fault| problem(path, fault.offset, &format!("`{key}.cls`: {}", fault.what)))?;
            let label = decimal(bytes.trim_ascii()).ok_or_else(|| format!("\"{}\"", bytes.escape_ascii()));
            (label, at, "cls")
        }
        (None, Some((at, size))) => {
            let bytes = members
                .read(at, size, MAX_JSON, "a label")
                .map_err(|fault| problem(path, fault.offset, &format!("`{key}.json`: {}", fault.what)))?;
            (label_of_json(&bytes), at, "json")
        }
        (None, None) if broken == Broken::KeepWhole => {
            unit.skipped[3] += 1;
            return Ok(());
        }
        (None, None) => {
            let what = format!("the key `{key}` has an image, but neither `.cls` nor `.json` beside it");
            return Err(problem(path, group.header, &what)
                .hint("members of one key must follow one another")
                .into());
        }
    };
    match label {
        (Ok(label), ..) if label < MAX_CLASSES as u64 => {
            unit.push_piece(&group.key, label as u32, offset, length as u32);
            Ok(())
        }
        (label, at, kind) => {
            let found = label.map_or_else(|what| what, |label| label.to_string());
            let what =
                format!("`{key}.{kind}`: a label from 0 to {} is expected, not {found}", MAX_CLASSES - 1);
            Err(problem(path, at, &what).hint("labels count from 0, in decimal digits").into())
        }
    }
}

/// What JSON beside an image says of its class.
#[derive(Deserialize)]
struct Described {
    cls: Option<serde_json::Value>,
    label: Option<serde_json::Value>,
}

fn label_of_json(bytes: &[u8]) -> Result<u64, String> {
    let described: Described = parse_json(bytes).map_err(|error| format!("JSON that is broken ({error})"))?;
    // A table that became JSON has numbers as strings.
    let number = |value: &Option<serde_json::Value>| {
        let value = value.as_ref()?;
        value.as_u64().or_else(|| decimal(value.as_str()?.as_bytes()))
    };
    match (number(&described.cls), number(&described.label)) {
        (Some(cls), Some(label)) if cls != label => Err(format!("both `cls` {cls} and `label` {label}")),
        (Some(label), _) | (None, Some(label)) => Ok(label),
        (None, None) => Err("JSON without a number as `cls` or `label`".to_string()),
    }
}

/// A key that comes again, after others, would name two samples.
fn refuse_twins(unit: &Unit, path: &Path) -> Result<()> {
    let mut order: Vec<u32> = (0..unit.len() as u32).collect();
    let name = |sample: u32| unit.name(sample as usize);
    order.sort_unstable_by(|a, b| name(*a).cmp(name(*b)).then(a.cmp(b)));
    match order.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        None => Ok(()),
        Some(pair) => {
            let message = format!(
                "{}: the key `{}` names two samples, numbers {} and {}",
                shown(path),
                name(pair[0]).escape_ascii(),
                pair[0] + 1,
                pair[1] + 1
            );
            Err(failed(message).hint("keys must be unique in a shard; pack it again").into())
        }
    }
}
