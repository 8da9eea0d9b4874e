//! The types and functions that a pickle names: those that tensors are made of, and all others, of which only the name
//! is kept.

use crate::weights::dtype::Dtype;

/// What the pickle may name.
#[derive(Clone, Copy)]
pub enum Global {
    /// A dict, or one of its relatives.
    Dict,
    /// `_rebuild_tensor_v2`, and its ancestor with fewer arguments.
    RebuildTensor,
    /// `_rebuild_tensor_v3`, which says the type of the numbers.
    RebuildTyped,
    RebuildParameter,
    /// `_rebuild_from_type_v2`: a function, its arguments, and attributes for what it makes.
    RebuildFromType,
    Size,
    Dtype(Dtype),
    Storage(Dtype),
    /// Bytes, whose type the tensor says.
    UntypedStorage,
    /// Anything else, by its place in the machine's list of classes. It is never called.
    Opaque(usize),
}

impl Global {
    /// What `module.name` is, if tensors need it.
    pub fn known(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict" | "defaultdict") | ("builtins" | "__builtin__", "dict") => {
                Self::Dict
            }
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor_v3") => Self::RebuildTyped,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::RebuildParameter
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Self::RebuildFromType,
            ("torch", "Size") => Self::Size,
            ("torch" | "torch.storage", "UntypedStorage") => Self::UntypedStorage,
            ("torch" | "torch.cuda", storage) if storage.ends_with("Storage") => {
                Self::Storage(match storage {
                    "FloatStorage" => Dtype::Float,
                    "DoubleStorage" => Dtype::Double,
                    "HalfStorage" => Dtype::Half,
                    "BFloat16Storage" => Dtype::BFloat16,
                    "LongStorage" => Dtype::Long,
                    "IntStorage" => Dtype::Int,
                    "ShortStorage" => Dtype::Short,
                    "ByteStorage" => Dtype::Byte,
                    "CharStorage" => Dtype::Char,
                    "BoolStorage" => Dtype::Bool,
                    _ => return None,
                })
            }
            ("torch", name) => Self::Dtype(Dtype::named(name)?),
            _ => return None,
        })
    }
}
