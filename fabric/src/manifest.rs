//! Manifests: reading and writing documents of intent.

/// Durations such as `2h` or `30m`, in milliseconds.
pub(crate) mod duration_opt {
    use serde::{Deserializer, Serializer};
    pub(crate) fn serialize<S: Serializer>(_v: &Option<u64>, _s: S) -> Result<S::Ok, S::Error> {
        unimplemented!()
    }
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(_d: D) -> Result<Option<u64>, D::Error> {
        unimplemented!()
    }
}

/// Instants as RFC 3339 text, in milliseconds since the Unix epoch.
pub(crate) mod instant_opt {
    use serde::{Deserializer, Serializer};
    pub(crate) fn serialize<S: Serializer>(_v: &Option<u64>, _s: S) -> Result<S::Ok, S::Error> {
        unimplemented!()
    }
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(_d: D) -> Result<Option<u64>, D::Error> {
        unimplemented!()
    }
}
