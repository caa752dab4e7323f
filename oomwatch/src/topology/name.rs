//! The name of a cgroup as it is kept. A container's id is most of its cgroup's name; packed, it takes half the room.
//! Pure.

/// Digits of a container's id.
const DIGITS: usize = 64;
/// Stands before the packed digits: no name has a NUL in it.
const PACKED: u8 = 0;

/// A name; if it has a NUL, only the part before the NUL.
#[derive(Debug)]
pub(super) struct Name(Box<[u8]>);

impl Name {
    pub(super) fn new(name: &[u8]) -> Self {
        let name = name.split(|&byte| byte == PACKED).next().unwrap_or(name);
        let parts = id_in(name).and_then(|at| {
            let (before, rest) = name.split_at_checked(at)?;
            let (id, after) = rest.split_at_checked(DIGITS)?;
            Some((before, id, after))
        });
        let Some((before, id, after)) = parts else {
            return Self(name.into());
        };
        let mut kept = Vec::with_capacity(name.len() - DIGITS / 2 + 1);
        kept.extend_from_slice(before);
        kept.push(PACKED);
        kept.extend(id.chunks(2).map(|pair| {
            let digits = pair
                .iter()
                .filter_map(|&digit| (digit as char).to_digit(16));
            digits.fold(0, |byte, digit| byte << 4 | digit as u8)
        }));
        kept.extend_from_slice(after);
        Self(kept.into())
    }

    /// Writes the name at the end of a path.
    pub(super) fn append_to(&self, path: &mut Vec<u8>) {
        let parts = self
            .0
            .iter()
            .position(|&byte| byte == PACKED)
            .and_then(|at| self.0.split_at_checked(at))
            .and_then(|(before, rest)| Some((before, rest.split_at_checked(1 + DIGITS / 2)?)));
        let Some((before, (packed, after))) = parts else {
            return path.extend_from_slice(&self.0);
        };
        let mut digits = [0; DIGITS];
        for (pair, &byte) in digits.chunks_exact_mut(2).zip(packed.iter().skip(1)) {
            pair.copy_from_slice(&[byte >> 4, byte & 0xf].map(digit_of));
        }
        path.extend_from_slice(before);
        path.extend_from_slice(&digits);
        path.extend_from_slice(after);
    }
}

/// The digit for 0 to 15, without a branch: every event has several paths.
fn digit_of(value: u8) -> u8 {
    b'0' + value + u8::from(value > 9) * (b'a' - b'9' - 1)
}

/// Where the first container's id in a name begins.
fn id_in(name: &[u8]) -> Option<usize> {
    let mut digits = 0;
    name.iter().enumerate().find_map(|(place, byte)| {
        digits = match byte {
            b'0'..=b'9' | b'a'..=b'f' => digits + 1,
            _ => 0,
        };
        (digits == DIGITS).then(|| place + 1 - DIGITS)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpacked(name: &Name) -> Vec<u8> {
        let mut path = b"/".to_vec();
        name.append_to(&mut path);
        path.split_off(1)
    }

    #[test]
    fn an_id_takes_half() {
        let id = "0123456789abcdef".repeat(4);
        for text in [
            format!("cri-containerd-{id}.scope"),
            id.clone(),
            format!("{id}ff"),
        ] {
            let name = Name::new(text.as_bytes());
            assert_eq!(name.0.len(), text.len() - 31);
            assert_eq!(unpacked(&name), text.as_bytes());
        }
    }

    #[test]
    fn other_digits_are_left_alone() {
        for text in [
            "A".repeat(64),
            "a".repeat(63),
            String::new(),
            "é".repeat(64),
        ] {
            let name = Name::new(text.as_bytes());
            assert_eq!(&*name.0, text.as_bytes());
            assert_eq!(unpacked(&name), text.as_bytes());
        }
    }

    #[test]
    fn a_nul_ends_a_name() {
        assert_eq!(unpacked(&Name::new(b"a\0b")), b"a");
    }

    proptest! {
        #[test]
        fn any_name_comes_back(name in "[a-f0-9.]{0,80}[^\\x00]{0,10}[0-9a-f]{0,130}") {
            prop_assert_eq!(unpacked(&Name::new(name.as_bytes())), name.as_bytes());
        }
    }
}
