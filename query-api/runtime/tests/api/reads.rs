//! What an answer holds.

use crate::harness::{Api, thing};
use crate::sample::ThingRow;
use foldstream_core::{Money, Shown};
use serde_json::json;

#[tokio::test]
async fn a_row_by_its_key_whatever_the_key_holds() {
    let api = Api::start("keys").await;
    let names = ["a", "85123A ", "gift, 0001", "a/b", "...", "50%", "é\"'\\", "a+b", "?#", "--;"];
    let rows: Vec<ThingRow> =
        names.iter().zip(0..).map(|(name, number)| thing(name, number)).collect();
    api.write(&rows).await;
    for row in &rows {
        let encoded: String = row.name.bytes().map(|b| format!("%{b:02X}")).collect();
        let answer = api.get(&format!("/v1/things/{encoded}/{}", row.number)).await;
        assert_eq!(answer.status, 200, "{}: {}", row.name, answer.text);
        assert_eq!(answer.json(), serde_json::to_value(Shown(row)).expect("a row"));
    }
    let missing = api.get("/v1/things/a/1").await;
    assert_eq!(missing.problem(), (404, "not-found".to_owned()));
    assert_eq!(missing.header("read-model-lag"), "unknown");
    for path in ["/v1/things/a/x", "/v1/things/%zz/1", "/v1/things/%00/1", "/v1/things/%ff/1"] {
        assert_eq!(api.get(path).await.problem(), (400, "invalid-path".to_owned()), "{path}");
    }
    for path in ["/v1/things/a", "/v1/things/a/1/2", "/v1/things/", "/v1/nothing"] {
        assert_eq!(api.get(path).await.problem(), (404, "not-found".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn values_keep_their_types_and_hidden_columns_stay_hidden() {
    let api = Api::start("types").await;
    let mut row = thing("a", 1);
    row.price = Money::from_ten_thousandths(-123_450);
    row.count = i64::MAX;
    api.write(&[row]).await;
    let answer = api.get("/v1/things/a/1").await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.json(),
        json!({
            "name": "a", "number": 1, "shape": null, "price": "-12.345", "made_on": "2010-12-01",
            "seen_at": "1970-01-01T00:00:01.500000Z", "count": i64::MAX, "sold": false,
            "tag": null, "look": "round", "extra": [1, 2],
        })
    );
    let part = api.get("/v1/things/a/1?select=count,name").await;
    assert_eq!(part.text, format!("{{\"count\":{},\"name\":\"a\"}}", i64::MAX));
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let api = Api::start("etag").await;
    api.write(&[thing("a", 1), thing("a", 2)]).await;
    api.checkpoint(0, 2).await;
    for path in ["/v1/things", "/v1/things?limit=1", "/v1/things/a/1"] {
        let first = api.get(path).await;
        let etag = first.header("etag").to_owned();
        let again = api.get_with(path, &[("if-none-match", &etag)]).await;
        assert_eq!((again.status, again.text.as_str()), (304, ""), "{path}");
        assert_eq!(again.header("etag"), etag);
        assert_eq!(again.header("read-model-position"), "test.things/0=2");
        assert!(!again.header("consistency-token").is_empty());
        let head = api.send("HEAD", path, &[]).await;
        assert_eq!((head.status, head.text.as_str(), head.header("etag")), (200, "", &*etag));
    }
    let etag = api.get("/v1/things/a/1").await.header("etag").to_owned();
    let mut changed = thing("a", 1);
    changed.count = 99;
    api.write(&[changed]).await;
    let answer = api.get_with("/v1/things/a/1", &[("if-none-match", &etag)]).await;
    assert_eq!((answer.status, &answer.json()["count"]), (200, &json!(99)));
}

#[tokio::test]
async fn methods_and_media_types_that_do_not_exist_are_refused() {
    let api = Api::start("media").await;
    let refused = api.get_with("/v1/things", &[("accept", "text/csv")]).await;
    assert_eq!(refused.problem(), (406, "not-acceptable".to_owned()));
    let refused = api.send("DELETE", "/v1/things", &[]).await;
    assert_eq!(refused.problem(), (405, "method-not-allowed".to_owned()));
    assert_eq!(refused.header("allow"), "GET,HEAD");
    let refused = api.send("POST", "/v1/things/a/1", &[]).await;
    assert_eq!(refused.status, 405);
}

#[tokio::test]
async fn an_empty_list_is_a_list() {
    let api = Api::start("empty").await;
    let answer = api.get_with("/v1/things", &[("prefer", "count=exact")]).await;
    let page = json!({"next": null, "prev": null, "has_more": false, "total": 0});
    assert_eq!(answer.json(), json!({"data": [], "page": page}));
    assert!(answer.headers.get("link").is_none());
    assert_eq!(answer.header("preference-applied"), "count=exact");
    assert_eq!(answer.header("read-model-position"), "");
}

#[tokio::test]
async fn all_rows_are_counted_where_asked_for() {
    let api = Api::start("count").await;
    api.write(&(0..30).map(|n| thing("a", n)).collect::<Vec<_>>()).await;
    let counted = ("prefer", "count=exact");
    let first = api.get_with("/v1/things?limit=4&sold=eq.true", &[counted]).await.json();
    assert_eq!(first["page"]["total"], 15);
    let cursor = first["page"]["next"].as_str().expect("more").to_owned();
    let path = format!("/v1/things?limit=4&sold=eq.true&cursor={cursor}");
    assert_eq!(api.get_with(&path, &[counted]).await.json()["page"]["total"], 15);
    assert!(api.get(&path).await.json()["page"].get("total").is_none());
}
