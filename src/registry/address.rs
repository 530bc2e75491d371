//! Which addresses a redirect may reach (hostile input R14, R15).
//!
//! A registry on the public network must not send us to the cloud's metadata service or into the
//! local network. The check is made on the addresses that a name resolves to, by the resolver of
//! the very connection, so that no second look-up can give another answer. Behind a proxy, names
//! are resolved by the proxy and addresses are its matter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The part of the network that an address belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// This machine.
    Loopback,
    /// One link, the services of clouds for their machines included.
    Link,
    /// A private network.
    Private,
    /// No place for a registry: tunnels into other networks, addresses for documents, what is
    /// reserved.
    Special,
    /// Everything else.
    Public,
}

/// The blocks of IPv4 that are not reached globally: all of the IANA IPv4 Special-Purpose Address
/// Registry (<https://www.iana.org/assignments/iana-ipv4-special-registry>), and the multicast
/// block. Of a block in another one the smaller stands first.
const V4: [(Ipv4Addr, u32, Reach); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, Reach::Loopback),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Reach::Private),
    (Ipv4Addr::new(100, 64, 0, 0), 10, Reach::Private),
    (Ipv4Addr::new(127, 0, 0, 0), 8, Reach::Loopback),
    // Where Azure has a service for the machine itself, although the block is public.
    (Ipv4Addr::new(168, 63, 129, 16), 32, Reach::Link),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Reach::Link),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Reach::Private),
    // Protocols between a machine and its network; Oracle's cloud has its metadata service there.
    (Ipv4Addr::new(192, 0, 0, 0), 24, Reach::Link),
    (Ipv4Addr::new(192, 0, 2, 0), 24, Reach::Special),
    (Ipv4Addr::new(192, 88, 99, 0), 24, Reach::Special),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Reach::Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Reach::Private),
    (Ipv4Addr::new(198, 51, 100, 0), 24, Reach::Special),
    (Ipv4Addr::new(203, 0, 113, 0), 24, Reach::Special),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Reach::Link),
    (Ipv4Addr::new(255, 255, 255, 255), 32, Reach::Link),
    (Ipv4Addr::new(240, 0, 0, 0), 4, Reach::Special),
];

/// The same of the IANA IPv6 Special-Purpose Address Registry
/// (<https://www.iana.org/assignments/iana-ipv6-special-registry>), with what RFC 3879, 4291 and
/// 2765 have given up and networks may still route. Addresses that stand for one of IPv4 are judged
/// by that one.
const V6: [(Ipv6Addr, u32, Reach); 15] = [
    (Ipv6Addr::UNSPECIFIED, 128, Reach::Loopback),
    (Ipv6Addr::LOCALHOST, 128, Reach::Loopback),
    // IPv4-compatible and IPv4-translated addresses.
    (Ipv6Addr::UNSPECIFIED, 96, Reach::Special),
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96, Reach::Special),
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, Reach::Special),
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 63, Reach::Special),
    // Teredo, ORCHID and others.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, Reach::Special),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, Reach::Special),
    // 6to4.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, Reach::Special),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, Reach::Special),
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16, Reach::Special),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Reach::Private),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Reach::Link),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Reach::Private),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Reach::Link),
];

/// The well-known prefix of NAT64 (RFC 6052), behind which an IPv6 network reaches all of IPv4.
const NAT64: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

impl Reach {
    /// All of them.
    pub const ALL: [Reach; 5] =
        [Reach::Loopback, Reach::Link, Reach::Private, Reach::Special, Reach::Public];

    /// Where `address` lies.
    pub fn of(address: IpAddr) -> Reach {
        match address {
            IpAddr::V4(v4) => Reach::of_v4(v4),
            IpAddr::V6(v6) => match stands_for(v6) {
                Some(v4) => Reach::of_v4(v4),
                None => Reach::of_v6(v6),
            },
        }
    }

    fn of_v4(address: Ipv4Addr) -> Reach {
        let bits = |address: &Ipv4Addr, length: u32| address.to_bits() >> (u32::BITS - length);
        let block =
            V4.iter().find(|(block, length, _)| bits(block, *length) == bits(&address, *length));
        block.map_or(Reach::Public, |(.., reach)| *reach)
    }

    fn of_v6(address: Ipv6Addr) -> Reach {
        let bits = |address: &Ipv6Addr, length: u32| address.to_bits() >> (u128::BITS - length);
        let block =
            V6.iter().find(|(block, length, _)| bits(block, *length) == bits(&address, *length));
        block.map_or(Reach::Public, |(.., reach)| *reach)
    }

    /// Whether a registry in this part may redirect to `target`: to the public network, or within
    /// its own part.
    pub fn permits(self, target: IpAddr) -> bool {
        let target = Reach::of(target);
        target == Reach::Public || target == self
    }
}

/// The address of IPv4 for which one of IPv6 stands: a mapped one, or one behind the well-known
/// prefix of NAT64.
fn stands_for(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let behind = |prefix: Ipv6Addr| (address.to_bits() >> 32) == (prefix.to_bits() >> 32);
    let embedded = || Ipv4Addr::from_bits((address.to_bits() & u128::from(u32::MAX)) as u32);
    address.to_ipv4_mapped().or_else(|| behind(NAT64).then(embedded))
}

/// The target of a redirect lies where the registry may not send us.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0} is an address of this machine, of a local network or of a block with a special purpose"
)]
pub(super) struct Forbidden(pub String);

/// Resolves names for the redirects of a registry that lies in the given part of the network.
pub(super) struct Guarded(pub Reach);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
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
            ("fec0::1", Reach::Private),
            ("198.19.255.255", Reach::Private),
            ("100.127.0.1", Reach::Private),
            ("192.0.0.192", Reach::Link),
            ("168.63.129.16", Reach::Link),
            ("224.0.0.1", Reach::Link),
            ("255.255.255.255", Reach::Link),
            ("ff02::1", Reach::Link),
            ("240.0.0.1", Reach::Special),
            ("203.0.113.1", Reach::Special),
            ("192.88.99.1", Reach::Special),
            // NAT64, by what is behind it
            ("64:ff9b::127.0.0.1", Reach::Loopback),
            ("64:ff9b::a9fe:a9fe", Reach::Link),
            ("64:ff9b::10.0.0.1", Reach::Private),
            ("64:ff9b::8.8.8.8", Reach::Public),
            ("64:ff9b:1::8.8.8.8", Reach::Special),
            // 6to4 of 169.254.169.254, Teredo, compatible, translated
            ("2002:a9fe:a9fe::1", Reach::Special),
            ("2001:0:a9fe:a9fe::1", Reach::Special),
            ("::169.254.169.254", Reach::Special),
            ("::ffff:0:169.254.169.254", Reach::Special),
            ("::ffff:169.254.169.254", Reach::Link),
            ("::", Reach::Loopback),
            ("100::1", Reach::Special),
            ("100:0:0:1::1", Reach::Special),
            ("2001:db8::1", Reach::Special),
            ("3fff:fff::1", Reach::Special),
            ("5f00::1", Reach::Special),
            ("172.32.0.1", Reach::Public),
            ("168.63.129.17", Reach::Public),
            ("192.0.1.1", Reach::Public),
            ("198.20.0.1", Reach::Public),
            ("2001:200::1", Reach::Public),
            ("2606:4700::1", Reach::Public),
            ("4000::1", Reach::Public),
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Reach::of(address), reach, "{text}");
            for from in Reach::ALL {
                assert_eq!(
                    from.permits(address),
                    reach == Reach::Public || from == reach,
                    "{from:?} {text}"
                );
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
