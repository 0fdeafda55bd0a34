//! A month of real sales: from the file over HTTP into the topics and the read models.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::models::amount_text;
use system_tests::oracle::{Oracle, ten_thousandths};
use system_tests::shop::{DRAIN, Run, Shop, run};
use system_tests::{python, sample, sockets, sql};

use crate::equals_oracle;

const IMPORT: Duration = Duration::from_secs(120);
const CATCH_UP: Duration = Duration::from_secs(30);

/// The sample through the command line.
pub(crate) async fn import(shop: &Shop, rejects: &Path) -> Run {
    let (file, rejects) = (sample(), rejects.display().to_string());
    let args =
        ["import", "online-retail", &file.display().to_string(), "--json", "--rejects", &rejects];
    let api = [("FOLDSTREAM_API".to_owned(), "http://127.0.0.1:9".to_owned())];
    let with_url = [&args[..], &["--url", &shop.ready().api]].concat();
    run(&shop.place, &with_url, &api, IMPORT).await
}

/// The summary of an import, without the time it took.
pub(crate) fn summary(run: &Run) -> Value {
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.stdout.len(), 1, "{:?}", run.stdout);
    let mut summary = run.json();
    let seconds = summary.as_object_mut().and_then(|members| members.remove("seconds"));
    assert!(seconds.is_some_and(|seconds| seconds.as_f64().is_some_and(|s| s > 0.0)));
    summary
}

