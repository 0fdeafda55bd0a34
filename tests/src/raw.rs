//! Requests as bytes, for what no client library sends.

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api::Answer;

const DEADLINE: Duration = Duration::from_secs(20);

/// Sends these bytes and reads what comes until the server closes; the request should ask it to.
///
/// # Panics
/// There is no connection or no HTTP answer in time.
pub async fn send(base: &str, what: &str, chunks: &[&[u8]]) -> Answer {
    let address = base.trim_start_matches("http://");
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("the port is open");
        for chunk in chunks {
            // It may have answered and closed already.
            if stream.write_all(chunk).await.is_err() {
                break;
            }
        }
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read) = stream.read(&mut buffer).await {
            if read == 0 || !more(&mut bytes, &buffer[..read]) {
                break;
            }
        }
        bytes
    };
    match timeout(DEADLINE, exchange).await {
        Ok(bytes) => parse(what, &bytes),
        Err(_) => panic!("{what}: no answer within {DEADLINE:?}"),
    }
}

/// Takes in what was read; false when the answer is complete.
fn more(bytes: &mut Vec<u8>, read: &[u8]) -> bool {
    bytes.extend_from_slice(read);
    let Some(end) = find(bytes, b"\r\n\r\n") else { return true };
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse::<usize>().ok());
    length.is_none_or(|length| bytes.len() < end + 4 + length)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn parse(what: &str, bytes: &[u8]) -> Answer {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    let end = find(bytes, b"\r\n\r\n").unwrap_or_else(|| panic!("{what}: no answer: {shown:?}"));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) =
            (name.parse::<HeaderName>(), HeaderValue::from_str(value.trim()))
        {
            headers.append(name, value);
        }
    }
    Answer {
        asked: what.to_owned(),
        status: status.unwrap_or_else(|| panic!("{what}: no status in {shown:?}")),
        headers,
        body: bytes[end + 4..].to_vec(),
    }
}
