//! Kafka and Postgres for one or several worlds.

use std::sync::{Arc, Mutex, Weak};

use foldstream_local::{Detour, Local, free_port};

use crate::world::{blocking, lock};

/// Kafka and Postgres, with some ways to Kafka that lead through proxies.
#[derive(Debug)]
pub struct Infra {
    /// Both.
    pub local: Local,
    /// Those that no world uses now.
    detours: Mutex<Vec<Detour>>,
}

impl Infra {
    /// New ones, for so many worlds at a time. They end with the last who holds them.
    ///
    /// # Errors
    /// They do not start.
    pub async fn start(worlds: usize) -> Result<Arc<Self>, String> {
        let detour = |_| Detour { listen: free_port(), advertise: free_port() };
        let detours: Vec<Detour> = (0..worlds).map(detour).collect();
        let given = detours.clone();
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
    pub(crate) fn take_detour(&self) -> Option<Detour> {
        lock(&self.detours).pop()
    }

    pub(crate) fn give_back(&self, detour: Detour) {
        lock(&self.detours).push(detour);
    }
}
