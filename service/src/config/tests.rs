use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::*;

const KEYS: &[Key] = &[
    Key::new("http.port", "SHOP_PORT", Kind::PORT, "The port."),
    Key::new("http.hosts", "", Kind::List, "The hosts."),
    Key::new("log.format", "LOG_FORMAT", Kind::OneOf(&["json", "text"]), "How lines look."),
    Key::new("read.database_url", "READ_DATABASE_URL", Kind::Text, "The read database."),
    Key::new("services.*.database_url", "*_DATABASE_URL", Kind::Text, "A service's database."),
    Key::new("token", "SHOP_TOKEN", Kind::Text, "A token.").secret(),
];

#[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    http: Http,
    log: BTreeMap<String, String>,
    read: BTreeMap<String, String>,
    services: BTreeMap<String, BTreeMap<String, String>>,
    token: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Http {
    port: u16,
    hosts: Vec<String>,
}

impl Default for Http {
    fn default() -> Self {
        Self { port: 7400, hosts: Vec::new() }
    }
}

struct File(PathBuf);

impl File {
    fn new(text: &str, mode: u32) -> Self {
        let name = format!("foldstream-config-{}.toml", uuid::Uuid::new_v4().simple());
        let path = std::env::temp_dir().join(name);
        let mut file = std::fs::File::create(&path).expect("a temporary file");
        file.write_all(text.as_bytes()).expect("a temporary file");
        file.set_permissions(PermissionsExt::from_mode(mode)).expect("its mode");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("the file is ours");
    }
}

fn vars(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn faults(file: &File) -> Vec<String> {
    Loader::new(KEYS).file(&file.0).load::<Config>().expect_err("it is not valid").faults
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = File::new("[http]\nport = 1\nhosts = [\"a\"]\n[log]\nformat = \"text\"\n", 0o644);
    let loader = Loader::new(KEYS).file(&file.0).environment(vars(&[
        ("SHOP_PORT", "2"),
        ("LOG_FORMAT", "json"),
        ("OTHER", "x"),
    ]));
    let loaded = loader.clone().flag("http.port", "3").load::<Config>().expect("valid");
    assert_eq!(loaded.value.http, Http { port: 3, hosts: vec!["a".to_owned()] });
    assert_eq!(loaded.value.log["format"], "json");
    let source = |key: &str| {
        let entry = loaded.entries.iter().find(|entry| entry.key == key).expect("every key");
        entry.source.to_string()
    };
    assert_eq!(source("http.port"), "flag");
    assert_eq!(source("log.format"), "environment LOG_FORMAT");
    assert_eq!(source("http.hosts"), format!("{}:3", file.0.display()));
    assert_eq!(source("token"), "default");
    assert_eq!(loader.load::<Config>().expect("valid").value.http.port, 2);
}

#[test]
fn a_name_of_the_users_own_is_taken_from_file_and_environment() {
    let environment = vars(&[
        ("READ_DATABASE_URL", "postgres://r:secret@h/r"),
        ("CREDIT_NOTES_DATABASE_URL", "postgres://c:secret@h/c"),
    ]);
    let loaded = Loader::new(KEYS).environment(environment).load::<Config>().expect("valid");
    assert_eq!(loaded.value.read["database_url"], "postgres://r:secret@h/r");
    assert_eq!(loaded.value.services.keys().collect::<Vec<_>>(), ["credit-notes"]);
    let shown = format!("{:?}", loaded.entries);
    assert!(!shown.contains("secret"), "{shown}");
    assert!(shown.contains("postgres://c:***@h/c"), "{shown}");
}

#[test]
fn every_unknown_key_is_named_with_its_line_and_the_nearest() {
    let found =
        faults(&File::new("tokn = 1\n[http]\n# port\nprot = 1\n\n[zzzzzz]\nx = 1\n", 0o644));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().any(|f| f.contains(":1: ") && f.contains("did you mean token?")));
    assert!(found.iter().any(|f| f.contains(":4: ") && f.contains("did you mean http.port?")));
    assert!(found.iter().any(|f| f.contains(":6: unknown key zzzzzz; known are http.port")));
}

#[test]
fn wrong_types_and_ranges_are_named_with_their_rule() {
    for (text, rule) in [
        ("[http]\nport = \"x\"", ":2: http.port: must be a whole number from 1 to 65535"),
        ("[http]\nport = 0", "from 1 to 65535, is 0"),
        ("[http]\nport = 70000", "from 1 to 65535, is 70000"),
        ("http = 3", ":1: http must be a table"),
        ("[log]\nformat = \"xml\"", "must be one of json, text"),
        ("[http]\nport = ", ":2: "),
    ] {
        let found = faults(&File::new(text, 0o644));
        assert!(found.len() == 1 && found[0].contains(rule), "{text}: {found:?}");
    }
    let port = Loader::new(KEYS).environment(vars(&[("SHOP_PORT", "many")])).load::<Config>();
    let text = port.expect_err("not a number").to_string();
    assert!(text.contains("environment SHOP_PORT: http.port: must be"), "{text}");
}

#[test]
fn a_secret_in_a_file_for_all_is_refused_and_never_shown() {
    let text = "token = \"hush\"\n[read]\ndatabase_url = \"postgres://r:hush@h/r\"\n";
    let found = faults(&File::new(text, 0o644));
    assert_eq!(found.len(), 2, "{found:?}");
    let file = File::new(text, 0o600);
    let loaded = Loader::new(KEYS).file(&file.0).load::<Config>().expect("valid");
    assert_eq!(loaded.value.token.as_deref(), Some("hush"));
    assert!(!format!("{:?}", loaded.entries).contains("hush"));
}

#[test]
fn a_missing_file_is_a_fault_only_where_it_was_asked_for() {
    let missing = std::env::temp_dir().join("foldstream-no-such-file.toml");
    assert!(Loader::new(KEYS).file(&missing).load::<Config>().is_err());
    assert!(Loader::new(KEYS).file_if_present(&missing).load::<Config>().is_ok());
}
