//! Packets: a tag and a body. Lengths that are not told ahead do not occur in certificates and
//! detached signatures, and are refused.

use super::{OpenPgpError, refuse};

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PacketTag {
    Signature,
    PublicKey,
    PublicSubkey,
    UserId,
    /// A user attribute, which can be certified as a user ID is.
    UserAttribute,
    /// One that says nothing here.
    Ignored,
}

/// One packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packet<'a> {
    pub tag: PacketTag,
    pub body: &'a [u8],
}

/// The packets that make up `bytes`.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Packet<'_>>, OpenPgpError> {
    let mut rest = Cursor(bytes);
    let mut packets = Vec::new();
    while !rest.0.is_empty() {
        let first = rest.byte()?;
        if first & 0x80 == 0 {
            return refuse("it is no OpenPGP packet");
        }
        let (number, length) = match first & 0x40 {
            0 => (first >> 2 & 0x0f, old_length(first, &mut rest)?),
            _ => (first & 0x3f, new_length(&mut rest)?),
        };
        let body = rest.take(length)?;
        packets.push(Packet { tag: tag(number)?, body });
    }
    Ok(packets)
}

fn tag(number: u8) -> Result<PacketTag, OpenPgpError> {
    Ok(match number {
        2 => PacketTag::Signature,
        6 => PacketTag::PublicKey,
        14 => PacketTag::PublicSubkey,
        13 => PacketTag::UserId,
        17 => PacketTag::UserAttribute,
        // Marker, trust, padding; and those from 40 on, which may be passed over.
        10 | 12 | 21 | 40.. => PacketTag::Ignored,
        _ => {
            return refuse(format_args!(
                "it holds a packet that does not belong there (tag {number})"
            ));
        }
    })
}

fn old_length(first: u8, rest: &mut Cursor<'_>) -> Result<usize, OpenPgpError> {
    match first & 3 {
        0 => Ok(usize::from(rest.byte()?)),
        1 => rest.number(2),
        2 => rest.number(4),
        _ => refuse("a packet does not tell its length"),
    }
}

/// A length as new packets and subpackets write it.
pub(super) fn new_length(rest: &mut Cursor<'_>) -> Result<usize, OpenPgpError> {
    match rest.byte()? {
        short @ ..192 => Ok(usize::from(short)),
        high @ 192..224 => Ok((usize::from(high - 192) << 8) + usize::from(rest.byte()?) + 192),
        255 => rest.number(4),
        _ => refuse("a packet does not tell its length"),
    }
}

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn take(&mut self, length: usize) -> Result<&'a [u8], OpenPgpError> {
        let Some((taken, rest)) = self.0.split_at_checked(length) else {
            return refuse("it ends too early");
        };
        self.0 = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, OpenPgpError> {
        Ok(self.take(1)?[0])
    }

    /// A number of so many bytes, at most four, the most significant first.
    pub fn number(&mut self, bytes: usize) -> Result<usize, OpenPgpError> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// A multiprecision integer, without leading zeros.
    pub fn integer(&mut self) -> Result<&'a [u8], OpenPgpError> {
        let bits = self.number(2)?;
        let bytes = self.take(bits.div_ceil(8))?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok(&bytes[zeros..])
    }
}
