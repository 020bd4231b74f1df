//! How a name is looked up: its labels below the zone's apex, in lower case, length-prefixed.
//!
//! A query must not cost an allocation to be found missing, so the key is built in a buffer on the
//! stack and compared with the boxed keys of the index by content.

use hickory_proto::rr::Name;

/// Longest name on the wire, in bytes (RFC 1035, section 2.3.4).
const MAX_NAME_BYTES: usize = 255;

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
}
