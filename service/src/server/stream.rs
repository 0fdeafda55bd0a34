//! The socket of a connection: it notes when bytes move, and closes gently.

use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How long a closed connection is read on, so that the client sees the answer before a reset.
const LINGER: Duration = Duration::from_secs(1);
/// How many bytes are read on at most.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// A head has begun, or must begin: the connection is new.
    Head,
    /// A request is being answered.
    Busy,
    /// The next request.
    Idle,
}

/// The phase of a connection and since when. Shared by socket, service and watch.
#[derive(Debug, Clone)]
pub(super) struct Pulse(Arc<Mutex<State>>);

#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) since: Instant,
    /// Since when the client takes nothing of what is written.
    pub(super) blocked: Option<Instant>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        let state = State { phase: Phase::Head, since: Instant::now(), blocked: None };
        Self(Arc::new(Mutex::new(state)))
    }

    pub(super) fn state(&self) -> State {
        *self.lock()
    }

    pub(super) fn enter(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = phase;
        state.since = Instant::now();
    }

    fn received(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Idle {
            state.phase = Phase::Head;
            state.since = Instant::now();
        }
    }

    fn written(&self, blocked: bool) {
        let mut state = self.lock();
        if !blocked {
            state.blocked = None;
            // The end of an answer may still be on its way after its body has ended.
            if state.phase == Phase::Idle {
                state.since = Instant::now();
            }
        } else if state.blocked.is_none() {
            state.blocked = Some(Instant::now());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that keeps the pulse.
pub(super) struct Watched {
    socket: TcpStream,
    pulse: Pulse,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl Watched {
    pub(super) fn new(socket: TcpStream, pulse: Pulse) -> Self {
        Self { socket, pulse, linger: None }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.pulse.received();
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.pulse.written(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.socket).poll_write_vectored(cx, parts);
        this.pulse.written(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    /// Ends the sending side, then reads on for a moment: closing a socket with unread bytes
    /// resets it, and the reset can overtake the answer (say, 413 in the middle of an upload).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.linger.is_none() {
            std::task::ready!(Pin::new(&mut this.socket).poll_shutdown(cx))?;
        }
        let socket = &mut this.socket;
        let (timer, read) =
            this.linger.get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER)), 0));
        let mut waste = [0_u8; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut waste);
            match Pin::new(&mut *socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    *read += buffer.filled().len();
                    if *read > LINGER_BYTES {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return timer.as_mut().poll(cx).map(Ok),
            }
        }
    }
}

/// Tells a connection beyond the cap that there is no room.
pub(super) async fn refuse(mut socket: TcpStream) {
    let problem = crate::problem::Problem::new(crate::problem::ProblemKind::Overloaded)
        .detail("too many connections are open");
    let body = problem.to_json(None).to_string();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {}\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        crate::problem::MEDIA_TYPE,
        body.len(),
    );
    // The client may be gone already: then there is nobody to tell.
    let told = async {
        socket.write_all(answer.as_bytes()).await?;
        socket.shutdown().await?;
        let mut waste = [0_u8; 4096];
        while socket.read(&mut waste).await? > 0 {}
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(LINGER, told).await {
        tracing::debug!(%error, "a connection beyond the cap closed early");
    }
}
