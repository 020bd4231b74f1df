//! The local socket: permissions, stale files, other listeners.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use selvedge_node::api::{SocketError, UnixSocket};

#[tokio::test]
async fn only_the_owner_or_a_group_may_open_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/api.sock");
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let socket = UnixSocket::bind(&path, None).await.unwrap();
    assert_eq!(mode(), 0o600);
    drop(socket);
    assert!(!path.exists());
    let gid = std::fs::metadata(dir.path()).unwrap().gid();
    let _socket = UnixSocket::bind(&path, Some(gid)).await.unwrap();
    assert_eq!(mode(), 0o660);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    // The standard library's listener leaves its file behind, as a killed daemon does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let socket = UnixSocket::bind(&path, None).await.unwrap();
    let error = UnixSocket::bind(&path, None).await.unwrap_err();
    assert!(matches!(error, SocketError::InUse(_)), "{error}");
    drop(socket);
    std::fs::write(&path, "precious").unwrap();
    let error = UnixSocket::bind(&path, None).await.unwrap_err();
    assert!(matches!(error, SocketError::Occupied(_)), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_path_that_is_too_long_is_an_error_that_says_so() {
    let path = std::env::temp_dir().join("x".repeat(200));
    let error = UnixSocket::bind(&path, None).await.unwrap_err();
    assert!(error.to_string().contains("choose a shorter one"), "{error}");
}
