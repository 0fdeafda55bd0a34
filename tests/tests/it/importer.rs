//! What the importer does with files that are not as they should be: it says where, ends with a
//! code that is not 0, and imports the rest all the same.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use system_tests::shop::{Run, Shop, run, shared};

const WITHIN: Duration = Duration::from_secs(60);
const HEADER: &str =
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country";

/// A number that no other test uses, as an invoice has one.
fn number() -> String {
    let digits: String = uuid::Uuid::new_v4().as_u128().to_string().chars().take(12).collect();
    format!("9{digits}")
}

fn row(invoice: &str) -> String {
    format!("{invoice},85123A,HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom")
}

async fn import(shop: &Shop, files: &[&Path], rejects: &Path) -> Run {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let rejects = rejects.display().to_string();
    let mut args = vec!["import", "online-retail", "--json", "--url", &shop.ready().api];
    args.extend(["--rejects", &rejects]);
    args.extend(files.iter().map(String::as_str));
    run(&shop.place, &args, &[], WITHIN).await
}

async fn is_posted(shop: &Shop, invoice: &str) -> bool {
    shop.api().get(&format!("/v1/invoices/{invoice}/history")).await.status == 200
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_and_the_others_are_imported() {
    let shop = shared().await;
    let dir = tempfile::tempdir().expect("temporary files can be written");
    let path = |name: &str| dir.path().join(name);
    let good = number();
    fs::write(path("good.csv"), format!("{HEADER}\n{}\n", row(&good))).expect("it is written");
    fs::write(path("plain.csv.gz"), format!("{HEADER}\n{}\n", row("1"))).expect("it is written");
    let short = HEADER.replace("UnitPrice,", "");
    fs::write(path("short.csv"), format!("{short}\n")).expect("it is written");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(format!("{HEADER}\n{}\n", row("2")).as_bytes()).expect("in memory");
    let mut bytes = gzip.finish().expect("in memory");
    bytes.truncate(bytes.len() / 2);
    fs::write(path("cut.csv.gz"), bytes).expect("it is written");
    fs::write(path("empty.csv"), "").expect("it is written");

    for (bad, says) in [
        ("missing.csv", "missing.csv"),
        ("plain.csv.gz", "gzip"),
        ("short.csv", "UnitPrice"),
        ("cut.csv.gz", "cut.csv.gz"),
        ("empty.csv", "InvoiceNo"),
    ] {
        let run = import(&shop, &[&path(bad), &path("good.csv")], &path("rejects.csv")).await;
        assert_eq!(run.code, Some(1), "{bad}: {run:?}");
        assert!(run.stderr.contains(bad) && run.stderr.contains(says), "{bad}: {}", run.stderr);
        let summary = run.json();
        assert_eq!((&summary["invoices"], &summary["files"]), (&1.into(), &1.into()), "{bad}");
        assert!(is_posted(&shop, &good).await, "{bad}");
    }
    let short = import(&shop, &[&path("short.csv")], &path("rejects.csv")).await;
    assert!(short.stderr.contains("short.csv:1"), "the line of the header: {}", short.stderr);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_named_and_the_other_documents_are_imported() {
    let shop = shared().await;
    let dir = tempfile::tempdir().expect("temporary files can be written");
    let (file, rejects) = (dir.path().join("rows.csv"), dir.path().join("rejects.csv"));
    let (first, last) = (number(), number());
    let broken = [
        row(&number()).replace(",6,", ",six,"),
        row(&number()).replace(",2.55,", ",2.55001,"),
        row(&number()).replace("2010-12-01", "2010-13-01"),
        format!("{},85123A", number()),
    ];
    let lines = [&[HEADER.to_owned(), row(&first)][..], &broken, &[row(&last)]].concat();
    fs::write(&file, lines.join("\n") + "\n").expect("it is written");

    let run = import(&shop, &[&file], &rejects).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    let summary = run.json();
    assert_eq!((&summary["rows"], &summary["rows_posted"]), (&6.into(), &2.into()), "{summary}");
    assert_eq!((&summary["rows_refused"], &summary["invoices"]), (&4.into(), &2.into()));
    assert!(is_posted(&shop, &first).await && is_posted(&shop, &last).await);
    let rejects = fs::read_to_string(&rejects).expect("there are rejects");
    for line in 3..=6 {
        let place = format!("rows.csv,{line},");
        assert!(rejects.contains(&place), "line {line} is not in {rejects}");
    }
    // The first is named at once, the others are in the file.
    let says = ["4 rows", "rows.csv:3", "Quantity"].iter().all(|part| run.stderr.contains(part));
    assert!(says, "{}", run.stderr);
    for reason in ["Quantity", "UnitPrice", "InvoiceDate"] {
        assert!(rejects.contains(reason), "{reason} is not in {rejects}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_ends_the_import() {
    let shop = shared().await;
    let dir = tempfile::tempdir().expect("temporary files can be written");
    let file = dir.path().join("good.csv");
    fs::write(&file, format!("{HEADER}\n{}\n", row(&number()))).expect("it is written");
    let url = format!("http://127.0.0.1:{}", foldstream_testkit::free_port());
    let file = file.display().to_string();
    let args = ["import", "online-retail", &file, "--url", &url, "--patience", "1", "--json"];
    let run = run(&shop.place, &args, &[], WITHIN).await;
    assert!(matches!(run.code, Some(1 | 69)), "{run:?}");
    assert!(run.stderr.contains(&url), "{}", run.stderr);
}

#[tokio::test]
async fn a_wrong_command_line_is_code_2() {
    let shop = shared().await;
    for args in [
        &["import"][..],
        &["import", "online-retail"],
        &["import", "no-such-kind", "x.csv"],
        &["exprot"],
        &["dev", "--no-such-flag"],
    ] {
        let run = run(&shop.place, args, &[], WITHIN).await;
        assert_eq!(run.code, Some(2), "{args:?}: {run:?}");
        assert!(!run.stderr.is_empty());
    }
}
