//! Reading BTF, the kernel's description of its own types: just enough to find named
//! types and the place of their members.
//!
//! One pass over the image keeps the position of every type (4 bytes each) and the ids
//! of the few names asked for; everything else is looked up in place. A full parser
//! builds a value per type, takes ten times as long and 20 MB.
//!
//! Touches no file and no kernel: bytes in, places out. Untrusted input ends in an
//! error, never in a panic. Format: `Documentation/bpf/btf.rst`.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
/// Types nested deeper than this are taken for a loop.
const MAX_DEPTH: usize = 32;

/// Kinds of types that this reader tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    /// `volatile`, `const`, `restrict` and type tags: all point on to another type.
    Modifier,
    Func,
    FuncProto,
    Var,
    DataSec,
    Float,
    DeclTag,
    Enum64,
}

impl Kind {
    fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Int,
            2 => Self::Ptr,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Fwd,
            8 => Self::Typedef,
            9..=11 | 18 => Self::Modifier,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::DataSec,
            16 => Self::Float,
            17 => Self::DeclTag,
            19 => Self::Enum64,
            _ => return None,
        })
    }

    /// Bytes that follow the 12 bytes every type has.
    fn trailer(self, entries: usize) -> usize {
        match self {
            Self::Int | Self::Var | Self::DeclTag => 4,
            Self::Array => 12,
            Self::Struct | Self::Union | Self::DataSec | Self::Enum64 => entries * 12,
            Self::Enum | Self::FuncProto => entries * 8,
            Self::Ptr | Self::Fwd | Self::Typedef | Self::Modifier | Self::Func | Self::Float => 0,
        }
    }
}

/// Why an image is not usable at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum BtfError {
    #[error("not BTF in this machine's byte order")]
    BadMagic,
    #[error("BTF is cut short at byte {0}")]
    Truncated(usize),
    #[error("type {id} has kind {kind}, which this version of oomwatch does not know")]
    UnknownKind { id: u32, kind: u32 },
}

/// A type of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Type {
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    name_at: u32,
    entries: usize,
    bitfields: bool,
    /// Size in bytes, or the id of the type pointed on to.
    size_or_type: u32,
    trailer_at: usize,
}

/// A member of a structure or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) offset_bytes: u32,
    pub(crate) type_id: u32,
}

/// A parsed image.
pub(crate) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Position of each type in `types`; the first is type 1.
    positions: Vec<u32>,
    named: HashMap<(Kind, &'a str), Vec<u32>>,
}

