//! PyTorch's format before 1.6: a magic number, a version, facts of the machine, the pickle of the objects, and the keys of
//! the storages, each pickled; then the storages, each with its number of values before it.

use super::Step;
use super::machine::{Machine, Value};
use crate::error::failed;
use std::collections::HashMap;

/// The first pickle of such a file holds this number.
const MAGIC: &[u8] = b"l\xfc\x9cF\xf9 j\xa8P\x19.";

/// The only version there ever was.
const VERSION: i64 = 1001;

/// The objects of such a file and its storages by key.
pub struct Legacy<'a> {
    pub machine: Machine<'a>,
    pub top: Value<'a>,
    pub storages: HashMap<&'a str, &'a [u8]>,
}

impl<'a> Legacy<'a> {
    pub fn open(bytes: &'a [u8]) -> Step<Self> {
        let start = &bytes[..bytes.len().min(32)];
        let Some(at) = start.windows(MAGIC.len()).position(|window| window == MAGIC) else {
            return Err(failed("a pickle, but not one that torch.save wrote")
                .hint("save the weights by PyTorch: `torch.save(model.state_dict(), \"new.pth\")`"));
        };
        let mut version = Machine::new(&bytes[at + MAGIC.len()..]);
        if !matches!(version.run()?, Value::Int(VERSION)) {
            return Err(failed("was saved in a version of PyTorch's old format that is not known"));
        }
        let mut system = Machine::new(version.rest());
        if let Value::Dict(facts) = system.run()?
            && matches!(system.dict(facts).get("little_endian"), Some(Value::Flag(false)))
        {
            return Err(failed("was saved on a big-endian machine, and little-endian was expected")
                .hint("re-save it on a machine of today"));
        }
        let mut machine = Machine::new(system.rest());
        let top = machine.run()?;
        let mut keys = Machine::new(machine.rest());
        let Value::List(list) = keys.run()? else {
            return Err(failed("the list of its storages is damaged"));
        };
        let widths = machine.storage_widths();
        let (mut storages, mut rest) = (HashMap::new(), keys.rest());
        for key in keys.list(list)? {
            let Value::Text(key) = key else {
                return Err(failed("the list of its storages is damaged"));
            };
            let width = widths.get(key).copied();
            let storage = width.and_then(|width| {
                let (count, behind) = rest.split_first_chunk::<8>()?;
                let bytes = usize::try_from(u64::from_le_bytes(*count)).ok()?.checked_mul(width)?;
                behind.split_at_checked(bytes)
            });
            let Some((storage, behind)) = storage else {
                return Err(failed("its storages end early, or are damaged").hint("fetch the file again"));
            };
            rest = behind;
            storages.insert(key, storage);
        }
        Ok(Self { machine, top, storages })
    }
}
