//! An HTTP client, and answers that tests can ask questions.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, redirect};
use serde_json::Value;

/// No answer takes longer: the longest wait of a query and then some.
const DEADLINE: Duration = Duration::from_secs(20);

/// A client of one port.
#[derive(Debug, Clone)]
pub struct Api {
    base: String,
    client: Client,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked, for messages.
    pub asked: String,
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Api {
    /// A client of `base`, such as `http://127.0.0.1:7400`.
    ///
    /// # Panics
    /// The machine has no randomness for TLS.
    #[must_use]
    pub fn new(base: &str) -> Self {
        let client = Client::builder().timeout(DEADLINE).redirect(redirect::Policy::none()).build();
        Self { base: base.to_owned(), client: client.expect("a client without options is built") }
    }

    /// Where it sends.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Sends anything; an error only where there was no answer.
    ///
    /// # Errors
    /// No connection, or no answer in time.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> reqwest::Result<Answer> {
        let method = Method::from_bytes(method.as_bytes()).expect("tests send methods");
        let asked = format!("{method} {path}");
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("tests send header names");
            // Latin-1, so that tests can send any byte.
            let bytes: Vec<u8> = value.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
            map.append(name, HeaderValue::from_bytes(&bytes).expect("tests send header values"));
        }
        let mut request = self.client.request(method, format!("{}{path}", self.base)).headers(map);
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { asked, status, headers, body: response.bytes().await?.to_vec() })
    }

    /// Sends and must get an answer.
    ///
    /// # Panics
    /// There is none.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Answer {
        match self.send(method, path, headers, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: no answer: {error:?}"),
        }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None).await
    }

    /// GET with headers.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask("GET", path, headers, None).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, body, &[]).await
    }

    /// POST of JSON with headers.
    pub async fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        self.ask("POST", path, &all, Some(body.to_string().into_bytes())).await
    }
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// A header that must be there.
    ///
    /// # Panics
    /// It is not.
    pub fn need(&self, name: &str) -> String {
        let value = self.header(name);
        value.unwrap_or_else(|| panic!("no header {name} in {}", self.shown())).to_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}) in {}", self.shown()))
    }

    /// The same, after making sure of the status.
    ///
    /// # Panics
    /// The status is another.
    #[track_caller]
    pub fn expect(&self, status: u16) -> &Self {
        assert_eq!(self.status, status, "{}", self.shown());
        self
    }

    /// A problem document with this status and code; answers it.
    ///
    /// # Panics
    /// The answer is another, or a member that every problem has is missing.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        self.expect(status);
        let problem = self.is_problem();
        assert_eq!(problem["code"], code, "{}", self.shown());
        problem
    }

    /// Whether it is a problem document with all members that every problem has.
    ///
    /// # Panics
    /// It is not.
    #[track_caller]
    pub fn is_problem(&self) -> Value {
        let media_type = self.header("content-type").unwrap_or_default();
        assert_eq!(media_type, "application/problem+json", "{}", self.shown());
        let problem = self.json();
        for member in ["type", "title", "detail", "code", "trace_id"] {
            let text = problem[member].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{member} is missing in {}", self.shown());
        }
        assert_eq!(problem["status"], self.status, "{}", self.shown());
        let code = problem["code"].as_str().unwrap_or_default();
        assert!(is_kebab(code), "{code:?} is no code: {}", self.shown());
        let own = |name: &str| self.header(name).map(str::to_owned);
        assert_eq!(problem["trace_id"].as_str().map(str::to_owned), own("x-trace-id"));
        for error in problem["errors"].as_array().into_iter().flatten() {
            let named = error["pointer"].is_string() && error["detail"].is_string();
            assert!(named && is_kebab(error["code"].as_str().unwrap_or_default()), "{error}");
        }
        problem
    }

    /// The whole answer for a message.
    pub fn shown(&self) -> String {
        let headers: BTreeMap<_, _> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let body: String = String::from_utf8_lossy(&self.body).chars().take(2_000).collect();
        format!("{}: {} {headers:?} {body}", self.asked, self.status)
    }
}

fn is_kebab(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(plain)
}
