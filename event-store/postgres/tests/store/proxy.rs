//! A TCP proxy in front of Postgres that can swallow answers and cut connections.

use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Passes everything on.
    Up,
    /// Passes on what is asked, swallows what is answered.
    Mute,
    /// Takes no new connections.
    Down,
}

pub struct Proxy {
    /// The database through the proxy.
    pub url: String,
    link: Arc<watch::Sender<Link>>,
    cuts: watch::Sender<()>,
}

impl Proxy {
    pub async fn of(url: &str) -> Self {
        let (before, rest) = url.split_once('@').unwrap();
        let (address, path) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let (link, address) = (Arc::new(watch::Sender::new(Link::Up)), address.to_owned());
        let cuts = watch::Sender::new(());
        tokio::spawn(accept(listener, address, link.clone(), cuts.subscribe()));
        Proxy { url: format!("{before}@{own}/{path}"), link, cuts }
    }
    /// Ends all connections.
    pub fn cut(&self) {
        self.cuts.send_replace(());
    }
    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn accept(
    listener: TcpListener,
    address: String,
    link: Arc<watch::Sender<Link>>,
    mut cuts: watch::Receiver<()>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let state = link.subscribe();
        if *state.borrow() == Link::Down {
            continue;
        }
        let Ok(server) = TcpStream::connect(&address).await else { continue };
        cuts.mark_unchanged();
        tokio::spawn(pass(client, server, state, cuts.clone()));
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    link: watch::Receiver<Link>,
    mut cuts: watch::Receiver<()>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asked = tokio::io::copy(&mut from_client, &mut to_server);
    let answered = async {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from_server.read(&mut buffer).await {
            if *link.borrow() == Link::Up && to_client.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = asked => {}
        () = answered => {}
        _ = cuts.changed() => {}
    }
}
