//! MD5 (RFC 1321), which JA3 fingerprints are made with and nothing else: it keeps no secret.

/// `floor(2^32 * abs(sin(i + 1)))`
fn constant(i: usize) -> u32 {
    ((i as f64 + 1.0).sin().abs() * 4_294_967_296.0) as u32
}

const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// The hash in hex.
pub(super) fn hex(message: &[u8]) -> String {
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(
        padded.len().next_multiple_of(64) + if padded.len() % 64 > 56 { 56 } else { 0 },
        0,
    );
    padded.truncate((message.len() + 8) / 64 * 64 + 56);
    padded.extend((message.len() as u64 * 8).to_le_bytes());
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in padded.chunks_exact(64) {
        state = round(state, block);
    }
    let bytes = state.iter().flat_map(|word| word.to_le_bytes());
    bytes.map(|b| format!("{b:02x}")).collect()
}

fn round(state: [u32; 4], block: &[u8]) -> [u32; 4] {
    let mut words = [0_u32; 16];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().rev().fold(0, |w, b| w << 8 | u32::from(*b));
    }
    let [mut a, mut b, mut c, mut d] = state;
    for i in 0..64 {
        let (mixed, word) = match i / 16 {
            0 => ((b & c) | (!b & d), i),
            1 => ((d & b) | (!d & c), (5 * i + 1) % 16),
            2 => (b ^ c ^ d, (3 * i + 5) % 16),
            _ => (c ^ (b | !d), (7 * i) % 16),
        };
        let shift = SHIFTS[i / 16][i % 4];
        let sum = a
            .wrapping_add(mixed)
            .wrapping_add(constant(i))
            .wrapping_add(words[word]);
        (a, d, c, b) = (d, c, b, b.wrapping_add(sum.rotate_left(shift)));
    }
    let [w, x, y, z] = state;
    [
        w.wrapping_add(a),
        x.wrapping_add(b),
        y.wrapping_add(c),
        z.wrapping_add(d),
    ]
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn the_hashes_of_the_rfc() {
        assert_eq!(hex(b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(hex(b"message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
        let long = b"12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        assert_eq!(hex(long), "57edf4a22be3c955ac49da2e2107b67a");
    }

    #[test]
    fn every_length_is_padded_to_whole_blocks() {
        let hashes: std::collections::HashSet<_> = (0..200).map(|n| hex(&vec![b'a'; n])).collect();
        assert_eq!(hashes.len(), 200);
    }
}
