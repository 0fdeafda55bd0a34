//! Clients of an HTTP server: keep-alive connections, one request after the other. Written on bare
//! sockets, so that they cost as little as can be beside the server on the same machine.

use crate::load::Client;
use anyhow::{Context, Result, bail, ensure};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Digits that each request replaces by a number of its own.
pub(crate) const NUMBER: &str = "000000000000";

/// A request that is sent again and again, each time with another number.
#[derive(Clone)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    /// What it must be answered with.
    status: u16,
}

impl Template {
    /// A POST with this JSON. Wherever `NUMBER` stands in it or in a header, the number goes.
    pub(crate) fn post(path: &str, headers: &str, body: &str, status: u16) -> Self {
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             {headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let numbers = text.match_indices(NUMBER).map(|(at, _)| at).collect();
        Template { bytes: text.into_bytes(), numbers, status }
    }
    fn fill(&mut self, number: u64) {
        let digits = format!("{number:0width$}", width = NUMBER.len());
        for at in &self.numbers {
            self.bytes[*at..at + NUMBER.len()].copy_from_slice(digits.as_bytes());
        }
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    template: Template,
    number: u64,
    step: u64,
    answer: Vec<u8>,
}

impl Connection {
    /// So many connections; the numbers of all of their requests differ.
    pub(crate) async fn open_all(
        address: SocketAddr,
        template: &Template,
        count: usize,
    ) -> Result<Vec<Self>> {
        let mut all = Vec::with_capacity(count);
        for number in 0..count as u64 {
            let stream = TcpStream::connect(address).await.context("the server listens")?;
            stream.set_nodelay(true)?;
            let (template, answer) = (template.clone(), Vec::with_capacity(4_096));
            all.push(Connection { stream, template, number, step: count as u64, answer });
        }
        Ok(all)
    }
}

impl Client for Connection {
    async fn once(&mut self) -> Result<u64> {
        self.number += self.step;
        self.template.fill(self.number);
        self.stream.write_all(&self.template.bytes).await?;
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the server closed a connection");
            let Some((status, length)) = head(&self.answer)? else { continue };
            if self.answer.len() < length {
                continue;
            }
            if status != self.template.status {
                bail!("{status}: {}", String::from_utf8_lossy(&self.answer));
            }
            return Ok(1);
        }
    }
}

/// The status and the length of the whole answer, once the head is there.
fn head(answer: &[u8]) -> Result<Option<(u16, usize)>> {
    const LENGTH: &[u8] = b"content-length:";
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().parse::<usize>().ok();
    let status = answer.get(9..12).and_then(number).context("an answer without a status")?;
    let length = answer[..end].split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(LENGTH.len())?;
        name.eq_ignore_ascii_case(LENGTH).then(|| number(value)).flatten()
    });
    let length = length.context("an answer without a length")?;
    Ok(Some((status as u16, end + 4 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_length_is_there() {
        let answer = b"HTTP/1.1 201 Created\r\nETag: \"1\"\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(head(answer).unwrap(), Some((201, answer.len())));
        assert_eq!(head(&answer[..20]).unwrap(), None);
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
    #[test]
    fn each_request_has_its_number() {
        let body = format!("{{\"id\":\"{NUMBER}\"}}");
        let mut template = Template::post("/x", &format!("key: {NUMBER}\r\n"), &body, 200);
        template.fill(42);
        let text = String::from_utf8(template.bytes).unwrap();
        assert!(text.contains("key: 000000000042\r\n"));
        assert!(text.ends_with("\r\n\r\n{\"id\":\"000000000042\"}"));
    }
}
