//! Kafka and Postgres for one or several worlds.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, Weak};

use foldstream_local::{Detour, Local, free_port};

use crate::world::{blocking, lock};

/// A way to Kafka with the socket of its proxy.
pub(crate) type Way = (Detour, TcpListener);

/// Kafka and Postgres, with some ways to Kafka that lead through proxies.
#[derive(Debug)]
pub struct Infra {
    /// Both.
    pub local: Local,
    /// Those that no world uses now.
    detours: Mutex<Vec<Way>>,
}

impl Infra {
    /// New ones, for so many worlds at a time. They end with the last who holds them.
    ///
    /// # Errors
    /// They do not start.
    pub async fn start(worlds: usize) -> Result<Arc<Self>, String> {
        let way = |_| {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let advertise = socket.local_addr()?.port();
            Ok((Detour { listen: free_port(), advertise }, socket))
        };
        let detours: std::io::Result<Vec<Way>> = (0..worlds).map(way).collect();
        let detours = detours.map_err(|error| error.to_string())?;
        let given = detours.iter().map(|(detour, _)| *detour).collect();
        let started = blocking(move || {
            Local::ephemeral_with(|options| options.kafka_detours = given, &mut |_| {})
        });
        let local = started.await.map_err(|error| error.to_string())?;
        Ok(Arc::new(Infra { local, detours: Mutex::new(detours) }))
    }

    /// Those that other tests of this process use just now, or new ones.
    ///
    /// # Errors
    /// They do not start.
    pub async fn shared() -> Result<Arc<Self>, String> {
        static SHARED: tokio::sync::Mutex<Weak<Infra>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(infra) = shared.upgrade() {
            return Ok(infra);
        }
        let infra = Infra::start(16).await?;
        *shared = Arc::downgrade(&infra);
        Ok(infra)
    }

    /// A way to Kafka that nobody else uses.
    pub(crate) fn take_detour(&self) -> Option<Way> {
        lock(&self.detours).pop()
    }

    pub(crate) fn give_back(&self, way: Way) {
        lock(&self.detours).push(way);
    }
}
