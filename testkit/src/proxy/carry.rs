//! One connection: in each direction a reader, a bounded queue and a writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::{CHUNK, Ending, Mode, QUEUE, Shared, State, Way};

/// The server is near: a connection that takes longer does not come.
const CONNECT: Duration = Duration::from_secs(10);
/// At a rate, bytes pass in pieces that are small beside it.
const RATED: usize = 1024;
/// Between two slices.
const APART: Duration = Duration::from_millis(1);

enum Item {
    Piece { due: Instant, bytes: Vec<u8> },
    End(Ending),
}

/// Counts a connection while it is there.
struct Live<'a>(&'a Shared);

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Carries a connection to its end, which is that of either side, a cut, or that of the proxy.
pub(super) async fn connection(
    shared: Arc<Shared>,
    mut client: TcpStream,
    mut ends: watch::Receiver<Ending>,
) {
    shared.live.fetch_add(1, Ordering::Relaxed);
    let _live = Live(&shared);
    let connected = tokio::select! {
        connected = timeout(CONNECT, TcpStream::connect(&shared.target)) => connected.ok(),
        _ = ends.changed() => None,
    };
    let Some(Ok(mut server)) = connected else {
        let _ = client.set_zero_linger();
        return;
    };
    // What was written apart arrives apart.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ending = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                pass(&shared, Way::ToServer, from_client, to_server),
                pass(&shared, Way::ToClient, from_server, to_client),
            )
        };
        tokio::select! {
            ended = both => ended.err().unwrap_or(Ending::Close),
            _ = ends.changed() => *ends.borrow(),
        }
    };
    match ending {
        Ending::Close => {}
        Ending::Reset => {
            let _ = (client.set_zero_linger(), server.set_zero_linger());
        }
    }
}

/// Carries one direction to its end; an error when the whole connection is to end, and how.
async fn pass(
    shared: &Shared,
    way: Way,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
) -> Result<(), Ending> {
    let (queue, items) = mpsc::channel(QUEUE);
    tokio::try_join!(read(shared, way, from, queue), write(shared, way, to, items)).map(|_| ())
}

async fn read(
    shared: &Shared,
    way: Way,
    mut from: ReadHalf<'_>,
    queue: mpsc::Sender<Item>,
) -> Result<(), Ending> {
    let mut buffer = vec![0; CHUNK];
    let mut last = Instant::now();
    let mut dice = 0;
    loop {
        let read = from.read(&mut buffer).await.map_err(|_| Ending::Reset)?;
        if read == 0 {
            return Ok(());
        }
        let (arrive, ending) = shared.count(way, read);
        let mode = shared.mode(way);
        for bytes in buffer[..arrive].chunks(piece(mode)) {
            last = due(mode, last, bytes.len(), &mut dice);
            let bytes = bytes.to_vec();
            if queue.send(Item::Piece { due: last, bytes }).await.is_err() {
                return Ok(());
            }
        }
        if let Some(ending) = ending {
            let _ = queue.send(Item::End(ending)).await;
            return Ok(());
        }
    }
}

fn piece(mode: Mode) -> usize {
    match mode {
        Mode::Slice { bytes } => bytes.max(1),
        Mode::Rate { .. } => RATED,
        Mode::Pass | Mode::Delay { .. } | Mode::Hold | Mode::Drop => CHUNK,
    }
}

/// When a piece leaves, not before the one before it.
fn due(mode: Mode, last: Instant, bytes: usize, dice: &mut u64) -> Instant {
    let now = Instant::now();
    match mode {
        Mode::Pass | Mode::Hold | Mode::Drop => last.max(now),
        Mode::Delay { latency, jitter } => last.max(now + latency + jitter.mul_f64(next(dice))),
        Mode::Rate { bytes_per_second } => {
            last.max(now) + Duration::from_secs(bytes as u64) / bytes_per_second.max(1)
        }
        Mode::Slice { .. } => last.max(now) + APART,
    }
}

/// The next of a fixed sequence (splitmix64), from 0 to 1.
fn next(dice: &mut u64) -> f64 {
    *dice = dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *dice;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from((z >> 32) as u32) / f64::from(u32::MAX)
}

async fn write(
    shared: &Shared,
    way: Way,
    mut to: WriteHalf<'_>,
    mut items: mpsc::Receiver<Item>,
) -> Result<(), Ending> {
    let mut state = shared.state.subscribe();
    let mode = |state: &State| state.modes[way as usize];
    while let Some(item) = items.recv().await {
        let bytes = match item {
            Item::End(ending) => return Err(ending),
            Item::Piece { due, bytes } => {
                tokio::select! {
                    () = sleep_until(due) => {}
                    // Healed: what waits need not wait any longer.
                    _ = state.wait_for(|state| mode(state) == Mode::Pass) => {}
                }
                bytes
            }
        };
        // The sender of the state lives as long as the proxy.
        let _ = state.wait_for(|state| mode(state) != Mode::Hold).await;
        if shared.mode(way) == Mode::Drop {
            continue;
        }
        to.write_all(&bytes).await.map_err(|_| Ending::Reset)?;
        shared.passed[way as usize].fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
    let _ = state.wait_for(|state| mode(state) != Mode::Hold).await;
    // It may be closed already.
    let _ = to.shutdown().await;
    Ok(())
}