impl<'a> Btf<'a> {
    /// Reads `image`, keeping the ids of the types named in `wanted`.
    pub(crate) fn parse(image: &'a [u8], wanted: &[(Kind, &str)]) -> Result<Self, BtfError> {
        if image.get(..2) != Some(MAGIC.to_ne_bytes().as_slice()) {
            return Err(BtfError::BadMagic);
        }
        let section = |at: usize| -> Result<&'a [u8], BtfError> {
            let header = word(image, 4)? as usize;
            let start = header + word(image, at)? as usize;
            let end = start + word(image, at + 4)? as usize;
            image
                .get(start..end)
                .ok_or(BtfError::Truncated(image.len()))
        };
        let mut btf = Self {
            types: section(8)?,
            strings: section(16)?,
            positions: Vec::with_capacity(image.len() / 32),
            named: HashMap::new(),
        };
        btf.index(wanted)?;
        Ok(btf)
    }

    /// The one pass: a hundred thousand types, at every start.
    fn index(&mut self, wanted: &[(Kind, &str)]) -> Result<(), BtfError> {
        let wanted = Wanted::new(wanted);
        let mut at = 0;
        while at < self.types.len() {
            let id = self.positions.len() as u32 + 1;
            let found = self.decode(id, at)?;
            self.positions.push(at as u32);
            at = found.trailer_at + found.kind.trailer(found.entries);
            if let Some(name) = self.bytes_at(found.name_at)
                && wanted.may_be(found.kind, name)
                && let Some(name) = self.string_at(found.name_at)
                && wanted.has(found.kind, name)
            {
                self.named.entry((found.kind, name)).or_default().push(id);
            }
        }
        if at > self.types.len() {
            return Err(BtfError::Truncated(at));
        }
        Ok(())
    }

    fn decode(&self, id: u32, at: usize) -> Result<Type, BtfError> {
        let head = self.types.get(at..at + 12).ok_or(BtfError::Truncated(at))?;
        let info = word(head, 4)?;
        let raw_kind = info >> 24 & 0x1f;
        let kind = Kind::from_raw(raw_kind).ok_or(BtfError::UnknownKind { id, kind: raw_kind })?;
        Ok(Type {
            id,
            kind,
            name_at: word(head, 0)?,
            entries: (info & 0xffff) as usize,
            bitfields: info >> 31 != 0,
            size_or_type: word(head, 8)?,
            trailer_at: at + 12,
        })
    }

    /// Ids of all types of this kind and name; the name must have been asked for.
    pub(crate) fn ids(&self, kind: Kind, name: &'a str) -> &[u32] {
        self.named.get(&(kind, name)).map_or(&[], Vec::as_slice)
    }

    /// The type with this id; `None` for `void` (0) and for ids out of range.
    pub(crate) fn type_by_id(&self, id: u32) -> Option<Type> {
        let at = *self.positions.get((id as usize).checked_sub(1)?)?;
        self.decode(id, at as usize).ok()
    }

    /// The type behind typedefs, qualifiers and tags.
    pub(crate) fn resolve(&self, id: u32) -> Option<Type> {
        let mut found = self.type_by_id(id)?;
        for _ in 0..MAX_DEPTH {
            match found.kind {
                Kind::Typedef | Kind::Modifier => found = self.type_by_id(found.size_or_type)?,
                _ => return Some(found),
            }
        }
        None
    }

    /// A type's name; empty for anonymous types.
    pub(crate) fn name(&self, of: Type) -> &'a str {
        self.string_at(of.name_at).unwrap_or("")
    }

    /// The member called `name`, looked for in anonymous members too. A bit field is no
    /// member that can be read at a byte offset and so is not found.
    pub(crate) fn member(&self, of: Type, name: &str) -> Option<Member> {
        self.member_within(of, name, MAX_DEPTH)
    }

    fn member_within(&self, of: Type, name: &str, depth: usize) -> Option<Member> {
        if !matches!(of.kind, Kind::Struct | Kind::Union) || depth == 0 {
            return None;
        }
        (0..of.entries).find_map(|index| {
            let at = of.trailer_at + index * 12;
            let name_at = word(self.types, at).ok()?;
            let type_id = word(self.types, at + 4).ok()?;
            let raw = word(self.types, at + 8).ok()?;
            let (bits, width) = if of.bitfields {
                (raw & 0xff_ffff, raw >> 24)
            } else {
                (raw, 0)
            };
            let offset_bytes = bits / 8;
            if name_at == 0 || self.string_at(name_at) == Some("") {
                let inner = self.member_within(self.resolve(type_id)?, name, depth - 1)?;
                return Some(Member {
                    offset_bytes: offset_bytes + inner.offset_bytes,
                    type_id: inner.type_id,
                });
            }
            (self.string_at(name_at) == Some(name) && width == 0 && bits % 8 == 0).then_some(
                Member {
                    offset_bytes,
                    type_id,
                },
            )
        })
    }

    /// Size in bytes of an integer, an enumeration, or a structure that wraps just one
    /// (`atomic_long_t`, `kuid_t`).
    pub(crate) fn scalar_size(&self, id: u32) -> Option<u32> {
        let mut found = self.resolve(id)?;
        for _ in 0..MAX_DEPTH {
            match found.kind {
                Kind::Int | Kind::Enum | Kind::Enum64 => return Some(found.size_or_type),
                Kind::Struct if found.entries == 1 => {
                    found = self.resolve(word(self.types, found.trailer_at + 4).ok()?)?;
                }
                _ => return None,
            }
        }
        None
    }

    /// Size in bytes of a structure or union.
    pub(crate) fn struct_size(&self, of: Type) -> Option<u32> {
        matches!(of.kind, Kind::Struct | Kind::Union).then_some(of.size_or_type)
    }

    /// What a pointer points to.
    pub(crate) fn pointee(&self, id: u32) -> Option<Type> {
        let pointer = self.resolve(id)?;
        (pointer.kind == Kind::Ptr).then(|| self.resolve(pointer.size_or_type))?
    }

    /// Element type and length of an array.
    pub(crate) fn array(&self, id: u32) -> Option<(u32, u32)> {
        let array = self.resolve(id)?;
        if array.kind != Kind::Array {
            return None;
        }
        let element = word(self.types, array.trailer_at).ok()?;
        let length = word(self.types, array.trailer_at + 8).ok()?;
        Some((element, length))
    }

    /// Type of parameter `index` of a function prototype.
    pub(crate) fn parameter(&self, proto: Type, index: usize) -> Option<u32> {
        (proto.kind == Kind::FuncProto && index < proto.entries)
            .then(|| word(self.types, proto.trailer_at + index * 8 + 4).ok())?
    }

    /// Value of an enumerator.
    pub(crate) fn enumerator(&self, of: Type, name: &str) -> Option<u32> {
        let width = match of.kind {
            Kind::Enum => 8,
            Kind::Enum64 => 12,
            _ => return None,
        };
        (0..of.entries)
            .map(|index| of.trailer_at + index * width)
            .find(|&at| {
                word(self.types, at).is_ok_and(|name_at| self.string_at(name_at) == Some(name))
            })
            .and_then(|at| word(self.types, at + 4).ok())
    }

    fn bytes_at(&self, at: u32) -> Option<&'a [u8]> {
        self.strings.get(at as usize..)
    }

    fn string_at(&self, at: u32) -> Option<&'a str> {
        let bytes = self.bytes_at(at)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(bytes.get(..end)?).ok()
    }
}

/// The names asked for, and a quick way to tell that a type has none of them.
struct Wanted<'w, 'n> {
    names: &'w [(Kind, &'n str)],
    /// For each first byte of a name, the kinds that are asked for with it, a bit each.
    kinds_by_first_byte: [u32; 256],
}

impl<'w, 'n> Wanted<'w, 'n> {
    fn new(names: &'w [(Kind, &'n str)]) -> Self {
        let mut kinds_by_first_byte = [0; 256];
        for (kind, name) in names {
            if let Some(&first) = name.as_bytes().first()
                && let Some(kinds) = kinds_by_first_byte.get_mut(usize::from(first))
            {
                *kinds |= 1 << *kind as u32;
            }
        }
        Self {
            names,
            kinds_by_first_byte,
        }
    }

    /// Whether a type may be asked for, by its kind and the first byte of its name.
    fn may_be(&self, kind: Kind, name: &[u8]) -> bool {
        name.first()
            .and_then(|&first| self.kinds_by_first_byte.get(usize::from(first)))
            .is_some_and(|kinds| kinds >> kind as u32 & 1 != 0)
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.names.contains(&(kind, name))
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    bytes
        .get(at..at + 4)
        .and_then(|four| four.try_into().ok())
        .map(u32::from_ne_bytes)
        .ok_or(BtfError::Truncated(at))
}

#[cfg(test)]
pub(crate) mod tests;
