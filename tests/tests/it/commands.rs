//! What a client may rely on when it posts commands and reads what came of them.

use std::time::Duration;

use serde_json::json;
use system_tests::documents::{credit_note, invoice, line, new_id};
use system_tests::shop::shared;

use crate::seen;

#[tokio::test]
async fn a_document_is_created_once() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    let created = api.post("/v1/invoices", &invoice(&id)).await;
    let body = created.expect(201).json();
    assert_eq!(created.need("location"), format!("/v1/invoices/{id}"));
    assert_eq!(created.need("etag"), "\"1\"");
    assert!(!created.need("consistency-token").is_empty());
    assert!(!created.need("x-trace-id").is_empty());
    assert_eq!((&body["stream"], &body["version"]), (&format!("invoices/{id}").into(), &1.into()));
    let event = &body["events"][0];
    assert_eq!((&event["type"], &event["version"]), (&"InvoiceIssued".into(), &1.into()));
    assert!(event["id"].as_str().is_some_and(|id| id.parse::<uuid::Uuid>().is_ok()), "{body}");

    let again = api.post("/v1/invoices", &invoice(&id)).await;
    assert_eq!(again.expect(200).json()["events"], json!([]));
    assert_eq!(again.need("etag"), "\"1\"");
    let mut written_otherwise = invoice(&id);
    written_otherwise["lines"][0]["unit_price"] = "2.5500".into();
    api.post("/v1/invoices", &written_otherwise).await.expect(200);
    let command = format!("/v1/invoices/{id}/commands/issue-invoice");
    api.post(&command, &invoice(&id)).await.expect(200);

    let mut other = invoice(&id);
    other["lines"][0]["quantity"] = 7.into();
    api.post("/v1/invoices", &other).await.problem(409, "invoice-exists");
    let history = api.get(&format!("/v1/invoices/{id}/history")).await.expect(200).json();
    assert_eq!(history["data"].as_array().map(Vec::len), Some(1), "{history}");

    let credit = format!("C{id}");
    api.post("/v1/credit-notes", &credit_note(&credit)).await.expect(201);
    let mut other = credit_note(&credit);
    other["country"] = "France".into();
    api.post("/v1/credit-notes", &other).await.problem(409, "credit-note-exists");
}

#[tokio::test]
async fn the_server_makes_ids_and_the_same_again_for_the_same_key() {
    let shop = shared().await;
    let api = shop.api();
    let mut body = invoice("x");
    body.as_object_mut().expect("an object").remove("invoice_id");
    let key = new_id();
    let headers = [("idempotency-key", key.as_str())];
    let first = api.post_with("/v1/invoices", &body, &headers).await;
    let id = first.expect(201).json()["invoice_id"].as_str().expect("an id").to_owned();
    assert!(!id.is_empty() && id.len() <= 64 && !id.starts_with('C'), "{id}");
    let again = api.post_with("/v1/invoices", &body, &headers).await;
    assert_eq!(again.expect(201).json()["invoice_id"], id);
    let other = api.post("/v1/invoices", &body).await;
    assert_ne!(other.expect(201).json()["invoice_id"], id);
}

#[tokio::test]
async fn a_key_has_one_effect_and_one_answer() {
    let shop = shared().await;
    let (api, id, key) = (shop.api(), new_id(), format!("\"{}\"", new_id()));
    let headers = [("idempotency-key", key.as_str())];
    let first = api.post_with("/v1/invoices", &invoice(&id), &headers).await;
    assert_eq!(first.expect(201).header("idempotency-replayed"), None);
    for spelt in [key.as_str(), key.trim_matches('"')] {
        let headers = [("idempotency-key", spelt)];
        let again = api.post_with("/v1/invoices", &invoice(&id), &headers).await;
        assert_eq!(again.need("idempotency-replayed"), "true");
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.header("location"), first.header("location"));
    }
    // Another order of members is the same request, another content is not.
    let mut other = invoice(&id);
    other["country"] = "France".into();
    let reused = api.post_with("/v1/invoices", &other, &headers).await;
    reused.problem(422, "idempotency-key-reused");

    // A refusal is a verdict, too.
    let key = new_id();
    let headers = [("idempotency-key", key.as_str())];
    let refused = api.post_with("/v1/invoices", &other, &headers).await;
    refused.problem(409, "invoice-exists");
    let again = api.post_with("/v1/invoices", &other, &headers).await;
    again.problem(409, "invoice-exists");
    assert_eq!(again.need("idempotency-replayed"), "true");
}

