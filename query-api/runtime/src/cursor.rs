//! Cursors: where a page begins, signed so that nobody writes one, and only good for the query
//! they came from.

use crate::order::Term;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{Datelike, NaiveDate};
use foldstream_core::{ColumnType, Table, Timestamp, Value};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use sha2::Sha256;
use std::time::Duration;

/// Bytes of the signature.
const TAG: usize = 16;
/// The longest text of a cursor.
const MAX_BYTES: usize = 4 * 1024;
/// A cursor's end is rounded up to one of so many points in its life: the same page has the same
/// cursors, and so the same `ETag`, for a while.
const STEPS: u64 = 24;

/// A place between two rows of an ordered list, and in which direction to go on from it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cursor {
    /// The row's values in the columns of the order.
    pub(crate) values: Vec<Value<'static>>,
    /// Towards the beginning of the list.
    pub(crate) backward: bool,
    /// The row itself is part of the page.
    pub(crate) inclusive: bool,
}

/// Why a text is no cursor for this query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadCursor {
    #[error("the cursor was changed, or was never one")]
    Forged,
    #[error("the cursor belongs to another query; send it with the parameters it came from")]
    OtherQuery,
    #[error("the cursor has expired; start again without it")]
    Expired,
    #[error("the read model has changed since the cursor was made; start again without it")]
    OtherVersion,
}

/// What is signed. `m`: read model, `v`: its version, `q`: the query, `x`: expiry in Unix
/// seconds, `k`: the values, `b`, `i`: backward, inclusive.
#[derive(Serialize, Deserialize)]
struct Wire {
    m: String,
    v: u32,
    q: String,
    x: u64,
    k: Vec<Json>,
    b: bool,
    i: bool,
}

/// Makes and reads cursors.
#[derive(Clone)]
pub(crate) struct Cursors {
    mac: Hmac<Sha256>,
    lifetime: u64,
}

/// The query a cursor is of.
#[derive(Clone, Copy)]
pub(crate) struct Of<'a> {
    pub(crate) table: &'static Table,
    pub(crate) order: &'a [Term],
    pub(crate) fingerprint: &'a [u8; 16],
}

impl Cursors {
    /// Cursors signed with this secret, which live so long.
    pub(crate) fn new(secret: &[u8], lifetime: Duration) -> Self {
        let mac = Hmac::new_from_slice(secret).expect("HMAC takes keys of every length");
        Cursors { mac, lifetime: lifetime.as_secs().max(1) }
    }

    /// The text of a cursor. `now` in Unix seconds.
    pub(crate) fn encode(&self, of: Of<'_>, cursor: &Cursor, now: u64) -> String {
        let step = (self.lifetime / STEPS).max(1);
        let wire = Wire {
            m: of.table.name.to_owned(),
            v: of.table.version,
            q: URL_SAFE_NO_PAD.encode(of.fingerprint),
            x: (now + self.lifetime).div_ceil(step) * step,
            k: cursor.values.iter().map(to_json).collect(),
            b: cursor.backward,
            i: cursor.inclusive,
        };
        let mut bytes = serde_json::to_vec(&wire).expect("numbers, texts and flags serialize");
        let tag = self.mac.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The cursor of a text, for this query.
    pub(crate) fn decode(&self, of: Of<'_>, text: &str, now: u64) -> Result<Cursor, BadCursor> {
        if text.len() > MAX_BYTES {
            return Err(BadCursor::Forged);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadCursor::Forged)?;
        let (signed, tag) =
            bytes.split_at_checked(bytes.len().saturating_sub(TAG)).ok_or(BadCursor::Forged)?;
        let mac = self.mac.clone().chain_update(signed);
        mac.verify_truncated_left(tag).map_err(|_| BadCursor::Forged)?;
        // Signed by us, perhaps by another version of us.
        let wire: Wire = serde_json::from_slice(signed).map_err(|_| BadCursor::Expired)?;
        if wire.x < now {
            return Err(BadCursor::Expired);
        }
        if wire.m != of.table.name || wire.q != URL_SAFE_NO_PAD.encode(of.fingerprint) {
            return Err(BadCursor::OtherQuery);
        }
        if wire.v != of.table.version || wire.k.len() != of.order.len() {
            return Err(BadCursor::OtherVersion);
        }
        let cells = wire.k.iter().zip(of.order);
        let values = cells.map(|(json, term)| from_json(term.column.column_type, json));
        let values = values.collect::<Option<_>>().ok_or(BadCursor::OtherVersion)?;
        Ok(Cursor { values, backward: wire.b, inclusive: wire.i })
    }
}

fn to_json(value: &Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(v) => (*v).into(),
        Value::Int4(v) => (*v).into(),
        Value::Int8(v) => (*v).into(),
        Value::Numeric(v) => v.to_string().into(),
        Value::Date(v) => v.num_days_from_ce().into(),
        Value::Timestamptz(v) => v.as_micros().into(),
        Value::Text(v) | Value::Jsonb(v) => v.as_ref().into(),
        Value::Uuid(v) => v.to_string().into(),
    }
}

fn from_json(column_type: ColumnType, json: &Json) -> Option<Value<'static>> {
    if json.is_null() {
        return Some(Value::Null);
    }
    let small = || json.as_i64().and_then(|n| i32::try_from(n).ok());
    Some(match column_type {
        ColumnType::Bool => Value::Bool(json.as_bool()?),
        ColumnType::Int4 => Value::Int4(small()?),
        ColumnType::Int8 => Value::Int8(json.as_i64()?),
        ColumnType::Date => Value::Date(NaiveDate::from_num_days_from_ce_opt(small()?)?),
        ColumnType::Timestamptz => Value::Timestamptz(Timestamp::from_micros(json.as_i64()?)?),
        ColumnType::Numeric | ColumnType::Text | ColumnType::Uuid => {
            Value::parse(column_type, json.as_str()?).ok()?
        }
        ColumnType::Jsonb => return None,
    })
}

#[cfg(test)]
mod tests;
