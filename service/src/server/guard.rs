//! Rules of HTTP itself that hyper leaves open.

use http::header::HOST;
use http::{Request, Version};

use super::Limits;
use crate::problem::{Problem, ProblemKind};

/// Refuses what is not a sound request, before any route sees it.
pub(super) fn check<B>(request: &Request<B>, limits: &Limits) -> Result<(), Problem> {
    let uri = request.uri();
    let length = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    let max_uri_bytes = limits.max_uri_bytes;
    if length > max_uri_bytes {
        return Err(Problem::new(ProblemKind::UriTooLong)
            .detail(format!("path and query may have at most {max_uri_bytes} bytes")));
    }
    let headers = request.headers();
    // `: ` and the line end count too. hyper bounds its buffer, but only between two reads.
    let header_bytes: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header_bytes > limits.max_header_bytes {
        return Err(Problem::new(ProblemKind::HeaderTooLarge)
            .detail(format!("all headers may have at most {} bytes", limits.max_header_bytes)));
    }
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(bad("the Host header is given twice")),
        (None, _) if request.version() == Version::HTTP_11 => {
            Err(bad("the Host header is missing"))
        }
        (None, _) => Ok(()),
        (Some(host), None) => {
            let host =
                host.to_str().ok().and_then(|text| text.parse::<http::uri::Authority>().ok());
            let Some(host) = host else { return Err(bad("the Host header is not a host")) };
            match uri.authority() {
                Some(foreign) if *foreign != host => {
                    Err(bad("the request's URI names another host than the Host header"))
                }
                _ => Ok(()),
            }
        }
    }
}

fn bad(detail: &str) -> Problem {
    Problem::new(ProblemKind::BadRequest).detail(detail)
}