#[tokio::test]
async fn the_same_key_at_the_same_time_has_one_effect() {
    let shop = shared().await;
    let (api, id, key) = (shop.api(), new_id(), new_id());
    let mut posts = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (api, id, key) = (api.clone(), id.clone(), key.clone());
        posts.spawn(async move {
            let headers = [("idempotency-key", key.as_str())];
            api.post_with("/v1/invoices", &invoice(&id), &headers).await
        });
    }
    let mut created = 0;
    while let Some(answer) = posts.join_next().await {
        let answer = answer.expect("a post ends");
        match answer.status {
            201 => created += u32::from(answer.header("idempotency-replayed").is_none()),
            _ => drop(answer.problem(409, "idempotency-key-in-progress")),
        }
    }
    assert_eq!(created, 1);
    let history = api.get(&format!("/v1/invoices/{id}/history")).await.expect(200).json();
    assert_eq!(history["data"].as_array().map(Vec::len), Some(1), "{history}");
}

#[tokio::test]
async fn preconditions_hold() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    let only_new = [("if-none-match", "*")];
    api.post_with("/v1/invoices", &invoice(&id), &only_new).await.expect(201);
    api.post_with("/v1/invoices", &invoice(&id), &only_new).await.problem(412, "exists");
    let at = |version| [("if-match", version)];
    api.post_with("/v1/invoices", &invoice(&id), &at("\"1\"")).await.expect(200);
    let stale = api.post_with("/v1/invoices", &invoice(&id), &at("\"2\"")).await;
    stale.problem(412, "version-mismatch");
    let absent = new_id();
    let stale = api.post_with("/v1/invoices", &invoice(&absent), &at("\"1\"")).await;
    stale.problem(412, "version-mismatch");
    api.get(&format!("/v1/invoices/{absent}/history")).await.problem(404, "not-found");
}

#[tokio::test]
async fn who_reads_with_the_token_sees_the_own_writes() {
    let shop = shared().await;
    let api = shop.api();
    for round in 0..40 {
        let id = new_id();
        let created = api.post("/v1/invoices", &invoice(&id)).await;
        let token = created.expect(201).need("consistency-token");
        let path = format!("/v1/invoices/{id}");
        let headers = [("consistency-token", token.as_str()), ("prefer", "wait=5")];
        let found = api.get_with(&path, &headers).await;
        let row = found.expect(200).json();
        let row = row.get("data").unwrap_or(&row);
        assert_eq!(row["invoice_id"], id, "round {round}: {row}");
        assert_eq!((&row["units"], &row["kind"]), (&6.into(), &"sale".into()));
        assert!(!found.need("read-model-position").is_empty());
        assert!(!found.need("read-model-lag").is_empty());
        assert!(!found.need("consistency-token").is_empty());
        let list = api.get_with(&format!("/v1/invoices?invoice_id=eq.{id}"), &headers).await;
        assert_eq!(list.expect(200).json()["data"].as_array().map(Vec::len), Some(1));
    }
}

