//! kill -9 in mid-import, of the shop and of the importer: nothing is lost, nothing doubles.

use std::time::{Duration, Instant};

use foldstream_testkit::eventually;
use system_tests::oracle::Oracle;
use system_tests::process::Process;
use system_tests::shop::{Shop, command};
use system_tests::{sample, sockets, sql};

use crate::equals_oracle;
use crate::month::{import, summary, whole_month};

const PROGRESS: Duration = Duration::from_secs(60);
/// Kafka gives the partitions of a worker that was killed to the next one when its session is over.
const CATCH_UP: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_import_and_started_again_the_figures_are_the_same() {
    let mut shop = Shop::start().await;
    let importer = importer(&shop);
    has_events(&shop, 300).await;
    let children = sockets::descendants(shop.pid());
    shop.kill();
    eventually(PROGRESS, "the end of the children", async || {
        let left: Vec<_> = children.iter().filter(|pid| sockets::runs(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?} run")) }
    })
    .await;
    assert_eq!(importer.ended(), None, "{}", importer.tail());

    shop.restart().await;
    println!("a start after kill -9: {:.1} s", shop.started_in.as_secs_f64());
    // The importer was waiting, and goes on by itself.
    has_events(&shop, 900).await;
    assert_eq!(importer.ended(), None, "it was over before it could be killed");
    importer.kill();

    // Killed at once, while its orphans are still ending, and started at once.
    shop.kill();
    shop.restart().await;
    println!("a start at once after kill -9: {:.1} s", shop.started_in.as_secs_f64());
    let again = import(&shop, &shop.place.dir().join("rejects.csv")).await;
    assert_eq!(summary(&again), whole_month());
    let oracle = tokio::task::spawn_blocking(|| Oracle::of(&sample())).await.expect("it reads");
    let posted = Instant::now();
    equals_oracle(&shop, &oracle, CATCH_UP).await;
    println!("read models had all {:.1} s after the import", posted.elapsed().as_secs_f64());
    let doubled = "select count(*) - count(distinct (topic, stream_id)) from events";
    assert_eq!(sql::number(&shop.database("shop_invoicing"), doubled).await, Ok(0));
}

/// Slow enough to be met in the middle.
fn importer(shop: &Shop) -> Process {
    let args = ["import", "online-retail", "--concurrency", "4", "--patience", "120", "--url"];
    let mut command = command(&args, &[]);
    command.arg(&shop.ready().api).arg(sample()).current_dir(shop.place.dir());
    Process::start("the importer", command, &shop.place.dir().join("importer.log"))
}

async fn has_events(shop: &Shop, count: i64) {
    let database = shop.database("shop_invoicing");
    eventually(PROGRESS, "documents that were accepted", async || {
        let stored = sql::number(&database, "select count(*) from events").await?;
        if stored >= count { Ok(()) } else { Err(format!("{stored} are there")) }
    })
    .await;
}
