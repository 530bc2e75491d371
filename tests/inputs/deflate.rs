//! Deflate streams, right ones and such as no compressor makes, and what the laxest reader takes
//! them for.

use std::collections::HashMap;

use fastrand::Rng;

/// A stream of `content`, as a compressor makes it.
pub fn compress(content: &[u8]) -> Vec<u8> {
    let mut compressor = flate2::Compress::new(flate2::Compression::new(6), false);
    let mut out = Vec::with_capacity(content.len() + 64);
    compressor
        .compress_vec(content, &mut out, flate2::FlushCompress::Finish)
        .expect("room for everything");
    out
}

/// A stream out of random blocks, and its content if a lax reader finds one.
pub fn random(rng: &mut Rng) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut bits = Bits::default();
    let blocks = rng.usize(1..4);
    for block in 1..=blocks {
        bits.put(u32::from(block == blocks && rng.u8(..24) != 0), 1);
        match rng.u8(..8) {
            0 => stored(rng, &mut bits),
            1..=3 => fixed(rng, &mut bits),
            4 if rng.u8(..8) == 0 => bits.put(3, 2),
            _ => dynamic(rng, &mut bits),
        }
    }
    let mut stream = bits.bytes;
    if rng.u8(..12) == 0 {
        stream.extend((0..rng.usize(1..12)).map(|_| rng.u8(..)));
    }
    if rng.u8(..24) == 0 {
        stream.truncate(rng.usize(..=stream.len()));
    }
    let content = inflate(&stream);
    (stream, content)
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: u32,
}

impl Bits {
    fn put(&mut self, value: u32, count: u32) {
        for bit in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) << (self.used % 8)) as u8;
            self.used += 1;
        }
    }

    /// A Huffman code, whose first bit is its highest.
    fn code(&mut self, (code, length): (u32, u32)) {
        for bit in (0..length).rev() {
            self.put(code >> bit & 1, 1);
        }
    }
}

fn stored(rng: &mut Rng, bits: &mut Bits) {
    bits.put(0, 2);
    while !bits.used.is_multiple_of(8) {
        bits.put(u32::from(rng.u8(..8) == 0), 1);
    }
    let length = rng.u16(..40);
    let check = if rng.u8(..16) == 0 { rng.u16(..) } else { !length };
    bits.put(length.into(), 16);
    bits.put(check.into(), 16);
    (0..length).for_each(|_| bits.put(rng.u8(..).into(), 8));
}

fn fixed(rng: &mut Rng, bits: &mut Bits) {
    bits.put(1, 2);
    let literals = codes(&fixed_lengths());
    let distances = codes(&[5; 32]);
    tokens(rng, bits, &literals, &distances);
}

fn fixed_lengths() -> Vec<u32> {
    (0..288)
        .map(|symbol| {
            if symbol < 144 {
                8
            } else if symbol < 256 {
                9
            } else if symbol < 280 {
                7
            } else {
                8
            }
        })
        .collect()
}

fn dynamic(rng: &mut Rng, bits: &mut Bits) {
    bits.put(2, 2);
    let literals = if rng.u8(..6) == 0 { rng.usize(257..=288) } else { rng.usize(257..=286) };
    let distances = if rng.u8(..6) == 0 { rng.usize(1..=32) } else { rng.usize(1..=30) };
    let mut symbols: Vec<usize> = (0..rng.usize(..12)).map(|_| rng.usize(..literals)).collect();
    if rng.u8(..32) != 0 {
        symbols.push(256);
    }
    let literal_lengths = lengths(rng, literals, symbols, 15);
    let used = (0..rng.usize(..6)).map(|_| rng.usize(..distances)).collect();
    let distance_lengths = lengths(rng, distances, used, 15);
    let all = [&literal_lengths[..], &distance_lengths].concat();

    let mut written = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let run = all[at..].iter().take_while(|length| **length == all[at]).count();
        let (symbol, value, width, count) = match (all[at], run) {
            (0, 11..) if rng.u8(..8) != 0 => (18, run.min(138) - 11, 7, run.min(138)),
            (0, 3..) if rng.u8(..8) != 0 => (17, run.min(10) - 3, 3, run.min(10)),
            (_, 3..) if at > 0 && all[at - 1] == all[at] && rng.bool() => {
                (16, run.min(6) - 3, 2, run.min(6))
            }
            (length, _) => (length as usize, 0, 0, 1),
        };
        written.push((symbol, value as u32, width));
        at += count;
    }
    if rng.u8(..40) == 0 {
        written.push((18, 127, 7));
    }
    let used = written.iter().map(|(symbol, ..)| *symbol).collect();
    let lengths = lengths(rng, 19, used, 7);
    let codes_of_lengths = codes(&lengths);
    let order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    bits.put((literals - 257) as u32, 5);
    bits.put((distances - 1) as u32, 5);
    bits.put(15, 4);
    order.iter().for_each(|symbol| bits.put(lengths[*symbol], 3));
    for (symbol, value, width) in written {
        bits.code(codes_of_lengths[symbol]);
        bits.put(value, width);
    }
    tokens(rng, bits, &codes(&literal_lengths), &codes(&distance_lengths));
}

