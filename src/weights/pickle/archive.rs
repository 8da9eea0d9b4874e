//! The zip that `torch.save` writes: plain members, found in place and never copied.

use super::Step;
use crate::error::failed;
use crate::printable::quoted;
use std::collections::HashMap;
use std::io::{self, Cursor};
use zip::{CompressionMethod, ZipArchive};

/// A zip has two marks of its end, and chance puts one more into each 2 GiB of weights.
const MAX_ENDS: usize = 16;

/// How a file of another format becomes one of this.
const RESAVE: &str = "re-save it: `torch.save(torch.load(\"old.pth\", weights_only=True), \"new.pth\")`";

/// The members of a zip whose members all lie in it uncompressed.
pub struct Archive<'a> {
    members: HashMap<String, &'a [u8]>,
    /// What comes before `data.pkl` in the members' names: the name that the file was saved under, and `/`.
    folder: String,
}

impl<'a> Archive<'a> {
    pub fn open(bytes: &'a [u8]) -> Step<Self> {
        // The zip reader tries all that looks like a directory's end, and reads the directory each time.
        let end = |window: &&[u8]| matches!(*window, b"PK\x05\x06" | b"PK\x06\x06");
        if bytes.windows(4).filter(end).nth(MAX_ENDS).is_some() {
            return Err(failed("not the zip archive that torch.save writes (it has many ends)"));
        }
        let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| {
            let whole = format!("not a whole zip archive, as torch.save writes it ({error})");
            failed(whole).hint("the file is cut short or damaged; fetch it again")
        })?;
        let named = |name: &str, last: &str| {
            name.strip_suffix(last).is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
        };
        if zip.file_names().any(|name| named(name, "constants.pkl")) {
            return Err(failed("is a TorchScript archive, and a state dict was expected").hint(
                "save its weights: `torch.save(torch.jit.load(\"old.pt\").state_dict(), \"new.pth\")`",
            ));
        }
        if zip.file_names().any(|name| named(name, "archive_format") || named(name, "models/model.json")) {
            return Err(failed("is a program of torch.export, and a state dict was expected").hint(
                "save its weights: `torch.save(dict(torch.export.load(\"old.pt2\").state_dict), \"new.pth\")`",
            ));
        }
        if zip.file_names().any(|name| name.ends_with(".npy")) {
            return Err(failed("is an archive of NumPy arrays, and a state dict was expected"));
        }
        let mut pickles = zip.file_names().filter(|name| named(name, "data.pkl"));
        let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
            return Err(failed("a zip archive, but without the one data.pkl that torch.save writes"));
        };
        let folder = pickle.strip_suffix("data.pkl").unwrap_or_default().to_string();
        drop(pickles);
        let broken = |error| failed(format!("the zip archive is broken ({error})"));
        let mut members = HashMap::new();
        let mut total = 0;
        for index in 0..zip.len() {
            let member = zip.by_index_raw(index).map_err(broken)?;
            let name = member.name().to_string();
            if member.compression() != CompressionMethod::Stored || member.encrypted() {
                let message = format!("member {} is compressed or encrypted", quoted(&name));
                return Err(failed(message).hint(RESAVE));
            }
            let (start, size) = (member.data_start(), member.size());
            let content = start.and_then(|start| {
                bytes.get(usize::try_from(start).ok()?..)?.get(..usize::try_from(size).ok()?)
            });
            let Some(content) = content.filter(|_| member.compressed_size() == size) else {
                return Err(failed(format!("member {} ends beyond the file", quoted(&name))));
            };
            // Members that overlap would let a small file ask for endless checksums.
            total += content.len();
            if total > bytes.len() {
                return Err(failed("the zip archive is broken (its members overlap)"));
            }
            // Without checksums (`set_crc32_options(False)`), PyTorch writes 0.
            let checked = member.crc32() != 0;
            drop(member);
            if checked {
                let mut member = zip.by_index(index).map_err(broken)?;
                io::copy(&mut member, &mut io::sink())
                    .map_err(|error| failed(format!("member {}: {error}", quoted(&name))))?;
            }
            members.insert(name, content);
        }
        let archive = Self { members, folder };
        match archive.member("byteorder") {
            Ok(b"big") => Err(failed("was saved on a big-endian machine, and little-endian was expected")
                .hint("re-save it on a machine of today")),
            _ => Ok(archive),
        }
    }

    /// A member's bytes, by its name in the folder.
    pub fn member(&self, name: &str) -> Step<&'a [u8]> {
        let missing = || failed(format!("the zip archive has no member {}", quoted(name)));
        self.members.get(&format!("{}{name}", self.folder)).copied().ok_or_else(missing)
    }
}
