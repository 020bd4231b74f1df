//! The transport as a whole: endpoints on 127.0.0.1, real handshakes, real garbage.

mod support;

mod basics;
