//! Reading BTF, the kernel's description of its own types: just enough to find named types and the place of their
//! members.
//!
//! One pass over the image keeps the position of every 16th type and the ids of the few names asked for. All else is
//! looked up in place. A full parser builds a value per type, takes ten times as long, and needs 20 MB.
//!
//! Touches no file and no kernel: bytes in, places out. Untrusted input ends in an error, never in a panic. Format:
//! `Documentation/bpf/btf.rst`.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
/// Bytes that every type begins with.
const HEAD_BYTES: usize = 12;
/// The position of every [`STRIDE`]th type is kept; the others are counted from there. Writing more pages of memory
/// at the start would cost more time than that.
const STRIDE: u32 = 16;
/// Types nested deeper than this are taken for a loop.
const MAX_DEPTH: usize = 32;

/// Kinds of types that this reader distinguishes.
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

/// Numbers that the image may have for a kind.
const RAW_KINDS: usize = 32;

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

    /// Bytes that every type of this kind has, and bytes for each of its entries.
    fn size(self) -> (u32, u32) {
        match self {
            Self::Int | Self::Var | Self::DeclTag => (16, 0),
            Self::Array => (24, 0),
            Self::Struct | Self::Union | Self::DataSec | Self::Enum64 => (12, 12),
            Self::Enum | Self::FuncProto => (12, 8),
            Self::Ptr | Self::Fwd | Self::Typedef | Self::Modifier | Self::Func | Self::Float => {
                (12, 0)
            }
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
    /// Position in `types` of type 1 and of each [`STRIDE`]th after it.
    positions: Vec<u32>,
    sizes: Sizes,
    named: HashMap<(Kind, &'a str), Vec<u32>>,
}

impl<'a> Btf<'a> {
    /// Reads `image`, keeping the ids of the types named in `wanted`.
    pub(crate) fn parse(image: &'a [u8], wanted: &[(Kind, &'a str)]) -> Result<Self, BtfError> {
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
            positions: Vec::with_capacity(image.len() / 32 / STRIDE as usize),
            sizes: Sizes::new(),
            named: HashMap::new(),
        };
        btf.index(wanted)?;
        Ok(btf)
    }

    /// The one pass over 100,000 types, at every start. So it takes few instructions for each.
    fn index(&mut self, wanted: &[(Kind, &'a str)]) -> Result<(), BtfError> {
        let wanted = Wanted::new(wanted);
        let mut at = 0;
        let mut id = 1;
        while at < self.types.len() {
            if id % STRIDE == 1 {
                self.positions.push(at as u32);
            }
            let (name_at, info, _) = head_words(self.head(at)?);
            let raw_kind = raw_kind(info);
            if wanted.kinds >> raw_kind & 1 != 0
                && let Some(name) = self.bytes_at(name_at)
                && wanted.may_be(raw_kind, name)
                && let Some(found) = wanted.find(raw_kind, name)
            {
                self.named.entry(found).or_default().push(id);
            }
            at += self.sizes.of(id, info)?;
            id += 1;
        }
        if at > self.types.len() {
            return Err(BtfError::Truncated(at));
        }
        Ok(())
    }

    fn head(&self, at: usize) -> Result<&'a [u8; HEAD_BYTES], BtfError> {
        let rest = self.types.get(at..);
        rest.and_then(|rest| rest.first_chunk())
            .ok_or(BtfError::Truncated(at))
    }

    fn decode(&self, id: u32, at: usize) -> Result<Type, BtfError> {
        let (name_at, info, size_or_type) = head_words(self.head(at)?);
        let kind = raw_kind(info);
        let kind = Kind::from_raw(kind).ok_or(BtfError::UnknownKind { id, kind })?;
        Ok(Type {
            id,
            kind,
            name_at,
            entries: entries(info) as usize,
            bitfields: info >> 31 != 0,
            size_or_type,
            trailer_at: at + HEAD_BYTES,
        })
    }

    /// Ids of all types of this kind and name; the name must have been asked for.
    pub(crate) fn ids(&self, kind: Kind, name: &'a str) -> &[u32] {
        self.named.get(&(kind, name)).map_or(&[], Vec::as_slice)
    }

    /// The type with this id; `None` for `void` (0) and for ids out of range.
    pub(crate) fn type_by_id(&self, id: u32) -> Option<Type> {
        let index = id.checked_sub(1)?;
        let mut at = *self.positions.get((index / STRIDE) as usize)? as usize;
        for before in id - index % STRIDE..id {
            let (_, info, _) = head_words(self.head(at).ok()?);
            at += self.sizes.of(before, info).ok()?;
        }
        self.decode(id, at).ok()
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

    /// The member called `name`, also inside anonymous members. A bit field is not found: it has no byte offset.
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

/// The names asked for, and a quick test that a type has none of them.
struct Wanted<'w, 'n> {
    names: &'w [(Kind, &'n str)],
    /// The kinds that are asked for, a bit each, by the image's numbers.
    kinds: u32,
    /// The same for what names begin with.
    kinds_by_beginning: [u32; 256],
}

