//! `shop streams …` against a running process, and its twins among the admin routes.

use std::process::Command;
use std::time::Duration;

use foldstream_testkit::{eventually, unique};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use system_tests::documents::{credit_note, invoice};
use system_tests::process::Process;
use system_tests::shop::{self, Run, Shared, command, run};

const WITHIN: Duration = Duration::from_secs(30);

/// A shop, and streams of this test alone: their ids begin with `prefix`.
struct Stage {
    shop: Shared,
    prefix: String,
}

impl Stage {
    /// With this many invoices and one credit note.
    async fn with(invoices: usize) -> Self {
        let stage = Stage { shop: shop::shared().await, prefix: unique("S") };
        for n in 0..invoices {
            stage.post(n).await;
        }
        let credit = credit_note(&stage.credit());
        stage.shop.api().post("/v1/credit-notes", &credit).await.expect(201);
        stage
    }
    fn id(&self, n: usize) -> String {
        format!("{}-{n:03}", self.prefix)
    }
    fn credit(&self) -> String {
        format!("C{}", self.prefix)
    }
    async fn post(&self, n: usize) {
        let headers = [
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("x-correlation-id", "audit-7"),
        ];
        let (api, body) = (self.shop.api(), invoice(&self.id(n)));
        api.post_with("/v1/invoices", &body, &headers).await.expect(201);
    }
    fn args<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["streams"], args, &["--admin", &self.shop.ready().admin]].concat()
    }
    async fn ask(&self, args: &[&str]) -> Run {
        run(&self.shop.place, &self.args(args), &[], WITHIN).await
    }
    async fn json(&self, args: &[&str]) -> Value {
        let asked = self.ask(&[args, &["--json"]].concat()).await;
        assert_eq!(asked.code, Some(0), "{args:?}: {}", asked.stderr);
        let text = asked.stdout.join("\n");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
    /// A command that goes on until it is told to end.
    fn follow(&self, args: &[&str]) -> Process {
        let mut command: Command = command(&self.args(args), &[]);
        command.current_dir(self.shop.place.dir());
        let log = self.shop.place.dir().join(format!("{}.log", unique("tail")));
        Process::start("shop streams tail", command, &log)
    }
}

