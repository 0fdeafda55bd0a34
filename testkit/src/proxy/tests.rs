use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::{CHUNK, Ending, Mode, Point, Proxy, QUEUE, Way, parts};
use crate::eventually;

const LONG: Duration = Duration::from_secs(20);
/// Long enough to see that nothing comes.
const SHORT: Duration = Duration::from_millis(150);

/// A server that answers every byte with itself; it ends with its runtime.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    address
}

async fn proxy() -> (Proxy, TcpStream) {
    let proxy = Proxy::to(echo().await).await;
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    (proxy, stream)
}

async fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn hear(stream: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    timeout(LONG, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

async fn hears_nothing(stream: &mut TcpStream) {
    let mut byte = [0];
    let heard = timeout(SHORT, stream.read(&mut byte)).await;
    assert!(heard.is_err(), "{heard:?}");
}

/// Reads to the end: what came, and how it ended.
async fn rest(stream: &mut TcpStream) -> (String, Option<ErrorKind>) {
    let mut bytes = Vec::new();
    let ended = timeout(LONG, stream.read_to_end(&mut bytes)).await.unwrap();
    (String::from_utf8(bytes).unwrap(), ended.err().map(|error| error.kind()))
}

#[tokio::test]
async fn it_passes_everything_and_the_end_of_each_direction() {
    let (proxy, mut stream) = proxy().await;
    say(&mut stream, "hello").await;
    assert_eq!(hear(&mut stream, 5).await, "hello");
    assert_eq!((proxy.connections(), proxy.passed(Way::ToServer)), (1, 5));
    say(&mut stream, "bye").await;
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, ("bye".to_owned(), None));
    eventually(LONG, "no connection", async || proxy.connections() == 0).await;
}

#[tokio::test]
async fn delayed_bytes_come_late_and_in_order() {
    let (proxy, mut stream) = proxy().await;
    let latency = Duration::from_millis(100);
    proxy.set_way(Way::ToServer, Mode::Delay { latency, jitter: latency });
    let began = Instant::now();
    for text in ["a", "b", "c"] {
        say(&mut stream, text).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(hear(&mut stream, 3).await, "abc");
    assert!(began.elapsed() >= latency, "{:?}", began.elapsed());
    proxy.set(Mode::Delay { latency: LONG * 10, jitter: Duration::ZERO });
    say(&mut stream, "d").await;
    hears_nothing(&mut stream).await;
    proxy.heal();
    assert_eq!(hear(&mut stream, 1).await, "d");
}

#[tokio::test]
async fn a_rate_is_kept_and_slices_are_small() {
    let (proxy, mut stream) = proxy().await;
    proxy.set_way(Way::ToServer, Mode::Rate { bytes_per_second: 20_000 });
    let began = Instant::now();
    let text = "x".repeat(4_000);
    say(&mut stream, &text).await;
    assert_eq!(hear(&mut stream, 4_000).await, text);
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    proxy.heal();
    proxy.set_way(Way::ToClient, Mode::Slice { bytes: 1 });
    say(&mut stream, "sliced").await;
    let began = Instant::now();
    assert_eq!(hear(&mut stream, 6).await, "sliced");
    assert!(began.elapsed() < LONG);
}

#[tokio::test]
async fn held_bytes_come_later_and_lost_ones_never() {
    let (proxy, mut stream) = proxy().await;
    proxy.set(Mode::Hold);
    say(&mut stream, "held").await;
    hears_nothing(&mut stream).await;
    // New connections are taken, and as silent.
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut other, "too").await;
    hears_nothing(&mut other).await;
    proxy.heal();
    assert_eq!(hear(&mut stream, 4).await, "held");
    assert_eq!(hear(&mut other, 3).await, "too");
    proxy.set_way(Way::ToClient, Mode::Drop);
    let asked = proxy.passed(Way::ToServer);
    say(&mut stream, "lost").await;
    eventually(LONG, "the question", async || proxy.passed(Way::ToServer) == asked + 4).await;
    hears_nothing(&mut stream).await;
    proxy.heal();
    say(&mut stream, "heard").await;
    assert_eq!(hear(&mut stream, 5).await, "heard");
}

#[tokio::test]
async fn a_held_sender_has_to_wait() {
    let (proxy, mut stream) = proxy().await;
    proxy.set(Mode::Hold);
    let block = vec![b'x'; 1 << 20];
    let mut sent = 0;
    let flood = async {
        // Far more than the queue and the buffers of the sockets can take.
        while sent < 64 * QUEUE * CHUNK {
            sent += stream.write(&block).await.unwrap();
        }
    };
    timeout(Duration::from_secs(2), flood).await.expect_err("somebody takes it all");
}

#[tokio::test]
async fn connections_are_closed_or_reset_and_new_ones_pass_or_are_refused() {
    let (proxy, mut stream) = proxy().await;
    say(&mut stream, "a").await;
    hear(&mut stream, 1).await;
    proxy.cut(Ending::Close);
    assert_eq!(rest(&mut stream).await, (String::new(), None));
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut stream, "b").await;
    assert_eq!(hear(&mut stream, 1).await, "b");
    proxy.cut(Ending::Reset);
    assert_eq!(rest(&mut stream).await.1, Some(ErrorKind::ConnectionReset));
    proxy.down();
    let refused = async {
        let mut stream = TcpStream::connect(proxy.address()).await?;
        stream.write_all(b"c").await?;
        stream.read_u8().await
    };
    assert!(timeout(LONG, refused).await.unwrap().is_err());
    proxy.heal();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut stream, "d").await;
    assert_eq!(hear(&mut stream, 1).await, "d");
}