const BEGINNING_BYTES: usize = 3;

/// What a name begins with, as an index; several beginnings share one.
fn beginning(name: &[u8]) -> usize {
    match name.first_chunk::<BEGINNING_BYTES>() {
        Some([first, second, third]) => {
            usize::from(first.wrapping_mul(31) ^ second.wrapping_mul(7) ^ third)
        }
        None => 0,
    }
}

impl<'w, 'n> Wanted<'w, 'n> {
    fn new(names: &'w [(Kind, &'n str)]) -> Self {
        let mut wanted = Self {
            names,
            kinds: 0,
            kinds_by_beginning: [0; 256],
        };
        for (kind, name) in names {
            let numbers = 0..RAW_KINDS as u32;
            let numbers = numbers.filter(|number| Kind::from_raw(*number) == Some(*kind));
            let kinds = numbers.fold(0, |kinds, number| kinds | 1 << number);
            wanted.kinds |= kinds;
            let index = beginning(name.as_bytes());
            // Any bytes may follow a wanted name that is shorter than a beginning.
            let is_short = name.len() < BEGINNING_BYTES;
            for (at, by_beginning) in wanted.kinds_by_beginning.iter_mut().enumerate() {
                *by_beginning |= if is_short || at == index { kinds } else { 0 };
            }
        }
        wanted
    }

    /// Whether a type may be asked for, by its kind and what its name begins with.
    fn may_be(&self, raw_kind: u32, name: &[u8]) -> bool {
        let kinds = self.kinds_by_beginning.get(beginning(name));
        kinds.is_some_and(|kinds| kinds >> raw_kind & 1 != 0)
    }

    /// The wanted name that a type has, if any. `name` continues past the end of the type's name.
    fn find(&self, raw_kind: u32, name: &[u8]) -> Option<(Kind, &'n str)> {
        let kind = Kind::from_raw(raw_kind)?;
        let is_name = |wanted: &str| {
            let rest = name.strip_prefix(wanted.as_bytes());
            rest.and_then(<[u8]>::first) == Some(&0)
        };
        let mut names = self.names.iter();
        names
            .find(|(of, wanted)| *of == kind && is_name(wanted))
            .copied()
    }
}

/// How many bytes types have, by the image's numbers of their kinds.
struct Sizes([(u32, u32); RAW_KINDS]);

impl Sizes {
    fn new() -> Self {
        let kind = |raw| Kind::from_raw(u32::try_from(raw).ok()?);
        Self(std::array::from_fn(|raw| {
            kind(raw).map_or((0, 0), Kind::size)
        }))
    }

    fn of(&self, id: u32, info: u32) -> Result<usize, BtfError> {
        let kind = raw_kind(info);
        match self.0.get(kind as usize) {
            None | Some((0, _)) => Err(BtfError::UnknownKind { id, kind }),
            // 32 bits hold it: there are no more than 65,535 entries.
            Some((fixed, each)) => Ok((fixed + each * entries(info)) as usize),
        }
    }
}

/// The three words that every type begins with.
fn head_words(head: &[u8; HEAD_BYTES]) -> (u32, u32, u32) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *head;
    (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
    )
}

fn raw_kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

fn entries(info: u32) -> u32 {
    info & 0xffff
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
