//! Free ports on loopback.

use std::net::{Ipv4Addr, TcpListener};

use uuid::Uuid;

/// Below the kernel's range for outgoing connections (32768 and up), on purpose: a client that
/// keeps trying a port of that range may connect to itself and so take the port of a server that
/// is only restarting.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port on 127.0.0.1 that nobody listens on now.
#[must_use]
pub fn free_port() -> u16 {
    free_port_except(&[])
}

/// A free port that is none of `taken`.
pub(crate) fn free_port_except(taken: &[u16]) -> u16 {
    loop {
        let (random, _) = Uuid::new_v4().as_u64_pair();
        let offset = u16::try_from(random % u64::from(COUNT)).unwrap_or(0);
        let port = FIRST + offset;
        if !taken.contains(&port) && is_free(port) {
            return port;
        }
    }
}

/// Whether a server could listen on this port of 127.0.0.1 now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_listened_on_and_a_taken_one_is_not_free() {
        let port = free_port();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
    }
}
