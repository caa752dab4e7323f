//! The read-only listener: where it may listen.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use tokio::net::{TcpListener, TcpStream, lookup_host};

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The text is no address.
    #[error("{address} is no address to listen on, such as 127.0.0.1:9187")]
    Address {
        /// As it was given.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can reach it, and `public` does not allow that.
    #[error(
        "{address} can be reached from outside, where everybody could read the names of this host's containers and processes, without a password and in the clear: give a loopback address, or --listen-public too"
    )]
    Public {
        /// The address that it resolves to.
        address: SocketAddr,
    },
    /// The address is in use, not on this host, or needs privilege.
    #[error("cannot listen on {address}")]
    Bind {
        /// As it was given.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A TCP listener for [`crate::api::Api::read_only`].
#[derive(Debug)]
pub struct ReadOnlyListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl ReadOnlyListener {
    /// Listens on `HOST:PORT`. An address that others can reach needs `public`.
    ///
    /// # Errors
    /// When it is no address, one that others can reach, or cannot be listened on.
    pub async fn bind(address: &str, public: bool) -> Result<Self, ListenError> {
        let resolved = lookup_host(address).await;
        let resolved: Vec<_> = resolved
            .map_err(|source| ListenError::Address {
                address: address.to_owned(),
                source,
            })?
            .collect();
        let outside = resolved.iter().find(|address| !is_loopback(address.ip()));
        if let (Some(&address), false) = (outside, public) {
            return Err(ListenError::Public { address });
        }
        let failed = |source| ListenError::Bind {
            address: address.to_owned(),
            source,
        };
        let listener = TcpListener::bind(&*resolved).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address that it listens on. Has the actual port, also for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(self.address.ip())
    }

    pub(super) async fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

/// An IPv4 address may be mapped into an IPv6 one.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_others_can_reach_must_be_meant() {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
            let refused = ReadOnlyListener::bind(address, false).await.unwrap_err();
            assert!(matches!(refused, ListenError::Public { .. }), "{address}");
            assert!(refused.to_string().contains("--listen-public"), "{refused}");
        }
        let meant = ReadOnlyListener::bind("0.0.0.0:0", true).await.unwrap();
        assert!(!meant.is_loopback());
        let here = ReadOnlyListener::bind("127.0.0.1:0", false).await.unwrap();
        assert!(here.is_loopback() && here.address().port() != 0);
    }

    #[tokio::test]
    async fn what_is_no_address_is_named() {
        for address in ["", "9187", "127.0.0.1", "127.0.0.1:99999", "a b:1"] {
            let refused = ReadOnlyListener::bind(address, false).await.unwrap_err();
            assert!(matches!(refused, ListenError::Address { .. }), "{refused}");
            assert!(refused.to_string().contains("127.0.0.1:9187"));
        }
    }
}
