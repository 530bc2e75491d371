//! Which addresses a redirect may reach (hostile input R14, R15).
//!
//! A registry on the public network must not send us to the cloud's metadata service or into the local network. The
//! check is made on the addresses that a name resolves to, by the resolver of the very connection, so that no second
//! look-up can give another answer. Behind a proxy, names are resolved by the proxy and addresses are its matter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The part of the network that an address belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// This machine.
    Loopback,
    /// One link, the metadata services of clouds included.
    Link,
    /// A private network.
    Private,
    /// Everything else.
    Public,
}

impl Reach {
    /// All of them.
    pub const ALL: [Reach; 4] = [Reach::Loopback, Reach::Link, Reach::Private, Reach::Public];

    /// Where `address` lies.
    pub fn of(address: IpAddr) -> Reach {
        match address {
            IpAddr::V4(v4) => Reach::of_v4(v4),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Reach::of_v4(v4),
                None => Reach::of_v6(v6),
            },
        }
    }

    fn of_v4(address: Ipv4Addr) -> Reach {
        let [a, b, ..] = address.octets();
        match (a, b) {
            (127 | 0, _) => Reach::Loopback,
            (169, 254) => Reach::Link,
            // RFC 1918, RFC 6598 (shared), RFC 2544 (benchmarks)
            (10, _) | (172, 16..=31) | (192, 168) | (100, 64..=127) | (198, 18..=19) => Reach::Private,
            _ if address.is_multicast() || address.is_broadcast() => Reach::Link,
            _ => Reach::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Reach {
        let first = address.segments()[0];
        if address.is_loopback() || address.is_unspecified() {
            Reach::Loopback
        } else if first & 0xffc0 == 0xfe80 || address.is_multicast() {
            Reach::Link
        } else if first & 0xfe00 == 0xfc00 {
            Reach::Private
        } else {
            Reach::Public
        }
    }

    /// Whether a registry in this part may redirect to `target`: to the public network, or within its own part.
    pub fn permits(self, target: IpAddr) -> bool {
        let target = Reach::of(target);
        target == Reach::Public || target == self
    }
}

/// The target of a redirect lies where the registry may not send us.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is an address of this machine or of a local network")]
pub(super) struct Forbidden(pub String);

/// Resolves names for the redirects of a registry that lies in the given part of the network.
pub(super) struct Guarded(pub Reach);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match found.iter().find(|address| !reach.permits(address.ip())) {
                Some(_) => Err(Forbidden(name.as_str().to_owned()).into()),
                None => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R14
    #[test]
    fn a_registry_reaches_the_public_network_and_its_own_part() {
        for (text, reach) in [
            ("127.0.0.1", Reach::Loopback),
            ("::1", Reach::Loopback),
            ("::ffff:127.0.0.1", Reach::Loopback),
            ("0.0.0.0", Reach::Loopback),
            ("169.254.169.254", Reach::Link),
            ("fe80::1", Reach::Link),
            ("10.1.2.3", Reach::Private),
            ("172.31.0.1", Reach::Private),
            ("192.168.0.1", Reach::Private),
            ("fd00:ec2::254", Reach::Private),
            ("172.32.0.1", Reach::Public),
            ("2001:db8::1", Reach::Public),
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Reach::of(address), reach, "{text}");
            for from in Reach::ALL {
                assert_eq!(from.permits(address), reach == Reach::Public || from == reach, "{from:?} {text}");
            }
        }
    }

    /// R15
    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        let resolve = |reach| Guarded(reach).resolve("localhost".parse().unwrap());
        let error = resolve(Reach::Public).await.err().unwrap();
        assert_eq!(error.downcast_ref(), Some(&Forbidden("localhost".to_owned())));
        assert!(resolve(Reach::Loopback).await.is_ok());
    }
}
