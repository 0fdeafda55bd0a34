use super::*;

#[test]
fn every_code_appears_once_and_is_kebab_case() {
    let mut codes: Vec<_> = ProblemKind::ALL.iter().map(|kind| kind.code()).collect();
    for code in &codes {
        assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{code}");
    }
    codes.sort_unstable();
    let count = codes.len();
    codes.dedup();
    assert_eq!(codes.len(), count);
}

#[test]
fn every_503_says_when_to_come_back() {
    for kind in ProblemKind::ALL {
        if kind.status() == StatusCode::SERVICE_UNAVAILABLE {
            assert!(Problem::new(*kind).headers().contains_key(RETRY_AFTER), "{kind:?}");
        }
    }
}

#[test]
fn a_problem_has_the_members_of_rfc_9457_and_ours() {
    let problem = Problem::new(ProblemKind::VersionMismatch)
        .detail("the stream is at 3")
        .member("current_version", 3)
        .error(FieldError::new("If-Match", "version", "2 is not 3"));
    assert_eq!(
        problem.to_json(Some("abc")),
        serde_json::json!({
            "type": "/problems/version-mismatch", "title": "The version is another",
            "status": 412, "detail": "the stream is at 3", "code": "version-mismatch",
            "trace_id": "abc", "current_version": 3,
            "errors": [{"pointer": "If-Match", "code": "version", "detail": "2 is not 3"}],
        })
    );
}

#[test]
fn a_problem_of_the_domain_keeps_its_code() {
    let problem = Problem::domain(StatusCode::CONFLICT, "invoice-exists", "other content");
    let body = problem.to_json(None);
    assert_eq!(body["type"], "/problems/invoice-exists");
    assert_eq!(body["title"], "Invoice exists");
    assert_eq!(body["status"], 409);
}

#[test]
fn retry_after_is_whole_seconds_rounded_up() {
    for (given, sent) in [(1, "1"), (1_200, "2"), (0, "1"), (3_000, "3")] {
        let problem =
            Problem::new(ProblemKind::Unavailable).retry_after(Duration::from_millis(given));
        assert_eq!(problem.headers()[RETRY_AFTER], sent);
    }
}
