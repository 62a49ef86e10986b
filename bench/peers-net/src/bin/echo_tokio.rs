//! An echo server by tokio: one thread, one task for each connection, a buffer in each task.
//!
//! Prints its port; runs until it is killed.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BUFFER_SIZE: usize = 1024;

async fn echo(mut stream: TcpStream) {
    let mut buffer = [0; BUFFER_SIZE];
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 || stream.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = bench_peers_net::listen_and_announce()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(echo(stream));
    }
}
