//! Clients that open connections and say nothing more, while others work.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use foldstream_testkit::eventually;
use system_tests::api::Api;
use system_tests::documents::{invoice, new_id};
use system_tests::place::Place;
use system_tests::shop::{DRAIN, launch};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const HALF_OPEN: usize = 5_000;
/// Good requests, a hundred in a second.
const GOOD: usize = 600;
const EVERY: Duration = Duration::from_millis(10);
/// 50 ms is the aim, of a release build on a machine of its own. This one is not optimised and
/// shares two cores with all other tests.
const P99: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1_000 } else { 50 });
const RESIDENT_MB: u64 = 150;

#[expect(unsafe_code, reason = "std has no way to ask for more open files")]
fn raise_open_files(wanted: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct given, which lives through them.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_cur.max(wanted.min(limit.rlim_max));
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
    limit.rlim_cur
}

fn resident_mb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// A connection that begins a request and does not end it.
async fn half_open(address: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"POST /v1/invoices HTTP/1.1\r\nhost: x\r\nx-slow: ").await?;
    Ok(stream)
}

/// All of them, opened some at a time.
async fn all_half_open(address: &str) -> Vec<TcpStream> {
    let (mut slow, mut opening) = (Vec::with_capacity(HALF_OPEN), JoinSet::new());
    for _ in 0..HALF_OPEN {
        let address = address.to_owned();
        opening.spawn(async move { half_open(&address).await });
        if opening.len() >= 200 {
            slow.extend(opening.join_next().await.and_then(Result::ok).and_then(Result::ok));
        }
    }
    while let Some(opened) = opening.join_next().await {
        slow.extend(opened.ok().and_then(Result::ok));
    }
    assert_eq!(slow.len(), HALF_OPEN, "all connections are taken");
    slow
}

/// Waits until the server has closed them.
async fn all_closed(admin: &Api) {
    let few = async || {
        let text = String::from_utf8_lossy(&admin.get("/metrics").await.body).into_owned();
        let count = text.lines().find_map(|line| line.strip_prefix("http_connections "));
        let count: f64 = count.and_then(|count| count.parse().ok()).unwrap_or(f64::MAX);
        if count < 100.0 { Ok(()) } else { Err(format!("{count} connections")) }
    };
    eventually(Duration::from_secs(30), "the end of the half-open ones", few).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_half_open_connections_do_not_slow_down_the_others() {
    // The shop inherits it.
    let files = raise_open_files(32_768);
    assert!(files > 2 * HALF_OPEN as u64, "at most {files} open files: raise `ulimit -n`");
    let place = Place::new();
    // Room for them all, and time enough to stay: a smaller cap and a shorter deadline would only
    // make it easier. The default deadline of 5 s is what ends them in the end.
    let settings = "[http]\nmax_connections = 8000\n";
    fs::write(place.dir().join("foldstream.toml"), settings).expect("it can be written");
    let process = launch(&place, &[]);
    eventually(Duration::from_secs(90), "the shop's line", async || {
        assert_eq!(process.ended(), None, "{}", process.tail());
        process.stdout().first().cloned()
    })
    .await;
    let api = Api::new(&format!("http://127.0.0.1:{}", place.base));
    let admin = Api::new(&format!("http://127.0.0.1:{}", place.base + 9));
    for _ in 0..50 {
        api.post("/v1/invoices", &invoice(&new_id())).await.expect(201);
    }
    let before = resident_mb(process.pid());

    let address = format!("127.0.0.1:{}", place.base);
    let mut slow = all_half_open(&address).await;

    // Open loop: a request goes out each 10 ms, whatever became of those before. The connections
    // that were closed at their deadline are opened again.
    let (mut good, mut ticks) = (JoinSet::new(), tokio::time::interval(EVERY));
    let mut most = before;
    for n in 0..GOOD {
        ticks.tick().await;
        let api = api.clone();
        good.spawn(async move {
            let (began, body) = (Instant::now(), invoice(&new_id()));
            let answer = api.post("/v1/invoices", &body).await;
            (answer.status, began.elapsed())
        });
        if n % 100 == 99 {
            most = most.max(resident_mb(process.pid()));
            admin.get("/livez").await.expect(200);
        }
        let place = n * (HALF_OPEN / GOOD);
        for stream in &mut slow[place..place + HALF_OPEN / GOOD] {
            if stream.write_all(b"z").await.is_err()
                && let Ok(again) = half_open(&address).await
            {
                *stream = again;
            }
        }
    }
    let mut took = Vec::new();
    for (status, elapsed) in good.join_all().await {
        assert_eq!(status, 201);
        took.push(elapsed);
    }
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    println!(
        "{} half-open connections: {GOOD} good requests at 100/s, p50 {:?}, p99 {p99:?}; resident \
         {before} MB before, {most} MB at most",
        slow.len(),
        took[took.len() / 2],
    );
    assert!(p99 < P99, "{p99:?}");
    assert!(most < RESIDENT_MB, "{most} MB");
    // They are closed by the server, not kept for good.
    all_closed(&admin).await;
    drop(slow);
    assert!(process.terminate(DRAIN).is_some_and(|status| status.success()), "{}", process.tail());
}
