//! How a name is looked up: its labels below the zone's apex, in lower case, length-prefixed.
//!
//! A query must not cost an allocation to be found missing, so the key is built in a buffer on the
//! stack and compared with the boxed keys of the index by content.

use hickory_proto::rr::Name;

/// Longest name on the wire, in bytes (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 255;
/// Longest label, in bytes.
const MAX_LABEL_BYTES: usize = 63;

/// The key of a name within a zone.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    bytes: [u8; MAX_NAME_BYTES],
    len: usize,
}

impl Key {
    /// The key of `name` below an apex of `apex_labels` labels. `None` when it would be longer than any
    /// name may be, which no decoded name is.
    pub(crate) fn below(name: &Name, apex_labels: usize) -> Option<Self> {
        let labels = name.iter();
        let own = labels.len().checked_sub(apex_labels)?;
        let mut key = Self { bytes: [0; MAX_NAME_BYTES], len: 0 };
        for label in labels.take(own) {
            key.push(label)?;
        }
        Some(key)
    }

    /// The key of the name with these labels below `apex`. `None` when it would exceed the limits of the
    /// DNS.
    pub(crate) fn of_labels(labels: &[&str], apex: &Name) -> Option<Self> {
        let mut key = Self { bytes: [0; MAX_NAME_BYTES], len: 0 };
        for label in labels {
            (label.len() <= MAX_LABEL_BYTES).then(|| key.push(label.as_bytes()))??;
        }
        let apex_bytes: usize = apex.iter().map(|label| label.len() + 1).sum();
        (key.len + apex_bytes < MAX_NAME_BYTES).then_some(key)
    }

    fn push(&mut self, label: &[u8]) -> Option<()> {
        let start = self.len + 1;
        let room = self.bytes.get_mut(start..start + label.len())?;
        room.copy_from_slice(label);
        room.make_ascii_lowercase();
        self.bytes[self.len] = u8::try_from(label.len()).ok()?;
        self.len = start + label.len();
        Some(())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, apex_labels: usize) -> Option<Vec<u8>> {
        Key::below(&Name::from_ascii(name).unwrap(), apex_labels).map(|k| k.as_bytes().to_vec())
    }

    #[test]
    fn case_does_not_matter_and_label_borders_do() {
        assert_eq!(key("WEB.Shop.fabric.internal.", 2), Some(b"\x03web\x04shop".to_vec()));
        assert_ne!(key("a.bc.x.", 1), key("ab.c.x.", 1));
        assert_eq!(key("fabric.internal.", 2), Some(Vec::new()));
        assert_eq!(key("internal.", 2), None);
    }

    #[test]
    fn labels_give_the_same_key_as_their_name_within_the_limits() {
        let apex = Name::from_ascii("fabric.internal.").unwrap();
        let of = |labels: &[&str]| Key::of_labels(labels, &apex).map(|k| k.as_bytes().to_vec());
        assert_eq!(of(&["_web", "_tcp", "shop"]), key("_web._tcp.shop.fabric.internal.", 2));
        assert_eq!(of(&[]), key("fabric.internal.", 2));
        let long = "x".repeat(63);
        assert_eq!(of(&["x".repeat(64).as_str()]), None);
        for (labels, fits) in [(vec![long.as_str(); 3], true), (vec![long.as_str(); 4], false)] {
            let name = labels.iter().map(|label| label.as_bytes()).chain(apex.iter());
            assert_eq!(of(&labels).is_some(), fits);
            assert_eq!(Name::from_labels(name).is_ok(), fits, "as the codec has it");
        }
    }
}
