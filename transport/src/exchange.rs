//! A request and its answer on one bidirectional stream.
//!
//! Each way carries one frame: a tag (1 byte), the length of the body (4 bytes, big endian), the body,
//! the end of the stream. The length comes first so that the receiver can refuse before it holds
//! anything, and so that a body that was cut off is never taken for a whole one.

use std::fmt;

use bytes::Bytes;
use quinn::{
    Connection, ConnectionError, ReadExactError, ReadToEndError, RecvStream, SendStream, WriteError,
};

use crate::{
    limits::{MAX_REFUSAL_BYTES, MAX_REQUEST_BYTES},
    link::refusal_of,
};

/// Tag of a request.
pub(crate) const TAG_REQUEST: u8 = 0;
/// Tag of an answer.
pub(crate) const TAG_ANSWER: u8 = 1;
/// Tag of a refusal; the body is its text.
pub(crate) const TAG_REFUSAL: u8 = 2;

/// Why an exchange brought no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExchangeError {
    /// The handler's text.
    Refused(String),
    /// The peer closed the connection because it does not admit us.
    NotAdmitted(String),
    /// The connection or the stream ended.
    Lost(String),
    /// The answer is larger than may be.
    TooLarge(usize),
}

impl From<ConnectionError> for ExchangeError {
    fn from(error: ConnectionError) -> Self {
        refusal_of(&error).map_or_else(|| Self::Lost(error.to_string()), Self::NotAdmitted)
    }
}

/// Why a frame could not be read.
#[derive(Debug)]
pub(crate) enum FrameError {
    /// The announced length.
    TooLarge(usize),
    Connection(ConnectionError),
    Malformed(String),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => write!(f, "a message of {bytes} bytes is too large"),
            Self::Connection(error) => error.fmt(f),
            Self::Malformed(why) => f.write_str(why),
        }
    }
}

/// Asks `body` and waits for the answer. The caller sets the time limit.
pub(crate) async fn ask(connection: &Connection, body: &Bytes) -> Result<Bytes, ExchangeError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    match write_frame(&mut send, TAG_REQUEST, body.clone()).await {
        // A peer that stops reading has an answer: the refusal of a request that is too large.
        Ok(()) | Err(WriteError::Stopped(_)) => {}
        Err(WriteError::ConnectionLost(error)) => return Err(error.into()),
        Err(error) => return Err(ExchangeError::Lost(error.to_string())),
    }
    let (tag, answer) = match read_answer(&mut receive).await {
        Ok(frame) => frame,
        Err(FrameError::TooLarge(bytes)) => return Err(ExchangeError::TooLarge(bytes)),
        Err(FrameError::Connection(error)) => return Err(error.into()),
        Err(FrameError::Malformed(why)) => return Err(ExchangeError::Lost(why)),
    };
    match tag {
        TAG_ANSWER => Ok(answer),
        TAG_REFUSAL => {
            let text = &answer[..answer.len().min(MAX_REFUSAL_BYTES)];
            Err(ExchangeError::Refused(String::from_utf8_lossy(text).into_owned()))
        }
        other => Err(ExchangeError::Lost(format!("an answer with the unknown tag {other}"))),
    }
}

async fn read_answer(receive: &mut RecvStream) -> Result<(u8, Bytes), FrameError> {
    let (tag, bytes) = read_head(receive, MAX_REQUEST_BYTES).await?;
    Ok((tag, read_body(receive, bytes).await?))
}

/// Writes a frame and the end of the stream.
pub(crate) async fn write_frame(send: &mut SendStream, tag: u8, body: Bytes) -> Result<(), WriteError> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    send.write_all(&[tag, length[0], length[1], length[2], length[3]]).await?;
    send.write_chunk(body).await?;
    // Fails only when it was finished or reset before; then the peer knows already.
    let _ = send.finish();
    Ok(())
}

/// Reads tag and length of a frame whose body may have up to `limit` bytes.
pub(crate) async fn read_head(receive: &mut RecvStream, limit: usize) -> Result<(u8, usize), FrameError> {
    let mut head = [0; 5];
    receive.read_exact(&mut head).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(_) => FrameError::Malformed("the stream ended early".to_owned()),
        ReadExactError::ReadError(error) => read_error(error),
    })?;
    let [tag, length @ ..] = head;
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > limit { Err(FrameError::TooLarge(bytes)) } else { Ok((tag, bytes)) }
}

/// Reads a body of exactly `bytes` and the end of the stream. Memory grows with what has arrived.
pub(crate) async fn read_body(receive: &mut RecvStream, bytes: usize) -> Result<Bytes, FrameError> {
    let body = receive.read_to_end(bytes).await.map_err(|error| match error {
        ReadToEndError::TooLong => FrameError::Malformed("more bytes than announced".to_owned()),
        ReadToEndError::Read(error) => read_error(error),
    })?;
    if body.len() == bytes {
        Ok(body.into())
    } else {
        Err(FrameError::Malformed("the stream ended early".to_owned()))
    }
}

fn read_error(error: quinn::ReadError) -> FrameError {
    match error {
        quinn::ReadError::ConnectionLost(error) => FrameError::Connection(error),
        other => FrameError::Malformed(other.to_string()),
    }
}
