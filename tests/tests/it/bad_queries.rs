//! Queries that cannot be answered, and the ones that can.

use std::time::Duration;

use foldstream_core::{ConsistencyToken, Uuid};
use serde_json::Value;
use system_tests::api::Api;
use system_tests::documents::{invoice, new_id};
use system_tests::shop::shared;

use crate::seen;

#[tokio::test]
async fn a_query_that_cannot_be_answered_is_refused_and_says_what_is_allowed() {
    let shop = shared().await;
    let api = shop.api();
    let many: String = (0..21).map(|n| format!("country=neq.{n}&")).collect();
    let long_list = format!("country=in.({}x)", "x,".repeat(200));
    for (query, pointer, says) in [
        ("limit=0", "limit", "500"),
        ("limit=501", "limit", "500"),
        ("limit=-1", "limit", "500"),
        ("limit=1e3", "limit", "500"),
        ("limit=", "limit", "500"),
        ("limit=+5", "limit", "500"),
        ("limit=1&limit=2", "limit", ""),
        ("order=day&order=country", "order", ""),
        ("colour=eq.red", "colour", "country"),
        ("country=red", "country", "eq"),
        ("country=matches.red", "country", "eq"),
        ("country=eq", "country", "eq"),
        ("day=eq.tomorrow", "day", ""),
        ("day=eq.2010-02-30", "day", ""),
        ("day=like.2010*", "day", ""),
        ("day=is.true", "day", "null"),
        ("country=in.(a,b", "country", ""),
        ("country=in.a,b", "country", ""),
        (&long_list, "country", "200"),
        ("country=like.*a", "country", ""),
        ("order=colour", "order", "country"),
        ("order=day.upwards", "order", "asc"),
        ("order=day,day", "order", ""),
        ("order=", "order", ""),
        ("select=colour", "select", "country"),
        ("select=day,day", "select", ""),
        ("select=", "select", ""),
        ("country=eq.%00", "country", ""),
        ("country=eq.%ff", "country", ""),
        ("country=eq.%zz", "country", ""),
        (&many, "query", "20"),
        ("';drop table x;--=eq.1", "';drop table x;--", "country"),
        ("_=eq.1", "_", "country"),
    ] {
        let answer = api.get(&format!("/v1/sales_by_day?{query}")).await;
        let problem = answer.problem(400, "invalid-query");
        let error = &problem["errors"][0];
        assert_eq!(error["pointer"], pointer, "{query}: {}", answer.shown());
        let detail = error["detail"].as_str().unwrap_or_default();
        assert!(detail.contains(says), "{query}: {says} is not in {detail}");
    }
    for (header, value) in [("prefer", "wait=soon"), ("prefer", "wait=-1"), ("prefer", "wait=0.5")]
    {
        let answer = api.get_with("/v1/sales_by_day", &[(header, value)]).await;
        let problem = answer.problem(400, "invalid-header");
        assert_eq!(problem["errors"][0]["pointer"], header, "{value}");
    }
    let accept = api.get_with("/v1/sales_by_day", &[("accept", "image/png")]).await;
    accept.problem(406, "not-acceptable");
    api.get("/v1/invoices/nobody").await.problem(404, "not-found");
    api.get("/v1/sales_by_day/2010-12-01").await.problem(404, "not-found");
    let bad_key = api.get("/v1/sales_by_day/tomorrow/France/GBP").await;
    assert!(matches!(bad_key.status, 400 | 404), "{}", bad_key.shown());
    bad_key.is_problem();
}

/// Some invoices of a country of their own; answers the country and a token.
async fn some(api: &Api, count: usize) -> (String, String) {
    let country = format!("Land {}", new_id());
    let mut token = String::new();
    for n in 0..count {
        let mut body = invoice(&new_id());
        body["country"] = country.as_str().into();
        body["lines"][0]["quantity"] = (n + 1).into();
        let headers = [("consistency-token", token.as_str())];
        let headers = if token.is_empty() { &[][..] } else { &headers[..] };
        let created = api.post_with("/v1/invoices", &body, headers).await;
        token = created.expect(201).need("consistency-token");
    }
    (country.replace(' ', "%20"), token)
}

