//! A small BTF writer, and what the reader makes of its images.

use super::*;

/// Writes BTF images type by type, as the kernel's build does.
#[derive(Default)]
pub(crate) struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

/// A member: name, type, offset in bits.
pub(crate) type Field<'a> = (&'a str, u32, u32);

impl Writer {
    pub(crate) fn new() -> Self {
        Self {
            strings: vec![0],
            ..Self::default()
        }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        for word in words {
            self.types.extend(word.to_ne_bytes());
        }
    }

    fn begin(&mut self, name: &str, kind: u32, entries: usize, size_or_type: u32) -> u32 {
        let name = self.string(name);
        self.words(&[name, kind << 24 | entries as u32, size_or_type]);
        self.count += 1;
        self.count
    }

    pub(crate) fn int(&mut self, name: &str, size: u32) -> u32 {
        let id = self.begin(name, 1, 0, size);
        self.words(&[size * 8]);
        id
    }

    pub(crate) fn pointer(&mut self, to: u32) -> u32 {
        self.begin("", 2, 0, to)
    }

    pub(crate) fn array(&mut self, of: u32, length: u32) -> u32 {
        let id = self.begin("", 3, 0, 0);
        self.words(&[of, of, length]);
        id
    }

    pub(crate) fn structure(&mut self, name: &str, size: u32, fields: &[Field<'_>]) -> u32 {
        let names: Vec<u32> = fields.iter().map(|(name, ..)| self.string(name)).collect();
        let id = self.begin(name, 4, fields.len(), size);
        for (name, (_, of, bits)) in names.iter().zip(fields) {
            self.words(&[*name, *of, *bits]);
        }
        id
    }

    pub(crate) fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) -> u32 {
        let names: Vec<u32> = values.iter().map(|(name, _)| self.string(name)).collect();
        let id = self.begin(name, 6, values.len(), 4);
        for (name, (_, value)) in names.iter().zip(values) {
            self.words(&[*name, *value]);
        }
        id
    }

    pub(crate) fn forward(&mut self, name: &str) -> u32 {
        self.begin(name, 7, 0, 0)
    }

    pub(crate) fn typedef(&mut self, name: &str, of: u32) -> u32 {
        self.begin(name, 8, 0, of)
    }

    pub(crate) fn constant(&mut self, of: u32) -> u32 {
        self.begin("", 10, 0, of)
    }

    pub(crate) fn prototype(&mut self, parameters: &[u32]) -> u32 {
        let id = self.begin("", 13, parameters.len(), 0);
        for of in parameters {
            self.words(&[0, *of]);
        }
        id
    }

    pub(crate) fn function(&mut self, name: &str, prototype: u32) -> u32 {
        self.begin(name, 12, 1, prototype)
    }

    pub(crate) fn image(&self) -> Vec<u8> {
        let mut image = MAGIC.to_ne_bytes().to_vec();
        image.extend([1, 0]);
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            image.extend(word.to_ne_bytes());
        }
        image.extend(&self.types);
        image.extend(&self.strings);
        image
    }
}

const WANTED: [(Kind, &str); 1] = [(Kind::Struct, "outer")];

fn sample() -> Vec<u8> {
    let mut writer = Writer::new();
    let long = writer.int("long", 8);
    let inner = writer.structure("", 8, &[("deep", long, 0)]);
    let wrapper = writer.structure("atomic_long_t", 8, &[("counter", long, 0)]);
    let alias = writer.typedef("alias", wrapper);
    writer.structure(
        "outer",
        24,
        &[("first", long, 0), ("", inner, 64), ("last", alias, 128)],
    );
    writer.image()
}

#[test]
fn members_are_found_through_anonymous_ones() {
    let image = sample();
    let btf = Btf::parse(&image, &WANTED).unwrap();
    let [id] = btf.ids(Kind::Struct, "outer") else {
        panic!("one structure of that name");
    };
    let outer = btf.type_by_id(*id).unwrap();
    let offset = |name| btf.member(outer, name).map(|member| member.offset_bytes);
    assert_eq!(offset("first"), Some(0));
    assert_eq!(offset("deep"), Some(8));
    assert_eq!(offset("last"), Some(16));
    assert_eq!(offset("none"), None);
    let last = btf.member(outer, "last").unwrap();
    assert_eq!(btf.scalar_size(last.type_id), Some(8));
}

#[test]
fn what_is_not_btf_is_refused() {
    assert_eq!(Btf::parse(b"", &[]).err(), Some(BtfError::BadMagic));
    assert_eq!(Btf::parse(b"\x7fELF", &[]).err(), Some(BtfError::BadMagic));
    let swapped = [0xeb, 0x9f, 1, 0];
    assert_eq!(Btf::parse(&swapped, &[]).err(), Some(BtfError::BadMagic));
}

#[test]
fn a_cut_image_never_panics() {
    let image = sample();
    for length in 0..image.len() {
        assert!(Btf::parse(&image[..length], &WANTED).is_err(), "{length}");
    }
}

#[test]
fn a_typedef_of_itself_ends() {
    let mut writer = Writer::new();
    writer.typedef("loop", 1);
    let image = writer.image();
    let btf = Btf::parse(&image, &[]).unwrap();
    assert!(btf.resolve(1).is_none());
    assert_eq!(btf.scalar_size(1), None);
}

proptest::proptest! {
    #[test]
    fn damaged_images_never_panic(at in 0usize..300, value: u8) {
        let mut image = sample();
        if let Some(byte) = image.get_mut(at) {
            *byte = value;
        }
        if let Ok(btf) = Btf::parse(&image, &WANTED) {
            for id in 0..8 {
                let _ = btf.scalar_size(id);
                let _ = btf.array(id);
                if let Some(found) = btf.type_by_id(id) {
                    let _ = btf.member(found, "deep");
                    let _ = btf.name(found);
                    let _ = btf.parameter(found, 1);
                    let _ = btf.enumerator(found, "x");
                }
            }
        }
    }
}