/// Code lengths: mostly a complete code of `symbols`.
fn lengths(rng: &mut Rng, count: usize, mut symbols: Vec<usize>, most: u32) -> Vec<u32> {
    symbols.sort_unstable();
    symbols.dedup();
    let mut leaves = vec![0; usize::from(!symbols.is_empty())];
    while leaves.len() < symbols.len() {
        let at = rng.usize(..leaves.len());
        if leaves[at] < most {
            leaves[at] += 1;
            leaves.push(leaves[at]);
        }
    }
    let mut lengths = vec![0; count];
    for (symbol, length) in symbols.into_iter().zip(leaves) {
        lengths[symbol] = length.max(1);
    }
    if rng.u8(..24) == 0 {
        let at = rng.usize(..count);
        lengths[at] = rng.u32(..=most);
    }
    lengths
}

/// The canonical code of each symbol with its length, 0 for symbols without one.
fn codes(lengths: &[u32]) -> Vec<(u32, u32)> {
    let mut next = 0_u32;
    let mut codes = vec![(0, 0); lengths.len()];
    for length in 1..=15 {
        next = next.wrapping_shl(1);
        for symbol in (0..lengths.len()).filter(|symbol| lengths[*symbol] == length) {
            codes[symbol] = (next, length);
            next += 1;
        }
    }
    codes
}

fn tokens(rng: &mut Rng, bits: &mut Bits, literals: &[(u32, u32)], distances: &[(u32, u32)]) {
    let coded = |codes: &[(u32, u32)]| {
        (0..codes.len()).filter(|symbol| codes[*symbol].1 != 0).collect::<Vec<_>>()
    };
    let (known, far) = (coded(literals), coded(distances));
    let mut written = 0;
    for _ in 0..rng.usize(..24) {
        let Some(symbol) = rng.choice(&known).copied() else { break };
        match symbol {
            256 => continue,
            257.. if far.is_empty() || written == 0 && rng.u8(..16) != 0 => continue,
            _ => bits.code(literals[symbol]),
        }
        written += 1;
        if symbol < 256 {
            continue;
        }
        let extra = length_of(symbol).1;
        bits.put(rng.u32(..1 << extra), extra);
        let near: Vec<_> =
            far.iter().copied().filter(|symbol| *symbol < 4 || *symbol > 29).collect();
        let choice = if near.is_empty() || rng.u8(..8) == 0 { &far } else { &near };
        let Some(distance) = rng.choice(choice).copied() else { break };
        match distances[distance] {
            // The other bit of a code that has only one.
            (0, 1) if far.len() == 1 && rng.u8(..3) == 0 => bits.put(1, 1),
            code => bits.code(code),
        }
        let extra = distance_of(distance).1;
        bits.put(rng.u32(..1 << extra), extra);
    }
    if rng.u8(..32) != 0 && literals[256].1 != 0 {
        match literals[256] {
            (0, 1) if known.len() == 1 && rng.u8(..4) == 0 => bits.put(1, 1),
            code => bits.code(code),
        }
    }
}

