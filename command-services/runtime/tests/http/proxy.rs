//! A wire between the store and its database that can be cut.

use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections until it is cut; then it drops them and every new one.
pub(crate) struct Proxy {
    /// The database's address with this proxy in its place.
    pub(crate) url: String,
    open: Arc<watch::Sender<bool>>,
}

impl Proxy {
    pub(crate) async fn before(url: &str) -> Self {
        let (before, rest) = url.split_once('@').expect("a user");
        let (target, after) = rest.split_once('/').expect("a database");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let open = Arc::new(watch::Sender::new(true));
        tokio::spawn(forward(listener, target.to_owned(), Arc::clone(&open)));
        Proxy { url: format!("{before}@127.0.0.1:{port}/{after}"), open }
    }
    pub(crate) fn cut(&self) {
        self.open.send_replace(false);
    }
    pub(crate) fn mend(&self) {
        self.open.send_replace(true);
    }
}

async fn forward(listener: TcpListener, target: String, open: Arc<watch::Sender<bool>>) {
    while let Ok((mut from, _)) = listener.accept().await {
        let (mut wire, target) = (open.subscribe(), target.clone());
        if !*wire.borrow_and_update() {
            continue; // dropped: the other side sees its end
        }
        tokio::spawn(async move {
            let mut to = TcpStream::connect(target).await?;
            tokio::select! {
                done = copy_bidirectional(&mut from, &mut to) => done.map(|_| ()),
                _ = wire.wait_for(|open| !open) => Ok(()),
            }
        });
    }
}
