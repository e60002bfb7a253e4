use std::io::ErrorKind;
use std::os::fd::AsFd as _;

use super::*;

/// What a child process has between its fork and its exec.
async fn copied() -> (TcpListener, std::os::fd::OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let copy = listener.as_fd().try_clone_to_owned().unwrap();
    (listener, copy)
}

#[tokio::test]
async fn the_address_of_a_closed_listener_is_free_although_a_child_has_a_copy() {
    let (listener, copy) = copied().await;
    let address = listener.local_addr().unwrap();
    drop(Listener::Own(OwnListener::new(listener)));
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    TcpListener::bind(address).await.unwrap();
    drop(copy);
}

#[tokio::test]
async fn a_shared_listener_stays_open_for_the_others() {
    let (listener, copy) = copied().await;
    let address = listener.local_addr().unwrap();
    drop(Listener::Tcp(listener));
    TcpStream::connect(address).await.unwrap();
    drop(copy);
}
