//! Requests and responses on a stream: the postcard bytes until the stream ends.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::{StreamProtocol, request_response};
use serde::{Serialize, de::DeserializeOwned};

use crate::core::wire::{MAX_MESSAGE_BYTES, Request, Response, decode, encode};

/// Reads at most one message of bounded length; what is no message fails the stream alone.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Codec;

async fn read<T, M>(io: &mut T) -> io::Result<M>
where
    T: AsyncRead + Unpin + Send,
    M: DeserializeOwned,
{
    let mut bytes = Vec::new();
    // One byte more than allowed, so that `decode` sees what is too long.
    io.take(MAX_MESSAGE_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn write<T, M>(io: &mut T, message: &M) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
    M: Serialize + Sync,
{
    let bytes = encode(message).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    io.write_all(&bytes).await
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Response;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Response>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, message: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &message).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, message: Response) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &message).await
    }
}