#[tokio::test]
async fn pages_follow_each_other_in_both_directions() {
    let shop = shared().await;
    let api = shop.api();
    let (country, token) = some(&api, 7).await;
    let query = format!("/v1/invoices?country=eq.{country}&order=amount.desc&select=units&limit=3");
    let mut pages = Vec::new();
    let mut page = seen(&api, &query, &token, Duration::from_secs(20)).await.json();
    loop {
        let units: Vec<i64> = page["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|row| row["units"].as_i64().expect("a number"))
            .collect();
        assert_eq!(page["data"][0].as_object().map(serde_json::Map::len), Some(1), "{page}");
        pages.push(units);
        let Some(next) = page["page"]["next"].as_str() else { break };
        page = api.get(&format!("{query}&cursor={next}")).await.expect(200).json();
    }
    assert_eq!(pages, [vec![7, 6, 5], vec![4, 3, 2], vec![1]]);
    let prev = page["page"]["prev"].as_str().expect("there are pages before");
    let before = api.get(&format!("{query}&cursor={prev}")).await.expect(200).json();
    let first = before["data"][0]["units"].as_i64();
    assert_eq!(first, Some(4), "{before}");
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_query_only() {
    let shop = shared().await;
    let api = shop.api();
    let (country, token) = some(&api, 2).await;
    let query = format!("country=eq.{country}&limit=1");
    let path = format!("/v1/invoices?{query}");
    let page = seen(&api, &path, &token, Duration::from_secs(20)).await.json();
    let cursor = page["page"]["next"].as_str().expect("there is more").to_owned();
    api.get(&format!("{path}&cursor={cursor}")).await.expect(200);
    let mut changed = cursor.clone().into_bytes();
    changed[10] = if changed[10] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(changed).expect("it is ASCII");
    for bad in [
        format!("{path}&cursor={changed}"),
        format!("{path}&cursor={}", &cursor[..cursor.len() - 3]),
        format!("{path}&cursor=x"),
        format!("{path}&cursor="),
        format!("{path}&cursor={}", "A".repeat(6_000)),
        format!("/v1/invoices?country=eq.France&limit=1&cursor={cursor}"),
        format!("{path}&order=amount&cursor={cursor}"),
        format!("/v1/sales_by_day?{query}&cursor={cursor}"),
    ] {
        api.get(&bad).await.problem(400, "cursor-invalid");
    }
}

#[tokio::test]
async fn a_token_waits_or_says_why_not() {
    let shop = shared().await;
    let api = shop.api();
    let (country, text) = some(&api, 1).await;
    let path = format!("/v1/invoices?country=eq.{country}");
    seen(&api, &path, &text, Duration::from_secs(20)).await;
    let token = ConsistencyToken::parse(&text).expect("the shop made it");
    let mut future = token.clone();
    future.positions.values_mut().for_each(|position| *position += 1_000_000);
    let headers = [("consistency-token", &*future.encode()), ("prefer", "wait=0")];
    let answer = api.get_with(&path, &headers).await;
    let problem = answer.problem(503, "read-model-behind");
    assert_eq!(problem["reason"], "behind", "{problem}");
    assert!(problem["required"].is_object() && problem["current"].is_object(), "{problem}");
    let wait = answer.need("retry-after");
    assert!(wait.parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{wait}");

    let mut foreign = token.clone();
    foreign.stores.values_mut().for_each(|store| *store = Uuid::from_u128(7));
    let headers = [("consistency-token", &*foreign.encode())];
    api.get_with(&path, &headers).await.problem(409, "token-of-other-store");
    for garbage in ["", "x", "AAAA", "eyJ2IjoxfQ", &"A".repeat(3_000)] {
        let answer = api.get_with(&path, &[("consistency-token", garbage)]).await;
        answer.problem(400, "token-invalid");
    }
    let again = api.get(&path).await.expect(200).json();
    assert_eq!(again["data"].as_array().map(Vec::len), Some(1), "{again}");
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let shop = shared().await;
    let api = shop.api();
    let (country, token) = some(&api, 4).await;
    let base = format!("/v1/invoices?country=eq.{country}");
    seen(&api, &base, &token, Duration::from_secs(20)).await;
    for (filter, expected) in [
        ("", 4),
        ("&amount=gt.2.55", 3),
        ("&amount=gte.2.55", 4),
        ("&amount=lt.5.1", 1),
        ("&amount=not.lte.5.10", 2),
        ("&amount=in.(2.55,7.65)", 2),
        ("&kind=eq.credit", 0),
        ("&customer_id=is.null", 0),
        ("&customer_id=not.is.null", 4),
        ("&issued_at=gte.2010-12-01T08:26:00Z&issued_at=lt.2010-12-02T00:00:00Z", 4),
        ("&currency=neq.GBP", 0),
    ] {
        let answer = api.get(&format!("{base}{filter}")).await;
        let found = answer.expect(200).json()["data"].as_array().map(Vec::len);
        assert_eq!(found, Some(expected), "{filter}: {}", answer.shown());
    }
    let list = api.get(&base).await;
    let etag = list.need("etag");
    let seen_already = api.get_with(&base, &[("if-none-match", &etag)]).await;
    assert_eq!((seen_already.status, seen_already.body.len()), (304, 0));
    let counted = api.get_with(&base, &[("prefer", "count=exact")]).await;
    let json: Value = counted.expect(200).json();
    assert!(counted.shown().contains('4'), "{json}");
}
