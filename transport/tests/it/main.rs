//! The transport as a whole: endpoints on 127.0.0.1, real handshakes, real garbage.

mod admission;
mod basics;
mod garbage;
mod isolation;
mod life;
mod raw;
mod support;