#[tokio::test]
async fn every_read_model_follows_a_document() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    let (sku, customer) = (format!("sku {id}"), format!("c-{id}"));
    let mut body = invoice(&id);
    body["customer_id"] = customer.as_str().into();
    body["lines"] = json!([
        {"sku": sku, "description": "", "quantity": 2, "unit_price": "0.0001"},
        {"sku": sku, "description": "A THING", "quantity": 3, "unit_price": "1000000"},
    ]);
    api.post("/v1/invoices", &body).await.expect(201);
    let credit = format!("C{id}");
    let mut note = credit_note(&credit);
    note["customer_id"] = customer.as_str().into();
    note["issued_at"] = "2010-12-02T00:00:00.000001Z".into();
    note["lines"] = json!([{"sku": sku, "description": "B", "quantity": 1, "unit_price": "0.5"}]);
    let token = api.post("/v1/credit-notes", &note).await.expect(201).need("consistency-token");
    let first = api.post("/v1/invoices", &body).await.expect(200).need("consistency-token");
    // The second token does not know of the first unless it was sent along.
    let headers = [("consistency-token", token.as_str())];
    let both = api.post_with("/v1/invoices", &body, &headers).await.need("consistency-token");
    assert_ne!(first, both);
    let within = Duration::from_secs(20);
    let path = format!("/v1/sales_by_product/{}/GBP", sku.replace(' ', "%20"));
    let product = seen(&api, &path, &both, within).await.json();
    let row = product.get("data").unwrap_or(&product);
    assert_eq!(row["description"], "A THING", "{row}");
    assert_eq!(row["units"], 4, "{row}");
    assert_eq!(
        row["gross"].as_str().map(system_tests::oracle::ten_thousandths),
        Some(30_000_000_002)
    );
    let path = format!("/v1/sales_by_customer/{customer}/GBP");
    let found = seen(&api, &path, &both, within).await.json();
    let row = found.get("data").unwrap_or(&found);
    assert_eq!((&row["invoices"], &row["credit_notes"]), (&1.into(), &1.into()), "{row}");
    assert_eq!(row["last_seen_at"], "2010-12-02T00:00:00.000001Z", "{row}");
    let credit_row = seen(&api, &format!("/v1/invoices/{credit}"), &both, within).await.json();
    let row = credit_row.get("data").unwrap_or(&credit_row);
    assert_eq!((&row["kind"], &row["units"]), (&"credit".into(), &(-1).into()), "{row}");
}

#[tokio::test]
async fn history_and_state_tell_who_what_and_when() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    let headers = [
        ("x-correlation-id", "order-77"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let created = api.post_with("/v1/invoices", &invoice(&id), &headers).await;
    created.expect(201);
    assert_eq!(created.need("x-trace-id"), "0af7651916cd43dd8448eb211c80319c");
    let history = api.get(&format!("/v1/invoices/{id}/history")).await.expect(200).json();
    let entry = &history["data"][0];
    assert_eq!((&entry["version"], &entry["type"]), (&1.into(), &"InvoiceIssued".into()));
    assert_eq!(entry["correlation"], "order-77", "{entry}");
    for member in ["time", "actor"] {
        assert!(entry[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {entry}");
    }
    assert!(entry.get("causation").is_some(), "{entry}");
    assert_eq!(entry["data"]["lines"][0]["sku"], "85123A", "{entry}");
    assert_eq!(history["page"]["has_more"], false);
    let past_the_end = api.get(&format!("/v1/invoices/{id}/history?from=2&limit=1")).await;
    assert_eq!(past_the_end.expect(200).json()["data"], json!([]));

    let state = api.get(&format!("/v1/invoices/{id}/state")).await;
    assert_eq!(
        (&state.expect(200).json()["version"], &state.need("etag")[..]),
        (&1.into(), "\"1\"")
    );
    assert_eq!(state.json()["state"]["status"], "issued", "{}", state.shown());
    api.get(&format!("/v1/invoices/{id}/state?version=1")).await.expect(200);
    api.get(&format!("/v1/invoices/{id}/state?version=2")).await.problem(404, "not-found");
    let before = format!("/v1/invoices/{id}/state?as_of=2010-01-01T00:00:00Z");
    api.get(&before).await.problem(404, "not-found");
    let time = entry["time"].as_str().expect("a time");
    api.get(&format!("/v1/invoices/{id}/state?as_of={time}")).await.expect(200);
    api.get("/v1/invoices/nobody/state").await.problem(404, "not-found");
    api.get("/v1/invoices/nobody/history").await.problem(404, "not-found");
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_cancel_its_command() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    let body = invoice(&id).to_string();
    let request = format!(
        "POST /v1/invoices HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let address = api.base().trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the port is open");
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await.expect("it is sent");
    drop(stream);
    let path = format!("/v1/invoices/{id}/history");
    foldstream_testkit::eventually(Duration::from_secs(10), &path, async || {
        api.get(&path).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_document_of_five_thousand_lines_is_taken() {
    let shop = shared().await;
    let (api, id) = (shop.api(), new_id());
    let mut body = invoice(&id);
    body["lines"] = vec![line(); 5_000].into();
    let token = api.post("/v1/invoices", &body).await.expect(201).need("consistency-token");
    let path = format!("/v1/invoices/{id}");
    let row = seen(&api, &path, &token, Duration::from_secs(20)).await.json();
    let row = row.get("data").unwrap_or(&row);
    assert_eq!((&row["lines"], &row["units"]), (&5_000.into(), &30_000.into()), "{row}");
}
