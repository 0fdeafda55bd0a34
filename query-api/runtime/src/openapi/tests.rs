use super::*;
use crate::sample::ThingRow;
use foldstream_core::read_model;

#[test]
fn every_parameter_and_column_is_described() {
    let document = openapi(&[read_model::<ThingRow>()]).expect("one model").into_json();
    let list = &document["paths"]["/v1/things"]["get"];
    let parameters: Vec<_> =
        list["parameters"].as_array().expect("a list").iter().map(|p| p["name"].clone()).collect();
    for name in ["select", "order", "limit", "cursor", "price", "name", "Consistency-Token"] {
        assert!(parameters.contains(&name.into()), "{name}");
    }
    assert!(!parameters.contains(&"secret".into()) && !parameters.contains(&"extra".into()));
    for status in ["200", "304", "400", "406", "409", "410", "503"] {
        assert!(list["responses"][status].is_object(), "{status}");
    }
    let get = &document["paths"]["/v1/things/{id}/{number}"]["get"];
    assert!(get["responses"]["404"].is_object());
    let row = &document["components"]["schemas"]["ThingsRow"];
    assert_eq!(row["description"], "One row per thing.");
    assert_eq!(row["properties"]["price"]["type"], serde_json::json!(["string", "null"]));
    assert_eq!(row["properties"]["look"]["enum"], serde_json::json!(["round", "square"]));
    assert!(row["properties"].get("secret").is_none());
}
