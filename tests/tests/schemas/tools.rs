//! `shop schemas ls|check|register`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use system_tests::shop::{Run, run};

use crate::registry::{Env, OTHER, SUBJECT, World};

const WITHIN: Duration = Duration::from_secs(60);

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout.join("\n")).unwrap_or_else(|e| panic!("{e}: {run:?}"))
}
/// The files of this repository.
fn avro() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/avro")
}
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_checked_without_a_registry() {
    let place = system_tests::place::Place::new();
    let dir = place.dir().join("avro");
    copy(&avro(), &dir);
    let dir_text = dir.to_str().unwrap().to_owned();
    let schemas = async |args: &[&str]| {
        let args = [&["schemas"], args, &["--dir", &dir_text]].concat();
        run(&place, &args, &[], WITHIN).await
    };
    let well = schemas(&["check", "--json"]).await;
    assert_eq!(well.code, Some(0), "{well:?}");
    let said = json(&well);
    assert_eq!((&said["faults"], &said["registry"]), (&Value::Array(vec![]), &Value::Null));
    assert!(said["schemas"].as_u64() >= Some(2), "{said}");
    let listed = json(&schemas(&["ls", "--json"]).await);
    let invoice = listed.as_array().unwrap().iter().find(|row| row["subject"] == SUBJECT).unwrap();
    assert!(invoice["number"].as_u64() >= Some(1), "{invoice}");
    assert_eq!((&invoice["id"], &invoice["version"]), (&Value::Null, &Value::Null));
    let table = schemas(&["ls"]).await;
    assert!(table.stdout.iter().any(|line| line.contains(SUBJECT)), "{table:?}");

    // An older file that the code's schema cannot follow: two fields have no default.
    let file = dir.join("invoices/InvoiceIssued/1.avsc");
    let mut older: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    older["fields"].as_array_mut().unwrap().retain(|f| f["name"] != "country");
    fs::write(&file, older.to_string()).unwrap();
    let refused = schemas(&["check", "--json"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let faults = json(&refused)["faults"].clone();
    let fault = |rule: &str| {
        let faults = faults.as_array().unwrap();
        faults.iter().find(|f| f["rule"] == rule).unwrap_or_else(|| panic!("{faults:?}")).clone()
    };
    let missing = fault("field-without-default");
    assert_eq!(missing["field"], "country");
    assert!(missing["file"].as_str().unwrap().ends_with("InvoiceIssued/1.avsc"), "{missing}");
    let for_people = schemas(&["check"]).await;
    assert_eq!(for_people.code, Some(1));
    assert!(for_people.stderr.contains("refused: ") && for_people.stderr.contains("`country`"));
    // Nothing is written over it either.
    let generate = schemas(&["generate"]).await;
    assert_eq!(generate.code, Some(1), "{generate:?}");
    assert!(!dir.join("invoices/InvoiceIssued/2.avsc").exists());

    // From nothing all is written, and then as it must be.
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(schemas(&["check"]).await.code, Some(1));
    assert_eq!(schemas(&["generate"]).await.code, Some(0));
    assert_eq!(schemas(&["check"]).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_is_asked_and_filled() {
    let world = World::new().await;
    let env = world.env();
    let dir = avro().to_str().unwrap().to_owned();
    let schemas = async |args: &[&str], env: &Env| {
        run(&world.place, &[&["schemas"], args, &["--dir", &dir, "--json"]].concat(), env, WITHIN)
            .await
    };
    let checked = schemas(&["check"], &env).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert_eq!(json(&checked)["registry"], world.registry.url());

    // The first opinion is another's: refused, and nothing at all is registered.
    world.registry.register(SUBJECT, OTHER).await.unwrap();
    let checked = schemas(&["check"], &env).await;
    assert_eq!(checked.code, Some(1), "{checked:?}");
    assert_eq!(json(&checked)["faults"][0]["rule"], "registry");
    assert_eq!(json(&checked)["faults"][0]["file"], SUBJECT);
    assert_eq!(schemas(&["check", "--offline"], &env).await.code, Some(0));
    let refused = schemas(&["register"], &env).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("nothing is registered"), "{}", refused.stderr);
    let listed = json(&schemas(&["ls"], &env).await);
    assert!(listed.as_array().unwrap().iter().all(|row| row["id"].is_null()), "{listed}");

    // A registry of its own; named by the flag, not by the environment.
    let other = World::new().await;
    let url = other.registry.url().to_owned();
    let registered = schemas(&["register", "--registry", &url], &env).await;
    assert_eq!(registered.code, Some(0), "{registered:?}");
    let said = json(&registered);
    assert!(said["registered"].as_array().unwrap().len() >= 2, "{said}");
    assert_eq!(said["compatibility"], "BACKWARD_TRANSITIVE");
    let level = other.registry.compatibility(SUBJECT).await;
    assert_eq!(level, Ok(Some("BACKWARD_TRANSITIVE".to_owned())));
    let again = json(&schemas(&["register", "--registry", &url], &env).await);
    assert_eq!(again["registered"], Value::Array(vec![]));
    let listed = json(&schemas(&["ls", "--registry", &url], &env).await);
    let all = listed.as_array().unwrap();
    assert!(all.iter().all(|row| row["id"].is_u64() && row["version"] == 1), "{listed}");

    // Nobody there, nowhere to ask, and both at once.
    let nobody = format!("http://127.0.0.1:{}", foldstream_testkit::free_port());
    for task in ["check", "ls", "register"] {
        let away = schemas(&[task, "--registry", &nobody], &env).await;
        assert_eq!(away.code, Some(69), "{away:?}");
    }
    assert_eq!(schemas(&["register"], &Env::new()).await.code, Some(78));
    let both = schemas(&["check", "--offline", "--registry", &url], &env).await;
    assert_eq!(both.code, Some(2), "{both:?}");
}
