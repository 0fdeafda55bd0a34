//! A way to Postgres that can be cut.

use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards connections while it is open; cutting ends those there are and refuses new ones.
pub struct Proxy {
    pub port: u16,
    open: Arc<watch::Sender<bool>>,
}

impl Proxy {
    pub async fn to(target: String) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let open = Arc::new(watch::Sender::new(true));
        let state = open.subscribe();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (mut state, target) = (state.clone(), target.clone());
                tokio::spawn(async move {
                    if !*state.borrow_and_update() {
                        return;
                    }
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Proxy { port, open }
    }

    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}