/// Least length and extra bits; 286 and 287, which do not exist, as one reader takes them.
fn length_of(symbol: usize) -> (usize, u32) {
    match symbol {
        257..=264 => (symbol - 254, 0),
        265..=284 => {
            let extra = (symbol - 261) / 4;
            (3 + ((4 + (symbol - 261) % 4) << extra), extra as u32)
        }
        _ => (258, 0),
    }
}

/// Least distance and extra bits; 30 and 31, which do not exist, as one reader takes them.
fn distance_of(symbol: usize) -> (usize, u32) {
    match symbol {
        0..=3 => (symbol + 1, 0),
        4..=29 => {
            let extra = symbol / 2 - 1;
            (1 + ((2 + symbol % 2) << extra), extra as u32)
        }
        _ => (24577, 13),
    }
}

/// What a reader makes of `stream` that takes every code for something, if it can.
pub fn inflate(stream: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader { stream, at: 0 };
    let mut out = Vec::new();
    loop {
        let last = reader.bits(1)? == 1;
        match reader.bits(2)? {
            0 => {
                reader.at = reader.at.next_multiple_of(8);
                let length = reader.bits(16)?;
                reader.bits(16)?;
                for _ in 0..length {
                    out.push(reader.bits(8)? as u8);
                }
            }
            1 => block(&mut reader, &mut out, &Code::of(&fixed_lengths()), &Code::of(&[5; 32]))?,
            2 => {
                let (literals, distances) = reader.tables()?;
                block(&mut reader, &mut out, &literals, &distances)?;
            }
            _ => return None,
        }
        if last {
            return Some(out);
        }
    }
}

fn block(reader: &mut Reader, out: &mut Vec<u8>, literals: &Code, distances: &Code) -> Option<()> {
    loop {
        match literals.read(reader)? {
            literal @ ..256 => out.push(literal as u8),
            256 => return Some(()),
            symbol => {
                let (least, extra) = length_of(symbol);
                let length = least + reader.bits(extra)?;
                let (least, extra) = distance_of(distances.read(reader)?);
                let start = out.len().checked_sub(least + reader.bits(extra)?)?;
                (0..length).for_each(|at| out.push(out[start + at]));
            }
        }
    }
}

struct Reader<'a> {
    stream: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn bits(&mut self, count: u32) -> Option<usize> {
        let mut value = 0;
        for bit in 0..count {
            value |= usize::from(self.stream.get(self.at / 8)? >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    fn tables(&mut self) -> Option<(Code, Code)> {
        let (literals, distances, lengths) =
            (self.bits(5)? + 257, self.bits(5)? + 1, self.bits(4)? + 4);
        let mut of_lengths = [0; 19];
        for symbol in [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
            .into_iter()
            .take(lengths)
        {
            of_lengths[symbol] = self.bits(3)? as u32;
        }
        let code = Code::of(&of_lengths);
        let mut all = Vec::new();
        while all.len() < literals + distances {
            let (length, count) = match code.read(self)? {
                16 => (*all.last()?, 3 + self.bits(2)?),
                17 => (0, 3 + self.bits(3)?),
                18 => (0, 11 + self.bits(7)?),
                length => (length as u32, 1),
            };
            all.extend(std::iter::repeat_n(length, count));
        }
        all.truncate(literals + distances);
        Some((Code::of(&all[..literals]), Code::of(&all[literals..])))
    }
}

struct Code {
    symbols: HashMap<(u32, u32), usize>,
    /// Where a code has one symbol, both bits are taken for it.
    only: Option<usize>,
}

impl Code {
    fn of(lengths: &[u32]) -> Self {
        let codes = codes(lengths);
        let coded = || (0..codes.len()).filter(|symbol| codes[*symbol].1 != 0);
        let only = (coded().count() == 1).then(|| coded().next()).flatten();
        Code { symbols: coded().map(|symbol| (codes[symbol], symbol)).collect(), only }
    }

    fn read(&self, reader: &mut Reader) -> Option<usize> {
        let mut code = 0;
        for length in 1..=15 {
            code = code << 1 | reader.bits(1)? as u32;
            match self.symbols.get(&(code, length)) {
                Some(symbol) => return Some(*symbol),
                None if length == 1 && self.only.is_some() => return self.only,
                None => {}
            }
        }
        None
    }
}