pub(crate) fn whole_month() -> Value {
    json!({
        "files": 1, "rows": 42_481, "rows_posted": 42_411, "rows_refused": 70,
        "invoices": 1_629, "credit_notes": 326, "rejected_by_server": 0,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_sales_is_what_the_file_says_and_survives_a_restart() {
    let mut shop = Shop::start().await;
    println!("a start over a new directory: {:.1} s", shop.started_in.as_secs_f64());
    the_line_says_where_everything_is(&shop);
    nothing_listens_but_on_loopback(&shop);
    let oracle = tokio::task::spawn_blocking(|| Oracle::of(&sample())).await.expect("it reads");

    let rejects = shop.place.dir().join("rejects.csv");
    let first = import(&shop, &rejects).await;
    assert_eq!(summary(&first), whole_month());
    println!("import: {} s", first.json()["seconds"]);
    rejects_name_lines_and_reasons(&rejects, &oracle);
    equals_oracle(&shop, &oracle, CATCH_UP).await;
    totals(&shop).await;

    let events = "select count(*) from events";
    let stored = sql::number(&shop.database("shop_invoicing"), events).await;
    assert_eq!(stored, Ok(1_955));
    assert_eq!(summary(&import(&shop, &rejects).await), whole_month());
    assert_eq!(sql::number(&shop.database("shop_invoicing"), events).await, stored);
    equals_oracle(&shop, &oracle, CATCH_UP).await;
    a_stranger_reads_the_topics(&shop, &oracle).await;

    let process = shop.process().expect("it runs");
    assert_eq!(process.stdout().len(), 1, "{:?}", process.stdout());
    let children = sockets::descendants(shop.pid());
    let ended = shop.terminate(DRAIN).expect("it drains in time");
    assert!(ended.success(), "{ended}");
    assert!(children.iter().all(|pid| !sockets::runs(*pid)), "a child is left over");

    shop.restart().await;
    println!("a warm start: {:.1} s", shop.started_in.as_secs_f64());
    assert!(shop.started_in < Duration::from_secs(40), "{:?}", shop.started_in);
    equals_oracle(&shop, &oracle, CATCH_UP).await;
}

fn the_line_says_where_everything_is(shop: &Shop) {
    let lines = shop.process().expect("it runs").stdout();
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let line: Value = serde_json::from_str(line).expect("the line was read before");
    let base = shop.place.base;
    let http = |offset: u16| json!(format!("http://127.0.0.1:{}", base + offset));
    assert_eq!(line["ready"], true);
    assert_eq!(line["token"], Value::Null);
    let addresses = [&line["api"], &line["registry"], &line["admin"]];
    assert_eq!(addresses, [&http(0), &http(4), &http(9)]);
    assert_eq!(line["console"], format!("http://127.0.0.1:{base}/console"));
    assert_eq!(line["kafka"], format!("127.0.0.1:{}", base + 92));
    let postgres = |name: &str| {
        let url: reqwest::Url = line[name].as_str().expect("a text").parse().expect("a URL");
        assert_eq!((url.scheme(), url.port()), ("postgres", Some(base + 32)), "{name}");
        (url.username().to_owned(), url.host_str().map(str::to_owned), url.path().to_owned())
    };
    assert_eq!(postgres("read_database").2, "/shop_read");
    let loopback = Some("127.0.0.1".to_owned());
    assert_eq!(postgres("analyst"), ("analyst".to_owned(), loopback, "/shop_read".to_owned()));
    assert!(!postgres("postgres").0.is_empty());
}

fn nothing_listens_but_on_loopback(shop: &Shop) {
    let mut pids = sockets::descendants(shop.pid());
    assert!(pids.len() >= 2, "Kafka and Postgres are its children: {pids:?}");
    pids.push(shop.pid());
    let listening: BTreeSet<SocketAddr> = sockets::listening(&pids);
    let ports: BTreeSet<u16> = listening.iter().map(SocketAddr::port).collect();
    for offset in [0, 4, 9, 32, 92, 93] {
        assert!(ports.contains(&(shop.place.base + offset)), "+{offset} is not in {ports:?}");
    }
    assert!(listening.iter().all(|address| address.ip().is_loopback()), "{listening:?}");
}

fn rejects_name_lines_and_reasons(rejects: &Path, oracle: &Oracle) {
    let mut reader = csv::Reader::from_path(rejects).expect("the rejects file is there");
    let header = reader.headers().expect("it has a header").clone();
    let place = |name: &str| header.iter().position(|h| h == name).expect("a column");
    let (line, reason, file) = (place("line"), place("reason"), place("file"));
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record.expect("it is CSV");
        lines.push(record[line].parse::<u64>().expect("a line number"));
        assert!(!record[reason].is_empty() && record[file].ends_with("2010-12.csv.gz"));
    }
    lines.sort_unstable();
    assert_eq!(lines, oracle.refused_lines);
    assert_eq!(lines.len(), 70);
}

async fn totals(shop: &Shop) {
    for (model, expected) in [
        ("sales_by_day", ["823746.1400", "74789.1200", "748957.0200"]),
        ("sales_by_product", ["823746.1400", "74789.1200", "748957.0200"]),
    ] {
        let sums = format!(
            "select sum(gross)::text, sum(credited)::text, sum(net)::text from analytics.{model}"
        );
        let found = sql::rows(&shop.ready().analyst, &sums).await.expect("it is answered");
        assert_eq!(found, [expected.map(|text| Some(text.to_owned())).to_vec()], "{model}");
    }
    let fresh = "select count(*) from meta.freshness where lag_events is distinct from 0";
    let lagging = foldstream_testkit::eventually(CATCH_UP, "no lag", async || {
        match sql::number(&shop.ready().read_database, fresh).await {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?} models lag")),
        }
    });
    lagging.await;
    let write = "insert into analytics.invoices (invoice_id) values ('x')";
    assert!(sql::run(&shop.ready().analyst, write).await.is_err(), "an analyst can write");
}

async fn a_stranger_reads_the_topics(shop: &Shop, oracle: &Oracle) {
    let (kafka, registry) = (shop.ready().kafka.clone(), shop.ready().registry.clone());
    let topics = ["shop.invoices", "shop.credit-notes"];
    let reading = move || python::read_topics(&kafka, &registry, &topics);
    let found = tokio::task::spawn_blocking(reading).await.expect("a stranger can read all");
    for (topic, records, amount, event) in [
        ("shop.invoices", 1_629, oracle.totals.gross, "shop.invoices.InvoiceIssued"),
        ("shop.credit-notes", 326, oracle.totals.credited, "shop.credit_notes.CreditNoteIssued"),
    ] {
        let found = &found[topic];
        assert_eq!(found["records"], records, "{topic}");
        assert_eq!(found["types"], json!([event]));
        assert_eq!(found["partitions"], 8, "of {topic} hold events");
        let sum = ten_thousandths(found["amount"].as_str().expect("a decimal"));
        assert_eq!(amount_text(sum), amount_text(amount), "{topic}");
    }
}
