//! An HTTP/1.1 server by tokio and httparse, one thread: parses each request, answers as example_httpsvr answers "/".
//!
//! Prints its port; runs until it is killed.

use std::io::Write;
use std::time::{Duration, SystemTime};

use bench_peers_net::{ANSWER, listen_and_announce};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The Date header's value, made once a second.
struct Date {
    text: String,
    until: SystemTime,
}

impl Date {
    fn now(&mut self) -> &str {
        let now = SystemTime::now();
        if now >= self.until {
            self.text = httpdate::fmt_http_date(now);
            self.until = now + Duration::from_secs(1);
        }
        &self.text
    }
}

/// The length of the request at the start of `input`; `None` if there is no whole one yet, or it is none.
fn whole_request(input: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    match httparse::Request::new(&mut headers).parse(input) {
        Ok(httparse::Status::Complete(length)) => Some(length),
        _ => None,
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut input = [0; 8 * 1024];
    let mut filled = 0;
    let mut output = Vec::with_capacity(2048);
    let mut date = Date { text: String::new(), until: SystemTime::UNIX_EPOCH };
    loop {
        let count = stream.read(&mut input[filled..]).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut start = 0;
        while let Some(length) = whole_request(&input[start..filled]) {
            start += length;
            write!(
                output,
                "HTTP/1.1 200 OK\r\nDate: {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{ANSWER}",
                date.now(),
                ANSWER.len(),
            )?;
        }
        input.copy_within(start..filled, 0);
        filled -= start;
        stream.write_all(&output).await?;
        output.clear();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let listener = listen_and_announce()?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}
