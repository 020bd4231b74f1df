//! The one QUIC endpoint of a node: mutual TLS, ALPN, connection cache, streams and datagrams.
