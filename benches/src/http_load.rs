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
    /// The request of this number.
    pub(crate) fn filled(&mut self, number: u64) -> &[u8] {
        let digits = format!("{number:0width$}", width = NUMBER.len());
        for at in &self.numbers {
            self.bytes[*at..at + NUMBER.len()].copy_from_slice(digits.as_bytes());
        }
        &self.bytes
    }
}

/// A keep-alive connection.
pub(crate) struct Keep {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Keep {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("the server listens")?;
        stream.set_nodelay(true)?;
        Ok(Keep { stream, answer: Vec::with_capacity(4_096) })
    }
    /// Sends a request and waits for its whole answer: an error unless it has this status.
    pub(crate) async fn ask(&mut self, request: &[u8], status: u16) -> Result<()> {
        let answered = self.answered(request).await?;
        if answered != status {
            bail!("{answered}: {}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }
    /// Sends a request and waits for its whole answer; its status.
    pub(crate) async fn answered(&mut self, request: &[u8]) -> Result<u16> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "the server closed a connection");
            let Some((status, length)) = head(&self.answer)? else { continue };
            if self.answer.len() >= length {
                return Ok(status);
            }
        }
    }
    /// A header of the last answer, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.answer).ok()?;
        let lines = text.split("\r\n").take_while(|line| !line.is_empty());
        let mut pairs = lines.filter_map(|line| line.split_once(": "));
        pairs.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A connection that sends one template again and again.
pub(crate) struct Connection {
    keep: Keep,
    template: Template,
    number: u64,
    step: u64,
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
            let (keep, template) = (Keep::open(address).await?, template.clone());
            all.push(Connection { keep, template, number, step: count as u64 });
        }
        Ok(all)
    }
}

impl Client for Connection {
    async fn once(&mut self) -> Result<u64> {
        self.number += self.step;
        let status = self.template.status;
        self.keep.ask(self.template.filled(self.number), status).await?;
        Ok(1)
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
        let text = std::str::from_utf8(template.filled(42)).unwrap();
        assert!(text.contains("key: 000000000042\r\n"));
        assert!(text.ends_with("\r\n\r\n{\"id\":\"000000000042\"}"));
    }
}