fn names(answer: &Value, member: &str) -> Vec<String> {
    let all = answer["data"].as_array().expect("a list").iter();
    all.map(|one| one[member].as_str().expect("a text").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ls_pages_through_the_streams_of_an_aggregate() {
    let stage = Stage::with(7).await;
    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let mut args = vec!["ls", "--aggregate", "invoices", "--prefix", &stage.prefix];
        args.extend(["--limit", "3"]);
        if let Some(after) = &after {
            args.extend(["--after", after.as_str()]);
        }
        let page = stage.json(&args).await;
        let first = &page["data"][0];
        assert_eq!(
            (&first["version"], &first["last_type"]),
            (&json!(1), &json!("shop.invoices.InvoiceIssued"),)
        );
        assert!(first["last_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{first}");
        seen.extend(names(&page, "stream"));
        assert_eq!(page["page"]["has_more"], page["page"]["next"].is_string());
        after = page["page"]["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..7).map(|n| format!("invoices/{}", stage.id(n))).collect();
    assert_eq!(seen, expected);

    // Without an aggregate the streams of all follow one another.
    let before = format!("credit-notes/{}", stage.credit());
    let all = stage.json(&["ls", "--prefix", &stage.credit()]).await;
    assert_eq!(names(&all, "stream"), [before.as_str()]);
    let after = format!("invoices/{}", stage.id(4));
    let rest = stage.json(&["ls", "--prefix", &stage.prefix, "--after", &after]).await;
    assert_eq!(names(&rest, "stream"), expected[5..]);

    let table = stage.ask(&["ls", "--prefix", &stage.prefix, "--limit", "2"]).await;
    assert_eq!((table.code, table.stdout.len()), (Some(0), 3), "{:?}", table.stdout);
    assert!(table.stdout[0].starts_with("STREAM") || table.stdout[0].contains("STREAM"));
    assert!(table.stdout.iter().all(|line| line.chars().count() <= 100), "{:?}", table.stdout);
    assert!(table.stderr.contains("more: --after invoices/"), "{}", table.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn show_and_state_tell_what_happened_who_and_why() {
    let stage = Stage::with(1).await;
    let stream = format!("invoices/{}", stage.id(0));
    let history = stage.json(&["show", &stream]).await;
    let event = &history["data"][0];
    assert_eq!(history["stream"], stream);
    for (member, expected) in [
        ("version", json!(1)),
        ("type", json!("InvoiceIssued")),
        ("actor", json!("anonymous")),
        ("correlation", json!("audit-7")),
        ("trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
    ] {
        assert_eq!(event[member], expected, "{member}");
    }
    let traceparent = event["traceparent"].as_str().expect("a text");
    assert!(traceparent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{traceparent}");
    assert!(event["causation"].is_string() && event["position"].is_u64(), "{event}");
    assert_eq!(event["data"]["lines"][0]["sku"], "85123A");
    // The twin for everybody says the same.
    let public = stage.shop.api().get(&format!("/v1/{stream}/history")).await.expect(200).json();
    assert_eq!(public["data"][0], *event);
    let beyond = stage.json(&["show", &stream, "--from", "2"]).await;
    assert_eq!((&beyond["data"], &beyond["page"]["prev"]), (&json!([]), &json!("1")));
    let shown = stage.ask(&["show", &stream]).await;
    assert!(shown.stdout[0].starts_with("1 InvoiceIssued"), "{:?}", shown.stdout);
    assert!(shown.stdout.iter().all(|line| line.chars().count() <= 100), "{:?}", shown.stdout);

    let latest = stage.json(&["state", &stream]).await;
    assert_eq!((&latest["stream"], &latest["version"]), (&json!(stream), &json!(1)));
    assert_eq!(stage.json(&["state", &stream, "--version", "1"]).await, latest);
    let time = event["time"].as_str().expect("a text");
    assert_eq!(stage.json(&["state", &stream, "--as-of", time]).await, latest);
    assert_eq!(stage.json(&["state", &stream, "--as-of", "9999-12-31T23:59:59Z"]).await, latest);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_and_what_cannot_be_asked_have_their_exit_codes() {
    let stage = Stage::with(1).await;
    let stream = format!("invoices/{}", stage.id(0));
    let nobody = format!("invoices/{}-none", stage.prefix);
    for (code, said, args) in [
        (4, "there are: credit-notes, invoices", vec!["ls", "--aggregate", "orders"]),
        (4, "no events", vec!["show", &nobody]),
        (4, "no events", vec!["state", &nobody]),
        (4, "at version 1 only", vec!["state", &stream, "--version", "2"]),
        (4, "had no events at", vec!["state", &stream, "--as-of", "2001-01-01T00:00:00Z"]),
        (4, "no aggregate", vec!["show", "orders/1"]),
        (4, "no events", vec!["tail", &nobody]),
        (2, "AGGREGATE/ID", vec!["show", "536365"]),
        (2, "AGGREGATE/ID", vec!["show", "invoices/a b"]),
        (2, "AGGREGATE/ID", vec!["ls", "--after", "x"]),
        (2, "1..=500", vec!["ls", "--limit", "501"]),
        (2, "beginning of an id", vec!["ls", "--prefix", "a/b"]),
        (2, "'--from <FROM>'", vec!["show", &stream, "--from", "0"]),
        (2, "RFC 3339", vec!["state", &stream, "--as-of", "today"]),
        (
            2,
            "cannot be used with",
            vec!["state", &stream, "--version", "1", "--as-of", "2001-01-01T00:00:00Z"],
        ),
        (2, "PARTITION:POSITION", vec!["tail", "--from", "3"]),
        (2, "no partition", vec!["tail", "--aggregate", "invoices", "--from", "99:1"]),
        (2, "a version", vec!["tail", &stream, "--from", "0"]),
        (2, "cannot be used with", vec!["tail", &stream, "--aggregate", "invoices"]),
    ] {
        let asked = stage.ask(&args).await;
        assert_eq!(asked.code, Some(code), "{args:?}: {}", asked.stderr);
        assert!(asked.stderr.contains(said), "{args:?}: {}", asked.stderr);
    }
    let port = foldstream_testkit::free_port();
    let nowhere = ["streams", "ls", "--admin", &format!("http://127.0.0.1:{port}")];
    assert_eq!(run(&stage.shop.place, &nowhere, &[], WITHIN).await.code, Some(69));
    // The twins refuse the same, as problems.
    let admin = stage.shop.admin();
    for path in ["?limit=0", "?limit=x", "?page=2", "?after=x", "?prefix=%2F", "/tail?last=501"] {
        admin.get(&format!("/admin/streams{path}")).await.problem(400, "invalid-query");
    }
    admin.get("/admin/streams/orders/1").await.problem(404, "not-found");
    admin.get("/admin/streams/invoices/a%20b").await.problem(400, "invalid-path");
    admin
        .get(&format!("/admin/streams/{stream}/state?version=0"))
        .await
        .problem(400, "invalid-query");
}

fn events(process: &Process) -> Vec<Value> {
    let parse = |line: &String| serde_json::from_str(line).expect("lines of JSON");
    process.stdout().iter().map(parse).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_prints_all_that_is_appended_without_a_gap_and_ends_at_ctrl_c() {
    let stage = Stage::with(1).await;
    let tail = stage.follow(&["tail", "--aggregate", "invoices", "--follow", "--json"]);
    let own = |tail: &Process| -> Vec<Value> {
        let mine =
            |event: &Value| event["stream"].as_str().is_some_and(|s| s.contains(&stage.prefix));
        events(tail).into_iter().filter(mine).collect()
    };
    eventually(WITHIN, "the last events", async || own(&tail).len() == 1).await;
    // Written from many sides at once.
    let posts = tokio::task::JoinSet::from_iter((1..60).map(|n| {
        let (api, body) = (stage.shop.api(), invoice(&stage.id(n)));
        async move { api.post("/v1/invoices", &body).await.expect(201).status }
    }));
    assert_eq!(posts.join_all().await.len(), 59);
    eventually(WITHIN, "all new events", async || {
        let seen = own(&tail).len();
        if seen == 60 { Ok(()) } else { Err(format!("{seen} of 60")) }
    })
    .await;
    kill(Pid::from_raw(tail.pid()), Signal::SIGINT).expect("it runs");
    let ended = tail.wait(WITHIN).expect("it ends at Ctrl-C");
    assert_eq!(ended.code(), Some(130), "{}", tail.stderr());
    // Positions of each partition are contiguous from the first that was printed.
    let mut last = std::collections::BTreeMap::new();
    for event in events(&tail) {
        let (partition, position) = (event["partition"].as_i64(), event["position"].as_u64());
        let position = position.expect("a position");
        if let Some(before) = last.insert(partition, position) {
            assert_eq!(position, before + 1, "{event}");
        }
    }

    // From a place in a partition, to where it ends now.
    let one = own(&tail).swap_remove(30);
    let (partition, position) = (&one["partition"], &one["position"]);
    let from = format!("{partition}:{position}");
    let again = stage.ask(&["tail", "--aggregate", "invoices", "--from", &from, "--json"]).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let first: Value = serde_json::from_str(&again.stdout[0]).expect("JSON");
    assert_eq!(first, one);
    let others = again.stdout.iter().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert!(others.into_iter().all(|event| event["partition"] == *partition));
    // All from the start, and the last few, in lines for people.
    let all = stage.ask(&["tail", "--from", "start", "--json"]).await;
    assert!(all.stdout.len() >= 61, "{} lines", all.stdout.len());
    let few = stage.ask(&["tail", "--last", "5"]).await;
    assert_eq!((few.code, few.stdout.len()), (Some(0), 5), "{:?}", few.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_of_one_stream_waits_for_its_first_event() {
    let stage = Stage::with(0).await;
    let stream = format!("invoices/{}", stage.id(5));
    let tail = stage.follow(&["tail", &stream, "--follow", "--json"]);
    stage.post(4).await;
    stage.post(5).await;
    stage.post(6).await;
    let seen = eventually(WITHIN, "its event", async || events(&tail).pop()).await;
    assert_eq!((&seen["stream"], &seen["version"]), (&json!(stream), &json!(1)));
    kill(Pid::from_raw(tail.pid()), Signal::SIGINT).expect("it runs");
    assert_eq!(tail.wait(WITHIN).and_then(|ended| ended.code()), Some(130));
    assert_eq!(events(&tail).len(), 1);
}
