//! What comes as the chunks of a snapshot is looked at before openraft sees it.
//!
//! openraft writes a chunk wherever it says it belongs, and stops for good when a whole snapshot cannot be
//! read. So a single message could take all memory, and a snapshot that is none could stop every replica that it
//! is sent to. Here chunks must follow each other, are bounded together, and the whole must be readable before
//! its last chunk is handed on.

use crate::image;

/// Largest snapshot, in bytes. The limits of a policy keep it well below: objects, tokens and history of the
/// largest fabric come to some hundred MiB.
pub(crate) const MAX_SNAPSHOT_BYTES: usize = 1 << 30;

/// Why a chunk is not handed on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadChunk {
    #[error("a chunk begins at byte {found} where byte {expected} was to come")]
    Misplaced { expected: u64, found: u64 },
    #[error("a snapshot of more than {MAX_SNAPSHOT_BYTES} bytes")]
    TooLarge,
}

/// A chunk as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    /// Who sends it.
    pub(crate) from: u64,
    /// Of which snapshot.
    pub(crate) snapshot: &'a str,
    /// Where in it.
    pub(crate) offset: u64,
    /// What.
    pub(crate) data: &'a [u8],
}

/// The snapshot that is being received; one at a time, as in openraft.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    of: Option<(u64, String)>,
    bytes: Vec<u8>,
}

impl Receiving {
    /// Takes the next chunk, the last one again, or the first one of another snapshot.
    ///
    /// # Errors
    /// Why it must not be handed on; what was received before is kept.
    pub(crate) fn take(&mut self, chunk: Chunk<'_>) -> Result<(), BadChunk> {
        if chunk.offset == 0 {
            self.of = Some((chunk.from, chunk.snapshot.to_owned()));
            self.bytes.clear();
        }
        let same =
            self.of.as_ref().is_some_and(|(from, id)| (*from, id.as_str()) == (chunk.from, chunk.snapshot));
        let expected = if same { self.bytes.len() } else { 0 };
        let misplaced = BadChunk::Misplaced { expected: expected as u64, found: chunk.offset };
        let Some(offset) = usize::try_from(chunk.offset).ok().filter(|offset| *offset <= expected) else {
            return Err(misplaced);
        };
        if offset.saturating_add(chunk.data.len()) > MAX_SNAPSHOT_BYTES {
            return Err(BadChunk::TooLarge);
        }
        self.bytes.truncate(offset);
        self.bytes.extend_from_slice(chunk.data);
        Ok(())
    }

    /// What was received, which is forgotten here.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.of = None;
        std::mem::take(&mut self.bytes)
    }
}

/// Whether these bytes are a snapshot that this version can install.
///
/// # Errors
/// Why not.
pub(crate) async fn check(bytes: Vec<u8>) -> Result<(), String> {
    let read = tokio::task::spawn_blocking(move || image::decode(&bytes).map(drop)).await;
    read.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(snapshot: &str, offset: u64, data: &'static [u8]) -> Chunk<'static> {
        let snapshot = if snapshot == "a" { "a" } else { "b" };
        Chunk { from: 1, snapshot, offset, data }
    }

    #[test]
    fn chunks_follow_each_other_and_may_come_twice() {
        let mut receiving = Receiving::default();
        for (offset, data) in [(0, &b"one"[..]), (3, b"two"), (3, b"two"), (6, b"!")] {
            assert_eq!(receiving.take(chunk("a", offset, data)), Ok(()));
        }
        assert_eq!(receiving.finish(), b"onetwo!");
        assert!(receiving.take(chunk("a", 7, b"more")).is_err(), "it is over");
    }

    #[test]
    fn a_chunk_from_nowhere_is_refused_and_takes_no_memory() {
        let mut receiving = Receiving::default();
        receiving.take(chunk("a", 0, b"one")).expect("the first");
        for offset in [4, 1 << 40, u64::MAX] {
            let refused = receiving.take(chunk("a", offset, b"x"));
            assert_eq!(refused, Err(BadChunk::Misplaced { expected: 3, found: offset }));
        }
        assert!(receiving.take(chunk("b", 3, b"x")).is_err(), "another snapshot begins at its beginning");
        assert!(
            receiving.take(Chunk { from: 2, ..chunk("a", 3, b"x") }).is_err(),
            "nobody else goes on with it"
        );
        assert_eq!(receiving.take(chunk("a", 3, b"two")), Ok(()));
        assert!(receiving.bytes.capacity() < 1_024);
    }

    #[tokio::test]
    async fn what_is_no_snapshot_is_known_before_it_is_installed() {
        assert!(check(b"what?".to_vec()).await.is_err());
        let empty = image::encode(&Default::default(), &Default::default());
        assert_eq!(check(empty).await, Ok(()));
    }
}
