//! Which request it is: its scope, its ids, its content.

use foldstream_core::Uuid;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The root of all ids that are made from idempotency keys; any fixed value would do.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_3a52_94c7_5e0b_8a40_27b9_c3de_71f5);

/// Within what an idempotency key names one request: a caller and a route.
pub(crate) fn scope(actor: &str, route: &str) -> String {
    format!("{actor} POST {route}")
}

/// The id that follows from a key; the same again for the same scope and key.
pub(crate) fn of_key(scope: &str, key: &str) -> Uuid {
    Uuid::new_v5(&Uuid::new_v5(&NAMESPACE, scope.as_bytes()), key.as_bytes())
}

/// The id of the command that a request with a key gives. A key that has expired may come back
/// with another content: that is another command.
pub(crate) fn of_command(of_key: &Uuid, request_hash: &[u8; 32]) -> Uuid {
    Uuid::new_v5(of_key, request_hash)
}

/// What tells requests with the same key apart: the path with its id, and the content.
pub(crate) fn request_hash(path: &str, body: &Value) -> [u8; 32] {
    let mut text = format!("POST {path}\n").into_bytes();
    canonical(body, &mut text);
    Sha256::digest(&text).into()
}

/// JSON with sorted members and no spaces. Bodies are at most 32 levels deep, so recursion is
/// bounded.
fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.extend_from_slice(value.to_string().as_bytes());
        }
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push(b'{');
            for (name, item) in sorted {
                canonical(&Value::String(name.clone()), out);
                out.push(b':');
                canonical(item, out);
                out.push(b',');
            }
            out.push(b'}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(path: &str, body: &str) -> [u8; 32] {
        request_hash(path, &serde_json::from_str(body).expect("test JSON"))
    }

    #[test]
    fn order_and_spaces_do_not_make_another_request() {
        let one = hash("/v1/a", r#"{"a": {"x": 1, "y": [true, null]}, "b": "é"}"#);
        let same = hash("/v1/a", r#"{"b":"\u00e9","a":{"y":[true,null],"x":1}}"#);
        assert_eq!(one, same);
    }
    #[test]
    fn anything_else_does() {
        let bodies = [
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"b":1}"#,
            r#"{"a":[1]}"#,
            r#"{"a":[[1]]}"#,
            r#"{"a":[1,1]}"#,
            r#"{"a":{}}"#,
            r#"{"a":{"a":1}}"#,
            r#"{}"#,
            r#"[]"#,
            "null",
            r#"{"a":[1],"b":[]}"#,
            r#"{"a":"[1],\"b\":[]"}"#,
        ];
        let mut hashes: Vec<_> = bodies.iter().map(|body| hash("/v1/a", body)).collect();
        hashes.push(hash("/v1/b", bodies[0]));
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), bodies.len() + 1);
    }
    #[test]
    fn ids_follow_from_scope_and_key() {
        let a = of_key(&scope("ann", "/v1/a"), "k");
        assert_eq!(a, of_key(&scope("ann", "/v1/a"), "k"));
        assert_eq!(a.get_version_num(), 5);
        for other in [
            of_key(&scope("bob", "/v1/a"), "k"),
            of_key(&scope("ann", "/v1/b"), "k"),
            of_key(&scope("ann", "/v1/a"), "l"),
        ] {
            assert_ne!(a, other);
        }
        assert_eq!(of_command(&a, &[0; 32]), of_command(&a, &[0; 32]));
        assert_ne!(of_command(&a, &[0; 32]), of_command(&a, &[1; 32]));
    }
}
