//! What the servers share.

use std::io;

use tokio::net::{TcpListener, TcpSocket};

/// A listener on a free port of 127.0.0.1, told on standard output.
pub fn listen_and_announce() -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(4096)?;
    println!("{}", listener.local_addr()?.port());
    Ok(listener)
}

/// What the HTTP servers answer.
pub const ANSWER: &str = "Hello, world\n";