#[tokio::test]
async fn it_cuts_once_after_so_many_bytes_or_at_a_chunk() {
    let (proxy, mut stream) = proxy().await;
    proxy.cut_at(Way::ToClient, Point::Bytes(3), Ending::Close);
    say(&mut stream, "ab").await;
    assert_eq!(hear(&mut stream, 2).await, "ab");
    assert!(!proxy.has_cut());
    say(&mut stream, "cd").await;
    assert_eq!(rest(&mut stream).await.0, "c");
    assert!(proxy.has_cut());
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let asked = proxy.passed(Way::ToServer);
    proxy.cut_at(Way::ToServer, Point::Chunk(2), Ending::Reset);
    say(&mut stream, "ab").await;
    assert_eq!(hear(&mut stream, 2).await, "ab");
    say(&mut stream, "cd").await;
    assert_eq!(rest(&mut stream).await, (String::new(), Some(ErrorKind::ConnectionReset)));
    assert_eq!((proxy.passed(Way::ToServer), proxy.has_cut()), (asked + 2, true));
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut stream, "again").await;
    assert_eq!(hear(&mut stream, 5).await, "again");
}

#[tokio::test]
async fn everything_ends_with_the_proxy_and_without_a_server_the_client_is_reset() {
    let (proxy, mut stream) = proxy().await;
    say(&mut stream, "a").await;
    hear(&mut stream, 1).await;
    let address = proxy.address();
    drop(proxy);
    assert_eq!(rest(&mut stream).await.0, "");
    eventually(LONG, "a closed port", async || TcpStream::connect(address).await.is_err()).await;
    let nowhere = Proxy::to(format!("127.0.0.1:{}", crate::free_port())).await;
    let mut stream = TcpStream::connect(nowhere.address()).await.unwrap();
    assert_eq!(rest(&mut stream).await, (String::new(), Some(ErrorKind::ConnectionReset)));
}

#[test]
fn only_host_and_port_of_a_url_change() {
    let cases = [
        ("postgres://u:p@h:1/x", ("postgres://u:p@", "h:1", "/x")),
        ("postgres://h?sslmode=disable", ("postgres://", "h", "?sslmode=disable")),
        ("http://h:80", ("http://", "h:80", "")),
        ("h:80", ("", "h:80", "")),
    ];
    for (url, wanted) in cases {
        assert_eq!(parts(url), wanted);
    }
}
